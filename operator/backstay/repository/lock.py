"""Locks, as restic's: shared ones for writers, exclusive ones for whoever removes data.

A lock is a file that is renewed every few minutes and counts for nothing once it is 30 minutes old. Nothing on the
server enforces it, so a holder checks before each commit that its lock is still there and was renewed in time: one
whose lock was removed, or that slept for long, might otherwise commit an index that names packs which a prune has
deleted since.

A process that died leaves its lock behind. Restic takes such a lock for dead when it names the reader's host and a
process that is not there, which is wrong where two containers share a host's name but not its processes. So our locks
also say in which kernel, process namespace and moment their process began, and only with that proof is one passed over
before it is stale. See "Locks" in restic's design document.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import msgspec

from backstay.repository.errors import Corrupted, LockLost, ObjectNotFound, RepositoryError, RepositoryLocked
from backstay.repository.format import rfc3339
from backstay.repository.format.blob import Codec
from backstay.repository.format.malformed import MALFORMED, malformed
from backstay.repository.format.snapshot import now
from backstay.repository.stores.store import Store

STALE_AFTER = timedelta(minutes=30)
REFRESH_SECONDS = 300.0
UNREFRESHED_LIMIT = (
    22 * 60.0
)  # seconds; what lies between it and STALE_AFTER is for the commit and for clocks that differ
SETTLE_SECONDS = 0.2  # between writing a lock and looking for others again
_REMOVE_ALL = "when nobody uses the repository, remove it with 'backstay repo unlock --remove-all'"
_FIRST_PAUSE = 1.0  # seconds until a lock is tried again; doubles
_LONGEST_PAUSE = 15.0


class _LockJSON(msgspec.Struct):
    time: str
    exclusive: bool = False
    hostname: str = ""
    username: str = ""
    pid: int = 0
    uid: int = 0
    gid: int = 0
    process: str = ""


@dataclass(frozen=True)
class LockInfo:
    """A lock that is in the repository. `time` in UTC; `process` tells a process from all others, where we wrote it."""

    id: str
    time: datetime
    exclusive: bool
    hostname: str
    pid: int
    process: str = ""

    def stale(self, at: datetime) -> bool:
        """Whether it counts no more at the time `at`: too old, or of a process that is proven to be dead."""
        return at - self.time > STALE_AFTER or _proven_dead(self.process, self.pid)

    def abandoned(self, at: datetime) -> bool:
        """As `stale`, or of a process of this host that is not there, as restic judges when told to unlock."""
        return self.stale(at) or (self.hostname == socket.gethostname() and not _alive(self.pid))

    def __str__(self) -> str:
        kind = "an exclusive" if self.exclusive else "a shared"
        return f"{kind} lock of {self.hostname} (process {self.pid}) from {rfc3339.from_datetime(self.time)}"


def read_locks(store: Store, codec: Codec, skip: str = "") -> Iterator[LockInfo]:
    """The locks in the repository but `skip`. One that vanishes meanwhile is left out, as is an empty one."""
    for name, size in store.list("locks/"):
        lock_id = name.removeprefix("locks/")
        if size and lock_id != skip:
            with suppress(ObjectNotFound):
                yield _read(store, codec, name)


def _read(store: Store, codec: Codec, name: str) -> LockInfo:
    try:
        raw = msgspec.json.decode(codec.open_file(store.get(name), name), type=_LockJSON)
        moment = rfc3339.to_datetime(raw.time)
    except MALFORMED as error:
        raise malformed(f"{name} decrypts but is no lock document; {_REMOVE_ALL}", error) from error
    except Corrupted as error:
        raise Corrupted(f"{error}; {_REMOVE_ALL}") from error
    return LockInfo(name.removeprefix("locks/"), moment, raw.exclusive, raw.hostname, raw.pid, raw.process)


def unlock(store: Store, codec: Codec, *, remove_all: bool = False) -> int:
    """Remove the locks of processes that are gone; their number.

    `remove_all`: all locks, also those of living processes, which then stop before they commit anything.
    """
    removed = 0
    at = now()
    for name, _ in list(store.list("locks/")):
        if not remove_all:
            try:
                if not _read(store, codec, name).abandoned(at):
                    continue
            except (ObjectNotFound, Corrupted):  # gone, or nobody's that we could judge
                continue
        store.delete(name)
        removed += 1
    return removed


class _InTheWay(RepositoryLocked):
    """Somebody else's lock is."""

    def __init__(self, lock: LockInfo, at: datetime) -> None:
        self.lock = lock
        advice = (
            "wait until that has finished, or remove the lock with 'backstay repo unlock' or 'restic unlock' when it is"
            " dead"
        )
        ahead = lock.time - at
        if ahead > STALE_AFTER:  # not taken for stale: its holder may be alive, and its clock wrong, or ours
            advice = (
                f"its clock is {ahead // timedelta(minutes=1)} minutes ahead of ours, so that it does not go stale by"
                f" itself in time; set both by NTP, and {_REMOVE_ALL}"
            )
        super().__init__(f"the repository is in use: there is {lock}; {advice}")


