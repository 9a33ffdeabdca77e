"""The record of packs that no index names any more, and since when: they are deleted only after a while.

Whoever reads, maybe without a lock, may have loaded an index that still names them. The record is a sealed file, named
by its hash like all others, below a directory of our own in which restic never looks. It is replaced by writing a new
one before the old one goes, so what a crash leaves is at most two of them, of which the later time counts; what is not
in the record was unreferenced for no time at all, so losing it only delays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

import msgspec

from backstay.repository.errors import Corrupted, ObjectNotFound
from backstay.repository.format import rfc3339
from backstay.repository.format.blob import Codec
from backstay.repository.format.malformed import MALFORMED, malformed
from backstay.repository.stores.store import Store

PREFIX = "backstay/unreferenced/"


class _GroupJSON(msgspec.Struct):
    since: str
    packs: list[str]


class _RecordJSON(msgspec.Struct):
    unreferenced: list[_GroupJSON]


class Record:
    """What is recorded: `since`, by pack id the time (UTC) from which on no index named it."""

    def __init__(self, store: Store, codec: Codec) -> None:
        self._store = store
        self._codec = codec
        self._names: list[str] = []
        self.since: dict[bytes, datetime] = {}

    def load(self) -> None:
        """Read what earlier runs recorded. What cannot be read counts as not recorded."""
        self._names = [name for name, _ in self._store.list(PREFIX)]
        self.since = {}
        for name in self._names:
            with suppress(ObjectNotFound, Corrupted):
                for pack_id, time in self._read(name).items():
                    self.since[pack_id] = max(time, self.since.get(pack_id, time))

    def _read(self, name: str) -> dict[bytes, datetime]:
        try:
            raw = msgspec.json.decode(self._codec.open_file(self._store.get(name), name), type=_RecordJSON)
            return {
                bytes.fromhex(pack_id): rfc3339.to_datetime(group.since)
                for group in raw.unreferenced
                for pack_id in group.packs
            }
        except MALFORMED as error:
            raise malformed(f"{name} decrypts but is no record of packs", error) from error

    def save(self, since: Mapping[bytes, datetime]) -> None:
        """Record these packs and no others."""
        if since == self.since and len(self._names) <= 1:
            return
        stale, self._names = self._names, []
        if since:
            groups: dict[str, list[str]] = {}
            for pack_id, time in sorted(since.items()):
                groups.setdefault(rfc3339.from_datetime(time), []).append(pack_id.hex())
            record = _RecordJSON([_GroupJSON(time, packs) for time, packs in groups.items()])
            stored = self._codec.seal_file(msgspec.json.encode(record))
            digest = hashlib.sha256(stored)
            self._store.put(f"{PREFIX}{digest.hexdigest()}", stored, sha256=digest.digest())
            self._names = [f"{PREFIX}{digest.hexdigest()}"]
        for name in stale:
            self._store.delete(name)
        self.since = dict(since)
