"""A repository as it was: the way back after somebody deleted or overwrote everything.

Where the bucket keeps versions, a deletion only hides them. Of each object this view sees the newest version that was
written until a given time, if it was not deleted by then, and whatever happened later does not count.

Some servers (SeaweedFS) let a version be as young as the last extension of its retention, so that what a backup reused
seems to be written after it. An object that is named by the hash of its content can be only one thing, whenever it was
written, and a repository's config is written once: of these the oldest later version is seen when there is none of the
time. So more may be seen than there was; snapshots tell their own time, and `Repository.snapshots` leaves out what is
younger. And where versions differ, the one that hashes to its name is the one that was meant.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from backstay.repository.errors import ObjectNotFound, StoreRefused
from backstay.repository.stores.store import Buffer
from backstay.repository.stores.versions import Version, histories, history

if TYPE_CHECKING:
    from backstay.repository.stores.s3 import S3Store

_KEPT = 100_000  # versions that are remembered, so that not each read of a pack looks for them again
_BY_CONTENT = re.compile(r"(?!locks/).*[0-9a-f]{64}")


class AsOfStore:
    """What an S3 store held at a time. Reading only."""

    def __init__(self, store: S3Store, time: datetime) -> None:
        """`time`: with a zone. Most servers keep whole seconds, and what was written within that second counts."""
        if time.tzinfo is None:
            raise ValueError("the time of the view has no zone")
        self.as_of = time
        self.location = store.location
        self.retention = None
        self._store = store
        self._known: OrderedDict[str, tuple[Version, ...]] = OrderedDict()  # the best first; which it is, once proven
        self._mutex = threading.Lock()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """An object's bytes at the time, or `length` of them from `offset`. Raises ObjectNotFound."""
        return self._store.get_version(name, self._proven(name).id, offset, length)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Names and sizes in bytes of the objects of the time whose names begin with `prefix`."""
        for name, versions in histories(self._store, prefix):
            found = candidates(name, versions, self.as_of)
            if found:
                self._remember(name, found)
                # Nothing of ours is empty, but what somebody wrote over it may be.
                yield name, next((version.size for version in found if version.size), 0)

    def exists(self, name: str) -> bool:
        """Whether there was such an object at the time."""
        try:
            self._candidates(name)
        except ObjectNotFound:
            return False
        return True

    def put(self, name: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        """Refused with StoreRefused: the past cannot be written."""
        raise self._refusal(f"writing {name} to")

    def delete(self, name: str) -> None:
        """Refused with StoreRefused: the past cannot be changed."""
        raise self._refusal(f"deleting {name} from")

    def _candidates(self, name: str) -> tuple[Version, ...]:
        with self._mutex:
            known = self._known.get(name)
        if known is None:
            known = candidates(name, history(self._store, name), self.as_of)
            if not known:
                raise ObjectNotFound(f"reading {name} from {self._where}: there was no such object")
            self._remember(name, known)
        return known

    def _proven(self, name: str) -> Version:
        """The version to read: the best that hashes to the name; without one, or without a hash, the best."""
        found = self._candidates(name)
        if len(found) > 1:
            fitting = (version for version in found if self._fits(name, version))
            found = (next(fitting, found[0]),)
            self._remember(name, found)
        return found[0]

    def _fits(self, name: str, version: Version) -> bool:
        try:
            content = self._store.get_version(name, version.id)
        except ObjectNotFound:  # removed meanwhile
            return False
        return hashlib.sha256(content).hexdigest() == name.rpartition("/")[2]

    def _remember(self, name: str, versions: tuple[Version, ...]) -> None:
        with self._mutex:
            self._known[name] = versions
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)

    @property
    def _where(self) -> str:
        return f"{self._store.connection.where} as of {self.as_of.isoformat(timespec='seconds')}"

    def _refusal(self, doing: str) -> StoreRefused:
        return StoreRefused(f"{doing} {self._where}: the past can only be read; restore from it, or copy it elsewhere")


def candidates(name: str, versions: Sequence[Version], time: datetime) -> tuple[Version, ...]:
    """Which of an object's versions, newest first, may be what counted at a time: the best first; none if it was gone.

    More than one only where the object's content can tell which it is.
    """
    until = next((number for number, version in enumerate(versions) if version.written <= time), len(versions))
    by_content = _BY_CONTENT.fullmatch(name) is not None
    if until < len(versions) and versions[until].marker:
        return ()
    earlier = [version for version in versions[until:] if not version.marker]
    later = [version for version in reversed(versions[:until]) if not version.marker]
    if by_content:
        return (*earlier, *later)
    return tuple(earlier[:1] or (later[:1] if name == "config" else ()))