class Lock:
    """Our own lock, from `acquire` to `release`; renewed by a thread meanwhile. As a context it is settled at once."""

    def __init__(
        self,
        store: Store,
        codec: Codec,
        holder: str,
        *,
        exclusive: bool = False,
        refresh_seconds: float = REFRESH_SECONDS,
        wait: float = 0.0,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        """Nothing is written yet.

        `holder`: what others read as the host's name. `wait`: seconds for which `acquire` tries again while another
        lock is in the way; `on_wait` is told once whose it is, and for how long we wait.
        """
        self.exclusive = exclusive
        self._store = store
        self._codec = codec
        self._holder = holder
        self._refresh_seconds = refresh_seconds
        self._wait = wait
        self._on_wait = on_wait
        self._id = ""
        self._written = 0.0
        self._written_at = now()
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._settled = False
        self._lost = ""

    @property
    def id(self) -> str:
        """The name of the lock's present file, empty when none is held."""
        return self._id

    def __enter__(self) -> Self:
        self.acquire(settle=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self, *, settle: bool = False) -> None:
        """Write the lock. Raises RepositoryLocked when another's is in the way until the time to wait is over.

        Unless `settle` is set, a shared lock is only complete after `confirm`, which must come before anything is
        written: another may have taken an exclusive lock at the same moment.
        """
        until = time.monotonic() + self._wait
        pause = _FIRST_PAUSE
        told = False
        while True:
            try:
                self._take(settle or self.exclusive or self._wait > 0)
            except _InTheWay as error:
                left = until - time.monotonic()
                if left <= 0:
                    raise
                if self._on_wait is not None and not told:
                    self._on_wait(f"waiting up to {self._wait:g} s: there is {error.lock}")
                told = True
                time.sleep(min(pause, left))
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                break
        self._thread = threading.Thread(target=self._keep, name="lock-refresh", daemon=True)
        self._thread.start()

    def confirm(self) -> None:
        """Look for locks in the way once more, a moment after ours became visible. Cheap when called again."""
        with self._mutex:
            if self._settled:
                return
            time.sleep(max(0.0, SETTLE_SECONDS - self._age()))
            self._refuse_others()
            self._settled = True

    def ensure_held(self) -> None:
        """Prove that the lock is still there and was renewed in time. Raises LockLost; then commit nothing."""
        self.confirm()
        with self._mutex:
            if not self._id:
                raise LockLost("committing to the repository: its lock was released already")
            if not self._lost and self._age() > UNREFRESHED_LIMIT:
                self._lost = "our lock could not be renewed in time; try again"
            if not self._lost and not self._store.exists(f"locks/{self._id}"):
                self._lost = "our lock was removed, and somebody may have pruned since; try again"
            if self._lost:
                raise LockLost(f"committing to the repository: {self._lost}")

    def release(self) -> None:
        """Remove the lock; a failure to do so is left to its going stale."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        with self._mutex:
            self._withdraw()

    def _take(self, settle: bool) -> None:
        self._refuse_others()
        self._id = self._write()
        try:
            if self.exclusive:
                self._clear_stale()
            if settle:
                self.confirm()
        except BaseException:
            self._withdraw()
            raise

    def _withdraw(self) -> None:
        if self._id:
            with suppress(RepositoryError):
                self._store.delete(f"locks/{self._id}")
        self._id = ""

    def _refuse_others(self) -> None:
        at = now()
        for other in read_locks(self._store, self._codec, skip=self._id):
            if (self.exclusive or other.exclusive) and not other.stale(at):
                raise _InTheWay(other, at)

    def _clear_stale(self) -> None:
        """Remove stale locks once ours is visible: a holder that awakes then finds its own gone, and stops."""
        at = now()
        for other in list(read_locks(self._store, self._codec, skip=self._id)):
            if other.stale(at):
                self._store.delete(f"locks/{other.id}")

    def _age(self) -> float:
        """Seconds since the lock was last written, by whichever clock went on: one may stand while a machine sleeps."""
        return max(_clock() - self._written, (now() - self._written_at).total_seconds())

    def _write(self) -> str:
        begun, begun_at = _clock(), now()  # the lock's age counts from before the upload, as it does for others
        document = {
            "time": rfc3339.from_datetime(begun_at),
            "exclusive": self.exclusive,
            "hostname": self._holder,
            "username": "backstay",
            "pid": os.getpid(),
        }
        if process := _identity(os.getpid()):
            document["process"] = process  # restic does not read it
        stored = self._codec.seal_file(json.dumps(document).encode())
        digest = hashlib.sha256(stored)
        self._store.put(f"locks/{digest.hexdigest()}", stored, sha256=digest.digest())
        self._written, self._written_at = begun, begun_at
        return digest.hexdigest()

    def _keep(self) -> None:
        while not self._stop.wait(self._refresh_seconds):
            with suppress(RepositoryError), self._mutex:
                self._refresh()

    def _refresh(self) -> None:
        """A new file first, then the old one goes, so that there is a lock at every moment.

        A lock that was removed, or not renewed for so long that it may have been passed over, is not brought back:
        what it protected may be gone.
        """
        if self._lost or self._age() > UNREFRESHED_LIMIT:
            return  # ensure_held tells
        old = self._id
        new = self._write()
        if self._store.exists(f"locks/{old}"):
            self._id = new
            self._store.delete(f"locks/{old}")
        else:
            self._lost = "our lock was removed, and somebody may have pruned since; try again"
            self._store.delete(f"locks/{new}")


def _clock() -> float:
    """Seconds that also count while the machine sleeps, which those of `time.monotonic` do not."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _alive(pid: int) -> bool:
    if pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@functools.cache
def _namespace() -> str:
    """Which kernel's which processes we see; empty where that cannot be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _identity(pid: int) -> str:
    """What no other process has, at no other time: kernel, namespace and start; empty where that cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            started = file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{_namespace()}/{started}" if _namespace() else ""


def _proven_dead(process: str, pid: int) -> bool:
    """Whether the process of that identity is gone; False when it is not one that we could see."""
    namespace = _namespace()
    if not process or not namespace or not process.startswith(f"{namespace}/"):
        return False
    return not _alive(pid) or _identity(pid) not in (process, "")
