"""Storing used blobs again in new packs, so that the packs in which they lay beside waste can go.

It only adds: new packs, then an index that names them, saved every so many blobs, so that a run after a crash finds
what was repacked already. Each blob is proven before it is stored again, and then stored as it was, compressed and
sealed: what the seal binds is the content alone, not the place.
"""

from __future__ import annotations

import hashlib
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from backstay.repository import index as index_file
from backstay.repository import pack
from backstay.repository.blob import BlobType, Codec
from backstay.repository.index import Entry, Index, Location
from backstay.repository.lock import Lock
from backstay.repository.parallel import ordered
from backstay.repository.reader import Reader
from backstay.repository.store import Store

INDEX_BLOBS = 50_000  # blobs in an index file
INDEX_SECONDS = 600.0  # after which an index is saved anyway
_RANGE = 4 << 20  # bytes that are fetched at once
_GAP = 128 << 10  # bytes that are rather fetched for nothing than left out by a request more
_THREADS = 3
_AHEAD = 4
_UPLOADS = 2
_BUFFERS = _UPLOADS + 2  # one pack of each kind is being filled


class _Range(NamedTuple):
    """Part of a pack, and the blobs that are wanted of it."""

    pack: bytes
    start: int
    end: int
    entries: tuple[Entry, ...]


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
        self._buffers: queue.Queue[bytearray | None] = queue.Queue()
        for _ in range(_BUFFERS):
            self._buffers.put(None)  # made when first needed
        self._uploads: list[Future[tuple[bytes, bytes]]] = []
        self._unindexed: list[tuple[bytes, bytes]] = []
        self._unindexed_blobs = 0
        self._indexed_at = time.monotonic()

    def run(self, packs: Iterable[tuple[bytes, list[Entry]]], done: Callable[[int], None]) -> None:
        """Store the entries of packs again. `done` is told of bytes as they are dealt with.

        Raises Corrupted when a blob is not what the index says; what was stored until then stays.
        """
        self._lock.confirm()
        self._uploader = ThreadPoolExecutor(_UPLOADS, thread_name_prefix="upload")
        try:
            for blobs in ordered(self._fetch, _ranges(packs), threads=_THREADS, ahead=_AHEAD, name="repack"):
                for blob in blobs:
                    self._add(blob)
                done(sum(len(blob.sealed) for blob in blobs))
            for kind in list(self._open):
                self._submit(self._open.pop(kind))
            self._collect(wait=True)
            self._save_index()
        finally:
            self._uploader.shutdown(wait=True, cancel_futures=True)

    def _fetch(self, wanted: _Range) -> list[_Stored]:
        fetched = memoryview(self._reader.fetch(wanted.pack, wanted.start, wanted.end - wanted.start))
        blobs = []
        for kind, blob_id, offset, length, plain_length in wanted.entries:
            sealed: bytes | memoryview = fetched[offset - wanted.start : offset - wanted.start + length]
            plain = self._reader.open(sealed, kind, blob_id, Location(wanted.pack, offset, length, plain_length))
            if not plain_length and (self._compress or kind is BlobType.TREE):
                compressed = self._codec.compress(plain)
                if kind is BlobType.TREE or len(compressed) < len(plain):
                    sealed, plain_length = self._codec.key.seal(compressed), len(plain)  # noqa: PLW2901
            blobs.append(_Stored(kind, blob_id, sealed, plain_length))
        return blobs

    def _add(self, blob: _Stored) -> None:
        length = len(blob.sealed)
        if length > pack.MAX_BLOB:  # the tree of a huge directory: a pack of its own
            builder = pack.PackBuilder(bytearray(length + 1024), lambda: None)
        else:
            builder = self._open.pop(blob.kind) if blob.kind in self._open else self._begin()
        builder.reserve(blob.kind, blob.id, length, blob.plain_length)[:] = blob.sealed
        if builder.closed or length > pack.MAX_BLOB:
            self._submit(builder)
        else:
            self._open[blob.kind] = builder

    def _begin(self) -> pack.PackBuilder:
        buffer = self._buffers.get() or bytearray(pack.BUFFER_SIZE)
        self._collect(wait=False)
        return pack.PackBuilder(buffer, lambda: self._buffers.put(buffer))

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


def put_index(store: Store, codec: Codec, packs: Iterable[tuple[bytes, Iterable[Entry]]]) -> str:
    """Write an index file; its name."""
    stored = codec.seal_file(index_file.encode(packs))
    digest = hashlib.sha256(stored)
    store.put(f"index/{digest.hexdigest()}", stored, sha256=digest.digest())
    return f"index/{digest.hexdigest()}"


def _ranges(packs: Iterable[tuple[bytes, list[Entry]]]) -> Iterator[_Range]:
    """What to fetch for the entries of packs, which are in the order in which they lie."""
    for pack_id, entries in packs:
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
