"""Saving what is intact in damaged packs: stored again in new ones, whereupon the damaged ones go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from backstay.repository.check import inventory as stock
from backstay.repository.check.inventory import IndexFiles, Inventory, Places
from backstay.repository.check.pack_check import broken_blobs, open_header, read_packs
from backstay.repository.errors import Corrupted, ObjectNotFound
from backstay.repository.format import pack
from backstay.repository.format.blob import Codec
from backstay.repository.format.index import Entry
from backstay.repository.repair.index_rewrite import IndexRewrite
from backstay.repository.repair.under_repair import UnderRepair
from backstay.repository.repository import Repository
from backstay.repository.stores.store import Store


@dataclass(frozen=True)
class PackRepair:
    """What was done about a pack. `saved` and `lost` count its blobs; `removed`: it was not whole, and is gone."""

    pack_id: str
    saved: int
    lost: int
    removed: bool


def repair_packs(
    repository: Repository, ids: Sequence[str], *, wait: float = 0.0, on_wait: Callable[[str], None] | None = None
) -> tuple[PackRepair, ...]:
    """Save the intact blobs of the packs with some hexadecimal ids, and remove the packs, under an exclusive lock.

    It waits `wait` seconds for the lock. A pack that turns out to be whole is left alone. `repair snapshots` then deals
    with what is lost. Raises Corrupted while an index file cannot be read.
    """
    working = UnderRepair(repository)
    wanted = frozenset(bytes.fromhex(text) for text in ids)
    done = []
    with working.writer(wait=wait, on_wait=on_wait) as writer:
        store, codec = working.store, working.codec
        inventory, files = stock.take(store, codec, Places(working.index, without_packs=wanted))
        if inventory.broken:
            raise Corrupted(f"repairing packs: {min(inventory.broken)} cannot be read; run 'repair index' first")
        there = sorted(pack_id for pack_id in wanted if pack_id in inventory.sizes)
        whole = _whole(store, codec, inventory, files, there)
        for pack_id in there:
            if pack_id in whole:
                done.append(PackRepair(pack_id.hex(), 0, 0, False))
                continue
            claimed = inventory.claims.get(pack_id)
            named = [] if claimed is None else files.entries(claimed, pack_id)
            body, entries = _read(store, codec, pack_id, named, inventory.sizes[pack_id])
            broken = {entry for entry, _ in broken_blobs(codec, body, entries)}
            for entry in entries:
                if entry not in broken:
                    sealed = memoryview(body)[entry.offset : entry.offset + entry.length]
                    writer.save_blob(entry.type, codec.open_blob(sealed, entry.plain_length, entry.id, "a blob"))
            done.append(PackRepair(pack_id.hex(), len(entries) - len(broken), len(broken), True))
        writer.flush()  # what was saved is durable and named before its old place goes
        gone = wanted.difference(whole)
        assert working.held is not None
        IndexRewrite(store, codec, working.held).finish(inventory, files, gone)
        for pack_id in there:
            if pack_id in gone:
                working.delete(pack.name(pack_id))
    repository.forget_index()
    missing = sorted(wanted.difference(there))
    return (*done, *(PackRepair(pack_id.hex(), 0, _claimed(inventory, pack_id), True) for pack_id in missing))


def _claimed(inventory: Inventory, pack_id: bytes) -> int:
    claimed = inventory.claims.get(pack_id)
    return 0 if claimed is None else claimed.blobs


def _whole(
    store: Store, codec: Codec, inventory: Inventory, files: IndexFiles, ids: Iterable[bytes]
) -> frozenset[bytes]:
    indexed = [pack_id for pack_id in ids if pack_id in inventory.claims]
    verdicts = read_packs(store, codec, inventory, files, indexed)
    return frozenset(verdict.pack_id for verdict in verdicts if not verdict.problems)


def _read(store: Store, codec: Codec, pack_id: bytes, named: list[Entry], size: int) -> tuple[bytes, list[Entry]]:
    """A pack's content as far as it is there, and the blobs that the indexes or its own header tell to be in it."""
    entries = dict.fromkeys(named)
    try:
        body = store.get(pack.name(pack_id))
    except (ObjectNotFound, Corrupted):
        return b"", list(entries)
    with suppress(Corrupted):  # then the indexes alone must do
        entries.update(dict.fromkeys(pack.parse_header(open_header(codec, body), "a pack")))
    return body, list(entries)
