"""Locks, as restic's: shared ones for writers, exclusive ones for whoever removes data.

A lock is a file that is renewed every few minutes and counts for nothing once it is 30 minutes old. Nothing on the
server enforces it, so a holder checks before each commit that its lock is still there: one whose lock was removed, say
after a long sleep, might otherwise commit an index that names packs which a prune has deleted since.
See "Locks" in restic's design document.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from backstay.repository import rfc3339
from backstay.repository.blob import Codec
from backstay.repository.errors import Corrupted, LockLost, ObjectNotFound, RepositoryError, RepositoryLocked
from backstay.repository.snapshot import now
from backstay.repository.store import Store

STALE_AFTER = timedelta(minutes=30)
REFRESH_SECONDS = 300.0
UNREFRESHED_LIMIT = 22 * 60.0  # seconds after which a holder trusts its lock only when it finds it
SETTLE_SECONDS = 0.2  # between writing a lock and looking for others again


class _LockJSON(msgspec.Struct):
    time: str
    exclusive: bool = False
    hostname: str = ""
    username: str = ""
    pid: int = 0
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class LockInfo:
    """A lock that is in the repository. `time` in UTC."""

    id: str
    time: datetime
    exclusive: bool
    hostname: str
    pid: int

    def stale(self, at: datetime) -> bool:
        """Whether it counts no more at the time `at`."""
        return at - self.time > STALE_AFTER


def read_locks(store: Store, codec: Codec, skip: str = "") -> Iterator[LockInfo]:
    """The locks in the repository but `skip`. One that vanishes meanwhile is left out, as is an empty one."""
    for name, size in store.list("locks/"):
        lock_id = name.removeprefix("locks/")
        if not size or lock_id == skip:
            continue
        try:
            raw = msgspec.json.decode(codec.open_file(store.get(name), name), type=_LockJSON)
            yield LockInfo(lock_id, rfc3339.to_datetime(raw.time), raw.exclusive, raw.hostname, raw.pid)
        except ObjectNotFound:
            continue
        except (msgspec.MsgspecError, ValueError) as error:
            raise Corrupted(f"{name} decrypts but is no lock document: {error}") from error


class SharedLock:
    """Our own lock, from `acquire` to `release`; renewed by a thread meanwhile."""

    def __init__(self, store: Store, codec: Codec, holder: str, *, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self._store = store
        self._codec = codec
        self._holder = holder
        self._refresh_seconds = refresh_seconds
        self._id = ""
        self._written = 0.0
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._settled = False

    @property
    def id(self) -> str:
        """The name of the lock's present file, empty when none is held."""
        return self._id

    def acquire(self) -> None:
        """Write the lock. Raises RepositoryLocked when another holds an exclusive one.

        `confirm` must follow before anything is written: another may have taken an exclusive lock at the same moment.
        """
        self._refuse_exclusive()
        self._id = self._write()
        self._thread = threading.Thread(target=self._keep, name="lock-refresh", daemon=True)
        self._thread.start()

    def confirm(self) -> None:
        """Look for exclusive locks once more, a moment after ours became visible. Cheap when called again."""
        with self._mutex:
            if self._settled:
                return
            time.sleep(max(0.0, SETTLE_SECONDS - (time.monotonic() - self._written)))
            self._refuse_exclusive()
            self._settled = True

    def ensure_held(self) -> None:
        """Prove that the lock is still there. Raises LockLost; then nothing may be committed."""
        self.confirm()
        with self._mutex:
            if not self._id:
                raise LockLost("committing to the repository: its lock was released already")
            if not self._store.exists(f"locks/{self._id}"):
                raise LockLost(
                    "committing to the repository: our lock was removed, and somebody may have pruned since; try again"
                )
            if time.monotonic() - self._written > STALE_AFTER.total_seconds():
                raise LockLost("committing to the repository: our lock could not be renewed and is stale; try again")

    def release(self) -> None:
        """Remove the lock; a failure to do so is left to its going stale."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        with self._mutex:
            if self._id:
                with suppress(RepositoryError):
                    self._store.delete(f"locks/{self._id}")
            self._id = ""

    def _refuse_exclusive(self) -> None:
        at = now()
        for other in read_locks(self._store, self._codec, skip=self._id):
            if other.exclusive and not other.stale(at):
                age = int((at - other.time).total_seconds())
                raise RepositoryLocked(
                    f"the repository is locked exclusively by {other.hostname} (process {other.pid}) since {age} s;"
                    " wait until it has finished, or remove the lock with 'restic unlock' when it is dead"
                )

    def _write(self) -> str:
        document = {
            "time": rfc3339.from_datetime(now()),
            "exclusive": False,
            "hostname": self._holder,
            "username": "backstay",
            "pid": os.getpid(),
        }
        stored = self._codec.seal_file(json.dumps(document).encode())
        digest = hashlib.sha256(stored)
        self._store.put(f"locks/{digest.hexdigest()}", stored, sha256=digest.digest())
        self._written = time.monotonic()
        return digest.hexdigest()

    def _keep(self) -> None:
        while not self._stop.wait(self._refresh_seconds):
            with suppress(RepositoryError), self._mutex:
                self._refresh()

    def _refresh(self) -> None:
        """A new file first, then the old one goes, so that there is a lock at every moment."""
        old = self._id
        if time.monotonic() - self._written > UNREFRESHED_LIMIT and not self._store.exists(f"locks/{old}"):
            return  # ensure_held will tell
        new = self._write()
        self._id = new
        self._store.delete(f"locks/{old}")
