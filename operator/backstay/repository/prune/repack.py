"""Storing used blobs again in new packs, so that the packs in which they lay beside waste can go.

It only adds: new packs, then an index that names them, saved every so many blobs, so that a run after a crash finds
what was repacked already. Blobs are stored as they were, compressed and sealed, for what the seal binds is the content
alone and not the place; before that they are proven. A pack of which most is wanted is fetched whole, and proves all of
its blobs at once, at a fifth of the work: its name is its hash, and its header must say what the index says. Of other
packs, only what is wanted is fetched, and each blob is opened and proven by its own hash.
"""

from __future__ import annotations

import hashlib
import mmap
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from backstay.repository.check.pack_check import open_header
from backstay.repository.errors import AccessDenied, Corrupted, StoreRefused
from backstay.repository.format import index as index_file
from backstay.repository.format import pack
from backstay.repository.format.blob import BlobType, Codec
from backstay.repository.format.index import Entry, Index, Location
from backstay.repository.lock import Lock
from backstay.repository.parallel import ordered
from backstay.repository.reader import Reader
from backstay.repository.stores.s3 import S3Store
from backstay.repository.stores.store import Store

INDEX_BLOBS = 50_000  # blobs in an index file
INDEX_SECONDS = 600.0  # after which an index is saved anyway
_RANGE = 4 << 20  # bytes that are fetched at once
_GAP = 128 << 10  # bytes that are rather fetched for nothing than left out by a request more
_WHOLE_SHARE = 0.5  # of a pack that must be wanted for all of it to be fetched
_WHOLE_LIMIT = 32 << 20  # bytes of a pack that is fetched whole
_THREADS = 3
_AHEAD = 4
_UPLOADS = 3
_BUFFERS = _UPLOADS + 2  # one pack of each kind is being filled


class _Range(NamedTuple):
    """Part of a pack, or a whole one, and the blobs that are wanted of it."""

    pack: bytes
    start: int
    end: int
    entries: tuple[Entry, ...]
    whole: bool = False


class _Fetched(NamedTuple):
    """The blobs of a range, and the room in which they lie, to be given back; None when it was made for them."""

    blobs: list[_Stored]
    room: memoryview | None


class _Stored(NamedTuple):
    """A blob as it is to be stored."""

    kind: BlobType
    id: bytes
    sealed: bytes | memoryview
    plain_length: int


