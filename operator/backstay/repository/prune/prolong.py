"""Keeping what is still needed under its retention: S3 Object Lock protects an object only from when it was written on.

A pack that was written long ago is as much needed by the newest snapshot as those that came with it, so maintenance
prolongs the retention of all that a repository needs, from time to time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from datetime import datetime

from backstay.repository.errors import ObjectLockUnavailable
from backstay.repository.format import index as index_file
from backstay.repository.format import pack
from backstay.repository.repository import Repository
from backstay.repository.stores.s3 import S3Store


def extend_retention(repository: Repository, now: datetime, *, holder: str = "", wait: float = 0.0) -> int:
    """Retain all that the repository needs as if it were written `now`; returns how many objects that took.

    These are the config, the keys, the snapshots, the indexes and the packs that indexes name; after a prune, that is
    what the snapshots use, and little else. Raises ObjectLockUnavailable when the store writes without a retention,
    ObjectNotFound when a pack is missing.
    """
    store = repository.store
    if not isinstance(store, S3Store) or store.retention is None:
        raise ObjectLockUnavailable("prolonging retentions: the repository is not opened with a retention to be given")
    with repository.lock(holder=holder, wait=wait):
        return store.retain(_needed(repository), store.retention.until(now))


def _needed(repository: Repository) -> Iterator[str]:
    store = repository.store
    yield "config"
    yield from (name for name, _ in itertools.chain(store.list("keys/"), store.list("snapshots/")))
    indexes = [name for name, _ in store.list("index/")]
    yield from indexes
    yield from (pack.name(pack_id) for pack_id in _packs(repository, indexes))


def _packs(repository: Repository, indexes: Iterable[str]) -> set[bytes]:
    found: set[bytes] = set()
    for name in indexes:
        document = repository.codec.open_file(repository.store.get(name), name)
        found.update(pack_id for pack_id, _ in index_file.decode(document, name))
    return found
