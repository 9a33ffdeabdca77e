"""Making the index true again: every pack that is there is named once, as its header says, and no other is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from backstay.repository.check import inventory as stock
from backstay.repository.check.inventory import Inventory
from backstay.repository.check.pack_check import MAX_HEADER, open_header
from backstay.repository.errors import Corrupted, ObjectNotFound
from backstay.repository.format import pack
from backstay.repository.format.blob import Codec
from backstay.repository.format.crypto import OVERHEAD
from backstay.repository.format.index import Entry
from backstay.repository.outcome import Progress
from backstay.repository.parallel import ordered
from backstay.repository.repair.index_rewrite import IndexRewrite
from backstay.repository.repository import Repository
from backstay.repository.stores.store import Store

_TAIL = 64 << 10  # bytes fetched first from a pack's end; the headers of most packs fit
_THREADS = 4


@dataclass(frozen=True)
class IndexRepair:
    """What a repair of the index did. Lists hold hexadecimal ids of packs, the rest are numbers of index files.

    `added`: packs that no index named. `corrected`: of which an index told something else than their header.
    `dropped`: named, and not there or not readable any more; their blobs are lost. `unreadable`: packs whose header
    cannot be read; those that an index names all the same stay in it, for `repair packs` to save their blobs.
    """

    added: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    indexes_broken: int = 0
    indexes_written: int = 0
    indexes_removed: int = 0


def repair_index(
    repository: Repository,
    *,
    read_all_packs: bool = False,
    progress: Callable[[Progress], None] | None = None,
    wait: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
) -> IndexRepair:
    """Repair the index under an exclusive lock, for which it waits `wait` seconds.

    `progress` is called with packs whose headers were read.

    `read_all_packs`: read the headers of all packs, not only of those that the indexes seem to be wrong about.
    """
    store, codec = repository.store, repository.codec
    with repository.lock(exclusive=True, wait=wait, on_wait=on_wait) as lock:
        inventory, files = stock.take(store, codec)
        rewrite = IndexRewrite(store, codec, lock)
        added, corrected, unreadable = [], [], []
        dropped = set(inventory.missing())
        doubtful = _doubtful(inventory)
        to_read = sorted(inventory.sizes) if read_all_packs else sorted({*inventory.unindexed(), *doubtful})
        for number, (pack_id, entries) in enumerate(read_headers(store, codec, inventory, to_read), 1):
            if progress is not None:
                progress(Progress(number, 0, len(to_read), None))
            claimed = inventory.claims.get(pack_id)
            if entries is None:
                unreadable.append(pack_id.hex())
                if claimed is not None and inventory.sizes[pack_id] < claimed.size:
                    dropped.add(pack_id)
            elif claimed is None:
                rewrite.add(pack_id, entries)
                added.append(pack_id.hex())
            elif pack_id in doubtful or stock.claim(entries, 0).digest != claimed.digest:
                dropped.add(pack_id)
                rewrite.add(pack_id, entries)
                corrected.append(pack_id.hex())
        rewrite.finish(inventory, files, dropped)
    repository.forget_index()
    return IndexRepair(
        added=tuple(added),
        corrected=tuple(corrected),
        dropped=tuple(sorted(pack_id.hex() for pack_id in dropped.difference(map(bytes.fromhex, corrected)))),
        unreadable=tuple(unreadable),
        indexes_broken=len(inventory.broken),
        indexes_written=rewrite.written,
        indexes_removed=rewrite.removed,
    )


def _doubtful(inventory: Inventory) -> set[bytes]:
    """Packs that are there, of which the indexes seem to be wrong, or do not tell at one place."""
    there = {pack_id for pack_id in (*inventory.disagreeing, *inventory.split) if pack_id in inventory.sizes}
    return there.union(inventory.doubtful())


def read_headers(
    store: Store, codec: Codec, inventory: Inventory, ids: Iterable[bytes]
) -> Iterator[tuple[bytes, list[Entry] | None]]:
    """The entries of packs as their own headers tell them; None where a header cannot be read or is not true."""

    def read(pack_id: bytes) -> tuple[bytes, list[Entry] | None]:
        for _ in range(2):  # twice: it may have been damaged on its way here
            try:
                return pack_id, _read_header(store, codec, pack_id, inventory.sizes[pack_id])
            except (Corrupted, ObjectNotFound):
                continue
        return pack_id, None

    return ordered(read, ids, threads=_THREADS, ahead=2 * _THREADS, name="headers")


def _read_header(store: Store, codec: Codec, pack_id: bytes, size: int) -> list[Entry]:
    name = pack.name(pack_id)
    tail = store.get(name, max(0, size - _TAIL), min(size, _TAIL))
    wanted = int.from_bytes(tail[-4:], "little") + 4
    if len(tail) < wanted <= min(size, MAX_HEADER + 4):
        tail = store.get(name, size - wanted, wanted)
    header = open_header(codec, tail)
    entries = list(pack.parse_header(header, name))
    if sum(entry.length for entry in entries) + len(header) + OVERHEAD + 4 != size:
        raise Corrupted(f"{name} has {size} bytes, and its header tells of others")
    return entries