class Repacker:
    """One run of repacking. Afterwards, `packs` are those that were made, and `indexes` the files that name them."""

    def __init__(self, store: Store, codec: Codec, lock: Lock, *, compress: bool = False) -> None:
        """`compress`: also data that is not compressed; trees always are."""
        self.packs: set[bytes] = set()
        self.indexes: list[str] = []
        self.bytes = 0
        self._store = store
        self._codec = codec
        self._lock = lock
        self._compress = compress
        self._reader = Reader(store, codec, Index())
        self._open: dict[BlobType, pack.PackBuilder] = {}
        self._buffers = _Memory(_BUFFERS, pack.BUFFER_SIZE)
        self._rooms = _Memory(_AHEAD + 1, _WHOLE_LIMIT)  # one more for what is being stored
        self._uploads: list[Future[tuple[bytes, bytes]]] = []
        self._unindexed: list[tuple[bytes, bytes]] = []
        self._unindexed_blobs = 0
        self._indexed_at = time.monotonic()

    def run(
        self, packs: Iterable[tuple[bytes, list[Entry]]], sizes: Mapping[bytes, int], done: Callable[[int], None]
    ) -> None:
        """Store the entries of packs again. `sizes`: bytes of packs. `done` is told of bytes as they are dealt with.

        Raises Corrupted when a blob is not what the index says; what was stored until then stays.
        """
        self._lock.confirm()
        if isinstance(self._store, S3Store):
            with suppress(AccessDenied, StoreRefused):  # of a probe; whether packs are refused, we shall see
                self._store.integrity()
        self._uploader = ThreadPoolExecutor(_UPLOADS, thread_name_prefix="upload")
        try:
            for blobs, room in ordered(
                self._fetch, _ranges(packs, sizes), threads=_THREADS, ahead=_AHEAD, name="repack"
            ):
                for blob in blobs:
                    self._add(blob)
                done(sum(len(blob.sealed) for blob in blobs))
                if room is not None:
                    self._rooms.give_back(room)
            for kind in list(self._open):
                self._submit(self._open.pop(kind))
            self._collect(wait=True)
            self._save_index()
        finally:
            self._uploader.shutdown(wait=True, cancel_futures=True)

    def _fetch(self, wanted: _Range) -> _Fetched:
        size = wanted.end - wanted.start
        whole_room = self._rooms.take() if size <= _WHOLE_LIMIT else None
        room = memoryview(bytearray(size)) if whole_room is None else whole_room[:size]
        self._reader.fetch_into(wanted.pack, wanted.start, room)
        if wanted.whole:
            self._prove(wanted, room)
        blobs = []
        for entry in wanted.entries:
            start = entry.offset - wanted.start
            sealed: bytes | memoryview = room[start : start + entry.length]
            plain_length = entry.plain_length
            compress = not plain_length and (self._compress or entry.type is BlobType.TREE)
            if compress or not wanted.whole:
                plain = self._reader.open(sealed, entry.type, entry.id, Location(wanted.pack, *entry[2:]))
                compressed = self._codec.compress(plain) if compress else plain
                if compress and (entry.type is BlobType.TREE or len(compressed) < len(plain)):
                    sealed, plain_length = self._codec.key.seal(compressed), len(plain)
            blobs.append(_Stored(entry.type, entry.id, sealed, plain_length))
        return _Fetched(blobs, whole_room)

    def _prove(self, wanted: _Range, stored: memoryview) -> None:
        """That a whole pack is what its name says, and holds the blobs where they are wanted."""
        what = pack.name(wanted.pack)
        if hashlib.sha256(stored).digest() != wanted.pack:
            raise Corrupted(f"{what} was changed after it was written: its content does not hash to its name")
        if not {*wanted.entries} <= {*pack.parse_header(open_header(self._codec, stored), what)}:
            raise Corrupted(f"{what} does not hold what an index says; repair the index")

    def _add(self, blob: _Stored) -> None:
        length = len(blob.sealed)
        if length > pack.MAX_BLOB:  # the tree of a huge directory: a pack of its own
            builder = pack.PackBuilder(bytearray(length + 1024))
        else:
            builder = self._open.pop(blob.kind) if blob.kind in self._open else self._begin()
        builder.reserve(blob.kind, blob.id, length, blob.plain_length)[:] = blob.sealed
        if builder.closed or length > pack.MAX_BLOB:
            self._submit(builder)
        else:
            self._open[blob.kind] = builder

    def _begin(self) -> pack.PackBuilder:
        buffer = self._buffers.take()
        self._collect(wait=False)
        return pack.PackBuilder(buffer, lambda: self._buffers.give_back(buffer))

    def _submit(self, builder: pack.PackBuilder) -> None:
        self._uploads.append(self._uploader.submit(self._upload, builder))

    def _upload(self, builder: pack.PackBuilder) -> tuple[bytes, bytes]:
        try:
            pack_id, body = builder.finish(self._codec.key)
            self._store.put(pack.name(pack_id), body, sha256=pack_id)
            return pack_id, bytes(builder.header)
        finally:
            builder.release()

    def _collect(self, *, wait: bool) -> None:
        """Note the packs that are durable by now. Raises what an upload failed with."""
        under_way = []
        for upload in self._uploads:
            if not wait and not upload.done():
                under_way.append(upload)
                continue
            pack_id, header = upload.result()
            self.packs.add(pack_id)
            self._unindexed.append((pack_id, header))
            entries = list(pack.parse_header(header, "a pack of our own"))
            self._unindexed_blobs += len(entries)
            self.bytes += sum(entry.length for entry in entries)
        self._uploads = under_way
        if self._unindexed_blobs >= INDEX_BLOBS or time.monotonic() - self._indexed_at > INDEX_SECONDS:
            self._save_index()

    def _save_index(self) -> None:
        if self._unindexed:
            self._lock.ensure_held()
            packs = ((pack_id, pack.parse_header(header, "a pack")) for pack_id, header in self._unindexed)
            self.indexes.append(put_index(self._store, self._codec, packs))
        self._unindexed = []
        self._unindexed_blobs = 0
        self._indexed_at = time.monotonic()


class _Memory:
    """So many pieces of memory, used again and again: taking new pages costs as much as hashing what is put there."""

    def __init__(self, count: int, size: int) -> None:
        self._size = size
        self._pieces: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        for _ in range(count):
            self._pieces.put(None)  # made when first needed

    def take(self) -> memoryview:
        """A piece with anything in it; waits until there is one."""
        piece = self._pieces.get()
        return memoryview(mmap.mmap(-1, self._size)) if piece is None else piece

    def give_back(self, piece: memoryview) -> None:
        self._pieces.put(piece)


def put_index(store: Store, codec: Codec, packs: Iterable[tuple[bytes, Iterable[Entry]]]) -> str:
    """Write an index file; its name."""
    stored = codec.seal_file(index_file.encode(packs))
    digest = hashlib.sha256(stored)
    store.put(f"index/{digest.hexdigest()}", stored, sha256=digest.digest())
    return f"index/{digest.hexdigest()}"


def _ranges(packs: Iterable[tuple[bytes, list[Entry]]], sizes: Mapping[bytes, int]) -> Iterator[_Range]:
    """What to fetch for the entries of packs, which are in the order in which they lie."""
    for pack_id, entries in packs:
        size = sizes[pack_id]
        if size <= _WHOLE_LIMIT and sum(entry.length for entry in entries) >= _WHOLE_SHARE * size:
            yield _Range(pack_id, 0, size, tuple(entries), whole=True)
            continue
        group: list[Entry] = []
        start = end = 0
        for entry in entries:
            stop = entry.offset + entry.length
            if group and (entry.offset > end + _GAP or stop > start + _RANGE):
                yield _Range(pack_id, start, end, tuple(group))
                group = []
            if not group:
                start = entry.offset
                end = 0
            group.append(entry)
            end = max(end, stop)
        if group:
            yield _Range(pack_id, start, end, tuple(group))
