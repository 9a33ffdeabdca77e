"""Proving packs: the whole of each is fetched, and nothing in it is believed.

A pack's name is the hash of its content, its sealed header repeats what the indexes say, and each blob in it opens,
decompresses and hashes to its id. What fails is told by blob, since one broken blob does not lose its neighbours.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from backstay.repository.check.inventory import Claim, IndexFiles, Inventory, header_digest
from backstay.repository.errors import Corrupted, ObjectNotFound
from backstay.repository.format import pack
from backstay.repository.format.blob import BlobType, Codec
from backstay.repository.format.crypto import OVERHEAD
from backstay.repository.format.index import Entry
from backstay.repository.parallel import Budget, ordered
from backstay.repository.stores.store import Store

_THREADS = 4
_BUDGET = 96 << 20  # bytes of packs that are held at once
MAX_HEADER = 16 << 20  # bytes; nobody reads larger ones
_TOLD = 5  # blobs that a message names


@dataclass(frozen=True)
class Verdict:
    """What was found in a pack. `damaged`: type and id of blobs that an index places here and that are not to be had.

    `problems` is empty when the pack is what its name and the indexes say. `size`: bytes in the bucket.
    """

    pack_id: bytes
    size: int
    problems: tuple[str, ...] = ()
    damaged: tuple[tuple[BlobType, bytes], ...] = ()


def read_packs(
    store: Store, codec: Codec, inventory: Inventory, files: IndexFiles, ids: Iterable[bytes]
) -> Iterator[Verdict]:
    """A verdict on each of some packs that exist and are indexed."""
    budget = Budget(_BUDGET)
    # More at once than there are processors would only drive each other out of the caches; the rest fetch meanwhile.
    turn = threading.Semaphore(len(os.sched_getaffinity(0)))

    def prove(pack_id: bytes) -> Verdict:
        size = inventory.claims[pack_id].size
        with budget.hold(size):
            verdict = _prove(store, codec, inventory, files, pack_id, turn)
        if not verdict.problems:
            return verdict
        with budget.hold(size):  # once more: it may have been damaged on its way here
            return _prove(store, codec, inventory, files, pack_id, turn)

    return ordered(prove, ids, threads=_THREADS, ahead=2 * _THREADS, name="packs")


def _prove(
    store: Store, codec: Codec, inventory: Inventory, files: IndexFiles, pack_id: bytes, turn: threading.Semaphore
) -> Verdict:
    claimed = inventory.claims[pack_id]
    size = inventory.sizes[pack_id]
    try:
        # No more than the index says: an object of any size might lie there.
        body = store.get(pack.name(pack_id), 0, claimed.size) if size > claimed.size else store.get(pack.name(pack_id))
    except (ObjectNotFound, Corrupted) as error:
        lost = tuple(dict.fromkeys((e.type, e.id) for e in files.entries(claimed, pack_id)))
        return Verdict(pack_id, size, (f"it cannot be read: {error}",), lost)
    with turn:
        return _judge(codec, files, pack_id, claimed, size, body)


def _judge(codec: Codec, files: IndexFiles, pack_id: bytes, claimed: Claim, size: int, body: bytes) -> Verdict:
    """A verdict on the content of a pack that has `size` bytes in the bucket."""
    problems = []
    if size != claimed.size:
        problems.append(f"it has {size} bytes where the indexes say {claimed.size}")
    elif hashlib.sha256(body).digest() != pack_id:
        problems.append("its content does not hash to its name")
    if not claimed.orderly:
        problems.append("the indexes leave gaps between its blobs, or lay them upon each other")
    entries: Iterable[Entry] | None = None
    try:
        header = open_header(codec, body)
        if header_digest(header) == claimed.digest:
            entries = pack.parse_header(header, "it")
        else:
            problems.append("its header tells other blobs than the indexes")
    except Corrupted as error:
        problems.append(f"its header cannot be read: {error}")
    if entries is None:
        entries = files.entries(claimed, pack_id)
    damaged: dict[tuple[BlobType, bytes], str] = {}
    for entry, reason in broken_blobs(codec, body, entries):
        damaged.setdefault((entry.type, entry.id), str(reason))
    problems += list(damaged.values())[:_TOLD]
    if len(damaged) > _TOLD:
        problems.append(f"{len(damaged) - _TOLD} more of its {claimed.blobs} blobs are broken")
    return Verdict(pack_id, size, tuple(problems), tuple(damaged))


def open_header(codec: Codec, body: bytes | memoryview) -> bytes:
    """The plain header of a pack, out of its whole content or its end. Raises Corrupted."""
    if len(body) < OVERHEAD + 4:
        raise Corrupted(f"{len(body)} bytes are too few for a pack")
    length = int.from_bytes(body[-4:], "little")
    if not OVERHEAD <= length <= min(MAX_HEADER, len(body) - 4):
        raise Corrupted(f"its end tells a header of {length} bytes, which cannot be")
    return codec.key.open(memoryview(body)[-4 - length : -4], "the header")


def broken_blobs(codec: Codec, body: bytes, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Corrupted]]:
    """Those of some blobs of a pack that are not what `entries` says, and why."""
    view = memoryview(body)
    for entry in entries:
        kind, blob_id, offset, length, plain_length = entry
        try:
            # The blob is named only when it is broken: writing out 5 million names would take seconds.
            codec.open_blob(view[offset : offset + length], plain_length, blob_id, "a blob")
        except Corrupted:
            what = f"{kind.name.lower()} blob {blob_id.hex()}"
            if offset + length > len(body):
                yield entry, Corrupted(f"{what} would lie beyond its end")
                continue
            try:
                codec.open_blob(view[offset : offset + length], plain_length, blob_id, what)
            except Corrupted as error:
                yield entry, error
