"""Replacing index files by others that say the truth.

The new ones are durable before an old one goes, so that whoever stops in between leaves blobs that are named twice, and
none that is named no more. Files in which nothing has to change stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container

from backstay.repository.check.inventory import IndexFiles, Inventory
from backstay.repository.format import index as index_file
from backstay.repository.format.blob import Codec
from backstay.repository.format.index import Entry
from backstay.repository.lock import Lock
from backstay.repository.stores.store import Store

_BLOBS = 50_000  # in an index file


class IndexRewrite:
    """One exchange of index files, under an exclusive lock that is held. `written` and `removed` count files."""

    def __init__(self, store: Store, codec: Codec, lock: Lock) -> None:
        self.written = 0
        self.removed = 0
        self._store = store
        self._codec = codec
        self._lock = lock
        self._batch: list[tuple[bytes, list[Entry]]] = []
        self._blobs = 0

    def add(self, pack_id: bytes, entries: list[Entry]) -> None:
        """Name a pack with its blobs."""
        self._batch.append((pack_id, entries))
        self._blobs += len(entries)
        if self._blobs >= _BLOBS:
            self._save()

    def _save(self) -> None:
        if not self._batch:
            return
        self._lock.ensure_held()
        stored = self._codec.seal_file(index_file.encode(self._batch))
        digest = hashlib.sha256(stored)
        self._store.put(f"index/{digest.hexdigest()}", stored, sha256=digest.digest())
        self.written += 1
        self._batch, self._blobs = [], 0

    def finish(self, inventory: Inventory, files: IndexFiles, dropped: Container[bytes]) -> None:
        """Take over what the old files say of packs but those `dropped`, each once; then the replaced files go."""
        named: set[bytes] = set()
        replaced = list(inventory.broken)
        for name in inventory.index_names:
            if name in inventory.broken:
                continue
            packs = files.read(name)
            kept = []
            for pack_id, entries in packs:
                if pack_id not in dropped and pack_id not in named:
                    named.add(pack_id)
                    kept.append((pack_id, entries))
            if len(kept) == len(packs):
                continue
            replaced.append(name)
            for pack_id, entries in kept:
                self.add(pack_id, entries)
        self._save()
        for name in replaced:
            self._lock.ensure_held()
            self._store.delete(name)
            self.removed += 1
