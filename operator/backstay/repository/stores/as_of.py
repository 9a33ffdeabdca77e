"""A repository as it was: the way back after somebody deleted or overwrote everything.

Where the bucket keeps versions, a deletion only hides them. Of each object this view sees the newest version that was
written until a given time, if it was not deleted by then, and whatever happened later does not count.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from backstay.repository.errors import ObjectNotFound, StoreRefused
from backstay.repository.stores.store import Buffer
from backstay.repository.stores.versions import Version, histories, history

if TYPE_CHECKING:
    from backstay.repository.stores.s3 import S3Store

_KEPT = 100_000  # versions that are remembered, so that not each read of a pack looks for them again


class AsOfStore:
    """What an S3 store held at a time. Reading only."""

    def __init__(self, store: S3Store, time: datetime) -> None:
        """`time`: with a zone. Most servers keep whole seconds, and what was written within that second counts."""
        if time.tzinfo is None:
            raise ValueError("the time of the view has no zone")
        self.time = time
        self.location = store.location
        self.retention = None
        self._store = store
        self._known: OrderedDict[str, Version] = OrderedDict()
        self._mutex = threading.Lock()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """An object's bytes at the time, or `length` of them from `offset`. Raises ObjectNotFound."""
        return self._store.get_version(name, self._version(name).id, offset, length)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Names and sizes in bytes of the objects of the time whose names begin with `prefix`."""
        for name, versions in histories(self._store, prefix):
            found = _at(versions, self.time)
            if found is not None:
                self._remember(found)
                yield name, found.size

    def exists(self, name: str) -> bool:
        """Whether there was such an object at the time."""
        try:
            self._version(name)
        except ObjectNotFound:
            return False
        return True

    def put(self, name: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        """Refused with StoreRefused: the past cannot be written."""
        raise self._refusal(f"writing {name} to")

    def delete(self, name: str) -> None:
        """Refused with StoreRefused: the past cannot be changed."""
        raise self._refusal(f"deleting {name} from")

    def _version(self, name: str) -> Version:
        with self._mutex:
            known = self._known.get(name)
        if known is None:
            known = _at(history(self._store, name), self.time)
            if known is None:
                raise ObjectNotFound(f"reading {name} from {self._where}: there was no such object")
            self._remember(known)
        return known

    def _remember(self, version: Version) -> None:
        with self._mutex:
            self._known[version.name] = version
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)

    @property
    def _where(self) -> str:
        return f"{self._store.connection.where} as of {self.time.isoformat(timespec='seconds')}"

    def _refusal(self, doing: str) -> StoreRefused:
        return StoreRefused(f"{doing} {self._where}: the past can only be read; restore from it, or copy it elsewhere")


def _at(versions: list[Version], time: datetime) -> Version | None:
    """The version that counted at a time, of all versions of an object, newest first."""
    found = next((version for version in versions if version.written <= time), None)
    return None if found is None or found.marker else found
