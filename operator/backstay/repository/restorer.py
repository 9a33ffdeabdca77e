"""From a tree in the repository to a directory.

Files are taken in batches, whose blobs are fetched in as few ranges of packs as possible by a few threads, each blob
once, and written only after MAC and hash are proven. Directories get their modes and times last, deepest first, since a
read-only one could not be filled and filling changes its times.

Names come from the bucket and are not trusted: none may hold a separator or mean another directory, none may come twice
in a directory, and whatever stands in a file's place is unlinked rather than followed or written through.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field

from backstay.repository import metadata, tree
from backstay.repository.blob import BlobType
from backstay.repository.crypto import OVERHEAD
from backstay.repository.errors import NoSpace, RepositoryError, TargetError, UnsafeName
from backstay.repository.index import Location
from backstay.repository.metadata import Losses
from backstay.repository.outcome import Progress, Restoration, Warning
from backstay.repository.reader import Reader, parse_id
from backstay.repository.tree import Node

THREADS = 4
RANGE = 8 << 20  # bytes of a pack that are fetched at once at most; a single blob may be larger
GAP = 64 << 10  # bytes between two wanted blobs that are fetched rather than asked around
BATCH_BLOBS = 16_384
BATCH_FILES = 8_192
OPEN_FILES = 256  # files that stay open between two of their blobs
WARNINGS = 100
_HOLE = 64 << 10  # aligned runs of zeros of this size are left as holes
_ZEROS = bytes(_HOLE)
_PROGRESS_SECONDS = 0.25
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REOPEN = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class _File:
    """A file that is being written. `size` in bytes, as its blobs add up; `missing`: blobs that are not written yet."""

    path: bytes
    node: Node
    size: int = 0
    missing: int = 0
    created: bool = False
    sparse: bool = False
    descriptor: int = -1
    mutex: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class _Wanted:
    """A blob that a batch needs, and the places in files where it goes."""

    id: bytes
    location: Location
    places: list[tuple[_File, int]] = field(default_factory=list)


class Restorer:
    """One restore of one tree into one directory."""

    def __init__(
        self,
        reader: Reader,
        target: str,
        progress: Callable[[Progress], None] | None,
        total_files: int | None,
        total_bytes: int | None,
    ) -> None:
        self._reader = reader
        self._target = os.fsencode(os.path.abspath(target))
        self._progress = progress
        self._totals = (total_files, total_bytes)
        self._told = 0.0
        self._mutex = threading.Lock()
        self._files = self._bytes = self._dirs = self._opened = 0
        self._warnings: list[Warning] = []
        self._warning_count = 0
        self._losses = Losses()
        self._stop = False
        self._batch: list[_File] = []
        self._batch_blobs: dict[bytes, _Wanted] = {}
        self._directories: list[tuple[bytes, Node]] = []
        self._first_links: dict[tuple[int, int, int, tuple[str, ...]], bytes] = {}
        self._links: list[tuple[bytes, bytes]] = []
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="restore")

    def run(self, tree_id: str, root: Node | None) -> Restoration:
        """Restore. `root`: the node that the target itself stands for. See Repository.restore."""
        try:
            self._prepare_target()
            self._walk(tree_id)
            self._write_batch()
            self._make_links()
            for path, node in reversed(self._directories):
                self._apply(path, node)
            if root is not None:
                self._apply(self._target, root)
        except OSError as error:
            raise _target_error(error, self._target) from error
        finally:
            self._stop = True
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._tell(force=True)
        for path, message in self._losses.told():
            self._warn(path, message)
        return Restoration(
            self._files, self._bytes, self._dirs, tuple(self._warnings), self._warning_count + self._losses.beyond()
        )

    # --- the walk -------------------------------------------------------------------------------------------------

    def _prepare_target(self) -> None:
        with suppress(FileExistsError):
            os.makedirs(self._target)
        if not os.path.isdir(self._target):
            raise TargetError(f"restoring into {os.fsdecode(self._target)}: it is not a directory")

    def _walk(self, tree_id: str) -> None:
        stack: list[tuple[bytes, Iterator[Node]]] = [(self._target, iter(self._nodes(tree_id, self._target)))]
        while stack:
            path, nodes = stack[-1]
            node = next(nodes, None)
            if node is None:
                stack.pop()
                continue
            below = os.path.join(path, tree.name_bytes(node.name))
            if node.type == "dir":
                self._make_directory(below)
                self._directories.append((below, node))
                self._dirs += 1
                stack.append((below, iter(self._nodes(node.subtree, below))))
            elif node.type == "file":
                self._add_file(below, node)
            else:
                self._make_special(below, node)

    def _nodes(self, tree_id: str, path: bytes) -> list[Node]:
        """The nodes of a tree, whose names are proven to be harmless."""
        shown = os.fsdecode(path)
        nodes = tree.decode(self._reader.tree(parse_id(tree_id, f"the directory {shown!r}")), tree_id)
        seen = set()
        for node in nodes:
            name = node.name
            try:
                raw = tree.name_bytes(name)
            except ValueError:
                raw = b""
            if name in ("", ".", "..") or b"/" in raw or b"\0" in raw or not raw:
                raise UnsafeName(
                    f"restoring into {shown!r}: tree {tree_id} holds the name {name!r}, which could lead elsewhere;"
                    " it was made by a hostile or broken program, so the restore stops here"
                )
            if raw in seen:
                raise UnsafeName(
                    f"restoring into {shown!r}: tree {tree_id} holds the name {name!r} twice;"
                    " it was made by a hostile or broken program, so the restore stops here"
                )
            seen.add(raw)
        return nodes

    def _make_directory(self, path: bytes) -> None:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(path)
                os.mkdir(path, 0o700)
            elif status.st_mode & 0o700 != 0o700:
                with suppress(PermissionError):
                    os.chmod(path, status.st_mode & 0o7777 | 0o700)

    def _make_special(self, path: bytes, node: Node) -> None:
        try:
            _clear(path)
            if node.type == "symlink":
                os.symlink(tree.name_bytes(node.linktarget), path)
            elif node.type == "fifo":
                os.mkfifo(path, 0o600)
            elif node.type in ("dev", "chardev"):
                os.mknod(path, 0o600 | (stat.S_IFBLK if node.type == "dev" else stat.S_IFCHR), node.device)
            else:
                self._warn(path, f"a {node.type}, which cannot be restored")
                return
        except PermissionError:
            if node.type not in ("dev", "chardev"):
                raise
            self._losses.add("device", path)
            return
        except ValueError as error:
            raise UnsafeName(
                f"restoring {os.fsdecode(path)!r}: it points nowhere a link could point: {error}"
            ) from error
        self._apply(path, node)

    def _add_file(self, path: bytes, node: Node) -> None:
        content = node.content or ()
        if node.links > 1 and node.inode:
            key = (node.device_id, node.inode, node.size, content)
            first = self._first_links.setdefault(key, path)
            if first is not path:
                self._links.append((first, path))
                self._count_file(0)
                return
        file = _File(path, node)
        self._batch.append(file)
        for text in content:
            blob_id = parse_id(text, f"the file {os.fsdecode(path)!r}")
            wanted = self._batch_blobs.get(blob_id)
            if wanted is None:
                wanted = _Wanted(blob_id, self._reader.locate(BlobType.DATA, blob_id))
                self._batch_blobs[blob_id] = wanted
            wanted.places.append((file, file.size))
            file.size += wanted.location.plain_length or wanted.location.length - OVERHEAD
            file.missing += 1
        if len(self._batch_blobs) >= BATCH_BLOBS or len(self._batch) >= BATCH_FILES:
            self._write_batch()

    def _make_links(self) -> None:
        for first, path in self._links:
            try:
                _clear(path)
                os.link(first, path, follow_symlinks=False)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._warn(path, f"could not be made a hard link: {error.strerror}")

    # --- contents -------------------------------------------------------------------------------------------------

    def _write_batch(self) -> None:
        """Fetch and write what the batch needs; returns when all of it is on disk."""
        files, wanted = self._batch, self._batch_blobs
        self._batch, self._batch_blobs = [], {}
        empty = [file for file in files if not file.missing]  # before any job can have finished a file
        jobs: list[Future[None]] = [self._executor.submit(self._write_range, blobs) for blobs in _ranges(wanted)]
        jobs += [self._executor.submit(self._finish_empty, empty[at : at + 256]) for at in range(0, len(empty), 256)]
        done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
        for job in done:
            if job.exception() is not None:
                self._stop = True
            job.result()

    def _write_range(self, blobs: list[_Wanted]) -> None:
        if self._stop:
            return
        first, last = blobs[0].location, blobs[-1].location
        fetched = memoryview(self._reader.fetch(first.pack, first.offset, last.offset + last.length - first.offset))
        for blob in blobs:
            if self._stop:
                return
            start = blob.location.offset - first.offset
            sealed = fetched[start : start + blob.location.length]
            data = self._reader.open(sealed, BlobType.DATA, blob.id, blob.location)
            for file, offset in blob.places:
                try:
                    self._write(file, offset, data)
                except OSError as error:
                    raise _target_error(error, file.path) from error

    def _finish_empty(self, files: list[_File]) -> None:
        for file in files:
            try:
                os.close(self._create(file))
            except OSError as error:
                raise _target_error(error, file.path) from error

    def _create(self, file: _File) -> int:
        try:
            descriptor = os.open(file.path, _CREATE, 0o600)
        except FileExistsError:
            _clear(file.path)
            descriptor = os.open(file.path, _CREATE, 0o600)
        file.created = True
        if not file.missing:
            metadata.apply(descriptor, file.path, file.node, self._losses)
            self._count_file(0)
        return descriptor

    def _write(self, file: _File, offset: int, data: bytes) -> None:
        with file.mutex:
            descriptor = file.descriptor
            if descriptor < 0:
                descriptor = os.open(file.path, _REOPEN) if file.created else self._create(file)
            try:
                file.sparse |= _write_sparse(descriptor, data, offset)
                file.missing -= 1
                if not file.missing:
                    if file.sparse:
                        os.ftruncate(descriptor, file.size)
                    metadata.apply(descriptor, file.path, file.node, self._losses)
            except BaseException:
                os.close(descriptor)
                file.descriptor = -1
                raise
            self._keep_or_close(file, descriptor)
        if file.missing:
            self._count_bytes(len(data))
        else:
            self._count_file(len(data))

    def _keep_or_close(self, file: _File, descriptor: int) -> None:
        kept = file.descriptor >= 0
        keep = file.missing > 0 and (kept or self._opened < OPEN_FILES)
        if not keep:
            os.close(descriptor)
        file.descriptor = descriptor if keep else -1
        if keep != kept:
            with self._mutex:
                self._opened += 1 if keep else -1

    # --- metadata and telling -------------------------------------------------------------------------------------

    def _apply(self, path: bytes, node: Node) -> None:
        metadata.apply(None, path, node, self._losses)

    def _count_file(self, size: int) -> None:
        with self._mutex:
            self._files += 1
            self._bytes += size
        self._tell()

    def _count_bytes(self, size: int) -> None:
        with self._mutex:
            self._bytes += size
        self._tell()

    def _tell(self, *, force: bool = False) -> None:
        if self._progress is None:
            return
        at = time.monotonic()
        if force or at - self._told > _PROGRESS_SECONDS:
            self._told = at
            self._progress(Progress(self._files, self._bytes, *self._totals))

    def _warn(self, path: bytes, message: str) -> None:
        self._warning_count += 1
        if len(self._warnings) < WARNINGS:
            shown = path.removeprefix(self._target).decode("utf-8", "replace")
            self._warnings.append(Warning(shown or "/", message))


def _ranges(wanted: dict[bytes, _Wanted]) -> Iterator[list[_Wanted]]:
    """The blobs in runs that lie close together in one pack, in the order in which they lie there."""
    run: list[_Wanted] = []
    for blob in sorted(wanted.values(), key=lambda blob: (blob.location.pack, blob.location.offset)):
        if run:
            first, last = run[0].location, run[-1].location
            place = blob.location
            end = last.offset + last.length
            far = place.offset - end > GAP or place.offset + place.length - first.offset > RANGE
            if place.pack != first.pack or far:
                yield run
                run = []
        run.append(blob)
    if run:
        yield run


def _write_sparse(descriptor: int, data: bytes, offset: int) -> bool:
    """Write data but for aligned runs of zeros, which stay holes; whether there were any."""
    size = len(data)
    if size < _HOLE:
        _write_all(descriptor, memoryview(data), offset)
        return False
    view = memoryview(data)
    start = position = 0
    sparse = False
    while position < size:
        following = min(size, position + _HOLE - (offset + position) % _HOLE)
        if following - position == _HOLE and view[position:following] == _ZEROS:
            if start < position:
                _write_all(descriptor, view[start:position], offset + start)
            start = following
            sparse = True
        position = following
    if start < size:
        _write_all(descriptor, view[start:], offset + start)
    return sparse


def _write_all(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def _clear(path: bytes) -> None:
    """Remove what stands in the place, unless it is a directory."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def _target_error(error: OSError, path: bytes) -> RepositoryError:
    shown = os.fsdecode(error.filename) if error.filename else os.fsdecode(path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"restoring {shown}: the volume is full; give the claim more room and restore again")
    return TargetError(f"restoring {shown}: {error.strerror}; check the mount and the mover's user")
