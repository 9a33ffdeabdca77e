"""Adding to a repository: one process, one lock, packs before indexes before snapshots.

Content is hashed, compressed and sealed by whichever thread calls `save_blob`; what is known already goes no further
than the hash. Blobs are sealed straight into the buffer of a pack, of which there is a fixed number, and full packs are
uploaded by a few threads, so memory is bounded and a slow server slows the reading down.

An index is saved every so many blobs or minutes, so that what a killed backup has uploaded is found by its retry.
"""

from __future__ import annotations

import functools
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Self

from backstay.repository.archive import virtual
from backstay.repository.archive.archiver import Archiver
from backstay.repository.archive.orders import Exclude
from backstay.repository.archive.virtual import Subtree
from backstay.repository.crew import Crew
from backstay.repository.errors import AccessDenied, LockLost, RepositoryError, StoreRefused
from backstay.repository.format import index as index_file
from backstay.repository.format import pack, snapshot
from backstay.repository.format.blob import BlobType, Codec, split_ids
from backstay.repository.format.chunker import Chunker
from backstay.repository.format.crypto import OVERHEAD
from backstay.repository.format.index import Index
from backstay.repository.format.snapshot import Snapshot
from backstay.repository.lock import Lock
from backstay.repository.outcome import Archive, Progress
from backstay.repository.reader import Reader
from backstay.repository.stores.s3 import S3Store
from backstay.repository.stores.store import Store

PACKS = 5  # pack buffers in all: two being filled, the rest on their way
UPLOADS = 5
INDEX_BLOBS = 50_000  # blobs after which an index is saved
INDEX_SECONDS = 600.0


class Writer:
    """A block in which a repository is written to; made by `Repository.writer`.

    `save_blob` may be called by several threads at once, the rest by one.
    """

    def __init__(
        self,
        store: Store,
        codec: Codec,
        index: Index,
        reader: Reader,
        lock: Lock,
        load_index: Callable[[], None],
        forget_index: Callable[[], None],
        index_is_current: Callable[[], bool],
        seed: int,
        *,
        index_blobs: int = INDEX_BLOBS,
        index_seconds: float = INDEX_SECONDS,
    ) -> None:
        self._store = store
        self._codec = codec
        self._index = index
        self._reader = reader
        self._lock = lock
        self._load_index = load_index
        self._forget_index = forget_index
        self._index_is_current = index_is_current
        self._confirmed = False
        self._seed = seed
        self._index_blobs = index_blobs
        self._index_seconds = index_seconds
        self._retention = store.retention if isinstance(store, S3Store) else None
        self._reused: set[bytes] = set()  # packs whose blobs were found in them, where they must be retained
        self._mutex = threading.Lock()
        # Ids of blobs that are in no stored pack yet.
        self._pending: tuple[set[bytes], ...] = tuple(set() for _ in BlobType)  # by type
        self._open: dict[BlobType, pack.PackBuilder] = {}
        self._buffers: queue.Queue[bytearray | None] = queue.Queue()
        for _ in range(PACKS):
            self._buffers.put(None)  # made when first needed
        self._uploads: set[Future[None]] = set()
        self._failure: BaseException | None = None
        self._unindexed: list[tuple[bytes, bytes]] = []  # ids and headers of packs that no index file names
        self._unindexed_blobs = 0
        self._index_mutex = threading.Lock()
        self._indexed_at = time.monotonic()
        self._added_bytes = 0
        self._added_blobs = {BlobType.DATA: 0, BlobType.TREE: 0}
        self._added_plain = 0
        self._uploader: ThreadPoolExecutor | None = None

    # --- the block ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._lock.acquire()
        try:
            if isinstance(self._store, S3Store):
                with suppress(AccessDenied, StoreRefused):  # of a probe; whether packs are refused, we shall see
                    self._store.integrity()
            self._load_index()
        except BaseException:
            self._lock.release()
            raise
        self._uploader = ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
            else:
                self._salvage()
        finally:
            if self._uploader is not None:
                self._uploader.shutdown(wait=True, cancel_futures=True)
            if self._unindexed:
                # In memory these packs are known, in the repository they are not: the next writer must store them anew.
                self._forget_index()
            self._lock.release()

    def _salvage(self) -> None:
        """Index what is uploaded, so that the next attempt need not upload it again. The first error is told on."""
        for upload in list(self._uploads):
            upload.cancel()
        with suppress(RepositoryError):
            if self._failure is None and self._unindexed:
                self._save_index()

    # --- blobs ----------------------------------------------------------------------------------------------------

    @property
    def reader(self) -> Reader:
        """What reads the repository that is written to."""
        return self._reader

    @property
    def added_bytes(self) -> int:
        """Bytes stored so far by this writer, as they lie in packs."""
        return self._added_bytes

    @property
    def added_plain_bytes(self) -> int:
        """Bytes of content stored so far by this writer, before compression."""
        return self._added_plain

    def added_blobs(self, kind: BlobType) -> int:
        """Number of blobs stored so far by this writer."""
        return self._added_blobs[kind]

    def known(self, kind: BlobType, ids: bytes) -> bytes:
        """For each of the ids in one string 1 when the blob is stored or on its way, else 0."""
        flags, pending = self._present(kind, ids), self._pending[kind]
        if pending and 0 in flags:
            for number, blob_id in enumerate(split_ids(ids)):
                flags[number] |= blob_id in pending
        return bytes(flags)

    def claim(self, kind: BlobType, ids: bytes) -> bytes:
        """As `known`; who is told 0 must store the blob now, since whoever asks next is told 1."""
        with self._mutex:
            if self._failure is not None:
                raise self._failure
            flags, pending = self._present(kind, ids), self._pending[kind]
            for number, blob_id in enumerate(split_ids(ids)):
                if not flags[number]:
                    flags[number] = blob_id in pending
                    pending.add(blob_id)
            return bytes(flags)

    def _present(self, kind: BlobType, ids: bytes) -> bytearray:
        flags = self._index.contains(kind, ids)
        if self._retention is not None:
            self._reused.update(
                location.pack
                for flag, blob_id in zip(flags, split_ids(ids), strict=True)
                if flag and (location := self._index.lookup(kind, blob_id)) is not None
            )
        return flags

    def save(self, kind: BlobType, contents: Sequence[bytes]) -> list[bytes]:
        """Store blobs unless they are known; their ids."""
        return [self.save_blob(kind, content) for content in contents]

    def save_compressed(self, kind: BlobType, blob_id: bytes, content: bytes, plain_length: int) -> None:
        """Store a blob that is compressed already, unless it is known."""
        if not self.claim(kind, blob_id)[0]:
            self._store_content(kind, blob_id, content, plain_length, plain_length)

    def adopt(
        self, buffer: memoryview, header: bytes, count: int, size: int, plain: int, release: Callable[[], None]
    ) -> None:
        """Store a pack of claimed data blobs that another process filled.

        `count`: of the blobs; `size`: their bytes; `plain`: of their content. `release` is called when `buffer` may be
        used again.
        """
        builder = pack.PackBuilder(buffer, release)
        builder.adopt(header, size, count)
        with self._mutex:
            self._added_blobs[BlobType.DATA] += builder.count
            self._added_bytes += size
            self._added_plain += plain
        self._submit(builder)

    def check(self) -> None:
        """Raise what an upload failed with."""
        if self._failure is not None:
            raise self._failure

    def save_blob(self, kind: BlobType, data: bytes) -> bytes:
        """Store a blob unless it is known; its id. Raises what an earlier upload failed with."""
        blob_id = hashlib.sha256(data).digest()
        if self.claim(kind, blob_id)[0]:
            return blob_id
        content: bytes = self._codec.compress(data)
        plain_length = len(data)
        if kind is BlobType.DATA and len(content) >= plain_length:
            content, plain_length = data, 0
        self._store_content(kind, blob_id, content, plain_length, len(data))
        return blob_id

    def _store_content(self, kind: BlobType, blob_id: bytes, content: bytes, plain_length: int, size: int) -> None:
        stored_length = len(content) + OVERHEAD
        builder, room = self._reserve(kind, blob_id, stored_length, plain_length)
        self._codec.key.seal_into(content, room)
        with self._mutex:
            self._added_blobs[kind] += 1
            self._added_bytes += stored_length
            self._added_plain += size
            builder.filled += 1
            complete = builder.complete
        if complete:
            self._submit(builder)

    def _reserve(
        self, kind: BlobType, blob_id: bytes, stored_length: int, plain_length: int
    ) -> tuple[pack.PackBuilder, memoryview]:
        if stored_length > pack.MAX_BLOB:  # the tree of a huge directory: a pack of its own
            builder = pack.PackBuilder(bytearray(stored_length + 1024))
            room = builder.reserve(kind, blob_id, stored_length, plain_length)
            builder.closed = True
            return builder, room
        while True:
            with self._mutex:
                found = self._open.get(kind)
                if found is not None:
                    room = found.reserve(kind, blob_id, stored_length, plain_length)
                    if found.closed:
                        del self._open[kind]
                    return found, room
            buffer = self._take_buffer()
            with self._mutex:
                if kind in self._open:
                    self._buffers.put(buffer)
                else:
                    self._open[kind] = pack.PackBuilder(buffer, functools.partial(self._buffers.put, buffer))

    def _take_buffer(self) -> bytearray:
        while True:
            try:
                buffer = self._buffers.get(timeout=1.0)
            except queue.Empty:
                if self._failure is not None:
                    raise self._failure from None
                continue
            return bytearray(pack.BUFFER_SIZE) if buffer is None else buffer

    # --- packs ----------------------------------------------------------------------------------------------------

    def _confirm(self) -> None:
        """Prove that nobody was pruning while we read the index, when our lock was not to be seen by everybody yet."""
        with self._index_mutex:
            if not self._confirmed:
                self._lock.confirm()
                if not self._index_is_current():
                    raise LockLost("writing: another process has just pruned the repository; try again")
                self._confirmed = True

    def _submit(self, builder: pack.PackBuilder) -> None:
        assert self._uploader is not None
        upload = self._uploader.submit(self._upload, builder)
        with self._mutex:
            self._uploads.add(upload)
        upload.add_done_callback(self._uploaded)

    def _uploaded(self, upload: Future[None]) -> None:
        with self._mutex:
            self._uploads.discard(upload)

    def _upload(self, builder: pack.PackBuilder) -> None:
        due = False
        try:
            due = self._failure is None and self._store_pack(builder)
        except BaseException as error:  # noqa: BLE001  (kept, and raised where the next blob is saved)
            self._failure = error
        builder.release()  # also after a failure: it wakes whoever waits for room, to be told
        try:
            if due:
                self._save_index()
        except BaseException as error:  # noqa: BLE001  (as above)
            self._failure = error

    def _store_pack(self, builder: pack.PackBuilder) -> bool:
        """Upload a pack; whether an index should be saved now."""
        self._confirm()
        pack_id, body = builder.finish(self._codec.key)
        self._store.put(pack.name(pack_id), body, sha256=pack_id)
        header = bytes(builder.header)
        entries = pack.plain_entries(header, "a pack of our own")
        with self._mutex:
            self._index.add(pack_id, entries)
            for entry in entries:
                self._pending[entry[0]].discard(entry[1])
            self._unindexed.append((pack_id, header))
            self._unindexed_blobs += builder.count
            due = self._unindexed_blobs >= self._index_blobs
            return due or time.monotonic() - self._indexed_at > self._index_seconds

    def _save_index(self) -> None:
        """Name the stored packs in an index file. They are durable by now, which is what makes the index true."""
        with self._index_mutex:
            with self._mutex:
                batch, self._unindexed = self._unindexed, []
                self._unindexed_blobs = 0
            if not batch:
                return
            try:
                self._lock.ensure_held()
                packs = ((pack_id, pack.plain_entries(header, "a pack")) for pack_id, header in batch)
                self._put_sealed("index", index_file.encode(packs))
            except BaseException:
                self._unindexed += batch
                raise
            self._indexed_at = time.monotonic()

    def _put_sealed(self, directory: str, document: bytes) -> str:
        stored = self._codec.seal_file(document)
        digest = hashlib.sha256(stored)
        self._store.put(f"{directory}/{digest.hexdigest()}", stored, sha256=digest.digest())
        return digest.hexdigest()

    # --- what callers want ----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Make all that was saved durable and findable: packs, then the index that names them."""
        with self._mutex:
            builders = list(self._open.values())
            self._open.clear()
        for builder in builders:
            builder.closed = True
            self._submit(builder)
        while True:
            with self._mutex:
                uploads = list(self._uploads)
            if not uploads:
                break
            for upload in uploads:
                upload.result()
        if self._failure is not None:
            raise self._failure
        self._save_index()

    def commit(self, root: Snapshot) -> str:
        """Flush, then write the snapshot, so that nothing it needs can be missing; its id."""
        self.flush()
        self._confirm()
        self._retain()
        self._lock.ensure_held()
        return self._put_sealed("snapshots", snapshot.encode(root))

    def _retain(self) -> None:
        """Under Object Lock, let what the snapshot reuses be held as long as what it brings."""
        if self._retention is not None and isinstance(self._store, S3Store):
            others = [name for directory in ("keys/", "index/") for name, _ in self._store.list(directory)]
            names = ["config", *others, *map(pack.name, self._reused)]
            self._store.retain(names, self._retention.until(snapshot.now()))
            self._reused.clear()

    def chunker(self) -> Chunker:
        """What cuts a stream where this repository cuts all streams."""
        return Chunker(self._seed)

    def save_files(self, files: Mapping[str, bytes | Subtree], time: datetime) -> str:
        """Store a tree that exists on no disk, from its files' paths and contents; the root tree's id.

        A value may be a `Subtree`, which puts a tree that is stored already at that path. `time` (UTC) goes to every
        node. Raises UnsafeName for paths that no directory could hold.
        """
        return virtual.save(files, time, self.save_blob, lambda: Chunker(self._seed))

    def backup(
        self,
        path: str,
        *,
        name: str = "",
        progress: Callable[[Progress], None] | None = None,
        parent: Snapshot | None = None,
        crew: Crew | None = None,
        exclude: Exclude | None = None,
        one_file_system: bool = False,
        device_number: int = 1,
    ) -> Archive:
        """Store the directory `path`; nothing refers to it until a snapshot is committed.

        The archive's tree holds the directory's entries; with `name` it holds the directory itself under that name, so
        that its mode, owner and times are kept too. `parent`: an earlier snapshot of the same, made with the same
        `name`; files that did not change since are not read again. `crew`: processes that share the work. `exclude` is
        asked with each path below the root, a slash in front, and whether it is a directory; `one_file_system`: what is
        mounted below is left out. `device_number`: tells hard links on the root's file system from those on others that
        the same snapshot holds. Raises SourceError when `path` cannot be read.
        """
        archiver = Archiver(self, self._reader, self._codec, self._seed, progress)
        return archiver.run(
            path, name, parent, crew, exclude, one_file_system=one_file_system, device_number=device_number
        )
