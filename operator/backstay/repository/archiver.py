"""From a directory to a tree in the repository.

One thread walks, reads small files and cuts large ones; a few workers hash, compress and seal the cuts. The source is
read with plain reads into our own buffers, never mapped: a file that is truncated under a mapping kills the process,
and files do change while they are read here. What changes, vanishes or cannot be read is reported, never just skipped.

A file is taken over from the parent without being read when type, size, mtime, ctime and inode are those of the parent,
every blob of it is in the index, and both times lie well before the parent was taken: a write in the same tick of the
clock as the parent's reading would otherwise stay unseen for ever.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backstay.repository import rfc3339, tree
from backstay.repository.blob import BlobType
from backstay.repository.chunker import MIN_SIZE, Chunker
from backstay.repository.errors import Corrupted, SourceError
from backstay.repository.metadata import SELINUX
from backstay.repository.outcome import Archive, Progress, Warning
from backstay.repository.reader import Reader
from backstay.repository.snapshot import Snapshot
from backstay.repository.tree import NodeJSON

if TYPE_CHECKING:
    from backstay.repository.writer import Writer

WORKERS = 2
CHUNKS = 6  # cuts of large files in memory at once, each of 8 MiB at most
WARNINGS = 100  # warnings that are kept; all are counted
CLOCK_TICK = 2_000_000_000  # ns by which a file's times must precede the parent's
_PROGRESS_SECONDS = 0.25
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class _File:
    """A large file whose cuts are still being stored."""

    head: str
    tail: str
    ids: list[bytes | None]
    pending: list[Future[None]]

    def encode(self) -> str:
        for job in self.pending:
            job.result()
        return self.head + _content_member([blob_id.hex() for blob_id in self.ids if blob_id is not None]) + self.tail


@dataclass
class _Directory:
    """A directory that is being walked. `before`: the parent's nodes by their quoted names."""

    path: bytes
    name: str
    status: os.stat_result
    entries: list[os.DirEntry[bytes]]
    before: dict[str, NodeJSON]
    position: int = 0
    nodes: list[str | _File] = field(default_factory=list)


class Archiver:
    """One walk over one directory."""

    def __init__(
        self, writer: Writer, reader: Reader, chunker: Chunker, progress: Callable[[Progress], None] | None
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._chunker = chunker
        self._root = b""
        self._progress = progress
        self._told = 0.0
        self._workers: ThreadPoolExecutor | None = None
        self._room = threading.BoundedSemaphore(CHUNKS)
        self._parent_time = 0
        self._devices: dict[int, int] = {}
        self._links: dict[tuple[int, int], str] = {}
        self._xattrs = True
        self._files = self._dirs = self._bytes = 0
        self._new = self._changed = self._unmodified = 0
        self._warnings: list[Warning] = []
        self._warning_count = 0
        self._changed_while_read = 0

    def run(self, path: str, name: str, parent: Snapshot | None) -> Archive:
        """Walk `path`. See Writer.backup."""
        root = self._root = os.fsencode(path).rstrip(b"/") or b"/"
        added = self._writer.added_bytes
        plain = self._writer.added_plain_bytes
        data_blobs, tree_blobs = (self._writer.added_blobs(kind) for kind in BlobType)
        try:
            status = os.stat(root)
            if not stat.S_ISDIR(status.st_mode):
                raise SourceError(f"reading {path}: it is not a directory")
            top = self._enter(root, os.fsencode(name), status, self._parent_tree(parent, name))
        except OSError as error:
            raise SourceError(f"reading {path}: {error.strerror}; check the mount and the mover's user") from error
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="seal")
        try:
            tree_id, node = self._walk(top)
            if name:
                tree_id = self._writer.save_blob(BlobType.TREE, tree.join([node])).hex()
        finally:
            self._workers.shutdown(wait=True, cancel_futures=True)
        self._tell(force=True)
        return Archive(
            tree=tree_id,
            files=self._files,
            dirs=self._dirs,
            bytes=self._bytes,
            added_bytes=self._writer.added_bytes - added,
            warnings=tuple(self._warnings),
            warning_count=self._warning_count,
            changed_while_read=self._changed_while_read,
            files_new=self._new,
            files_changed=self._changed,
            files_unmodified=self._unmodified,
            data_blobs=self._writer.added_blobs(BlobType.DATA) - data_blobs,
            tree_blobs=self._writer.added_blobs(BlobType.TREE) - tree_blobs,
            data_added=self._writer.added_plain_bytes - plain,
        )

    # --- the parent -----------------------------------------------------------------------------------------------

    def _parent_tree(self, parent: Snapshot | None, name: str) -> str | None:
        if parent is None:
            return None
        self._parent_time = rfc3339.to_ns(rfc3339.from_datetime(parent.time)) - CLOCK_TICK
        if not name:
            return parent.tree
        return next((n.subtree for n in self._parent_nodes(parent.tree).values() if n.name == tree.quote(name)), None)

    def _parent_nodes(self, tree_id: str | None) -> dict[str, NodeJSON]:
        """The parent's nodes by quoted name; none when it cannot be read, since reading the source again is safe."""
        if not tree_id:
            return {}
        try:
            nodes = tree.decode_raw(self._reader.tree(bytes.fromhex(tree_id)), tree_id)
        except (Corrupted, ValueError) as error:
            self._warn(b"", f"the parent cannot be used here, so all is read again: {error}")
            return {}
        return {node.name: node for node in nodes}

    def _unchanged(self, status: os.stat_result, before: NodeJSON) -> bool:
        if (
            before.size != status.st_size
            or before.inode != status.st_ino
            or before.content is None
            or status.st_mtime_ns > self._parent_time
            or status.st_ctime_ns > self._parent_time
            or not _same_time(before.mtime, status.st_mtime_ns)
            or not _same_time(before.ctime, status.st_ctime_ns)
        ):
            return False
        try:
            return all(self._writer.has_blob(BlobType.DATA, bytes.fromhex(text)) for text in before.content)
        except ValueError:
            return False

    # --- the walk -------------------------------------------------------------------------------------------------

    def _enter(self, path: bytes, name: bytes, status: os.stat_result, before: str | None) -> _Directory:
        with os.scandir(path) as found:
            entries = sorted(found, key=_name)
        return _Directory(path, tree.name_text(name), status, entries, self._parent_nodes(before))

    def _walk(self, top: _Directory) -> tuple[str, str]:
        """Depth first; a loop, since trees may be deeper than Python's stack. The root's tree id and node."""
        stack = [top]
        while True:
            directory = stack[-1]
            below = None
            while below is None and directory.position < len(directory.entries):
                entry = directory.entries[directory.position]
                directory.position += 1
                below = self._entry(directory, entry)
            if below is not None:
                stack.append(below)
                continue
            stack.pop()
            tree_id, node = self._leave(directory)
            if not stack:
                return tree_id, node
            stack[-1].nodes.append(node)

    def _leave(self, directory: _Directory) -> tuple[str, str]:
        encoded = [node if isinstance(node, str) else node.encode() for node in directory.nodes]
        tree_id = self._writer.save_blob(BlobType.TREE, tree.join(encoded)).hex()
        self._dirs += 1
        self._tell()
        head = self._head(directory.path, directory.name, directory.status)
        return tree_id, f'{head}{self._xattr_member(directory.path)},"content":null,"subtree":"{tree_id}"}}'

    def _entry(self, directory: _Directory, entry: os.DirEntry[bytes]) -> _Directory | None:
        """Take in one entry; a directory is given back, to be walked next."""
        try:
            status = entry.stat(follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFREG:
                self._regular(directory, entry, status)
            elif kind == stat.S_IFDIR:
                return self._subdirectory(directory, entry, status)
            elif kind == stat.S_IFSOCK:
                self._warn(entry.path, "a socket, which cannot be stored; its server makes it anew")
            else:
                self._special(directory, entry, status, kind)
        except FileNotFoundError:
            self._warn(entry.path, "vanished while the backup ran")
        except OSError as error:
            self._warn(entry.path, f"cannot be read: {error.strerror}")
        return None

    def _subdirectory(
        self, directory: _Directory, entry: os.DirEntry[bytes], status: os.stat_result
    ) -> _Directory | None:
        name = tree.name_text(entry.name)
        before = directory.before.get(tree.quote(name)) if directory.before else None
        if entry.name == b"lost+found" and directory.path == self._root and _empty_or_closed(entry.path):
            return None  # the file system's own, which most movers may not even list
        try:
            return self._enter(entry.path, entry.name, status, before.subtree if before else None)
        except FileNotFoundError:
            raise
        except OSError as error:
            self._warn(entry.path, f"cannot be listed, so what is in it is missing: {error.strerror}")
            return _Directory(entry.path, name, status, [], {})

    def _special(self, directory: _Directory, entry: os.DirEntry[bytes], status: os.stat_result, kind: int) -> None:
        """Symlinks, fifos and devices."""
        members = ""
        if kind != stat.S_IFIFO and status.st_nlink:
            members = f',"links":{status.st_nlink}'
        if kind == stat.S_IFLNK:
            members += tree.linktarget_fields(tree.name_text(os.readlink(entry.path)))
        members += self._xattr_member(entry.path)
        if kind in (stat.S_IFBLK, stat.S_IFCHR) and status.st_rdev:
            members += f',"device":{status.st_rdev}'
        head = self._head(entry.path, tree.name_text(entry.name), status)
        directory.nodes.append(f'{head}{members},"content":null}}')

    def _regular(self, directory: _Directory, entry: os.DirEntry[bytes], status: os.stat_result) -> None:
        name = tree.name_text(entry.name)
        before = directory.before.get(tree.quote(name)) if directory.before else None
        if before is not None and before.type == "file" and self._unchanged(status, before):
            assert before.content is not None
            self._unmodified += 1
            size = status.st_size
            self._done(size)
            directory.nodes.append(
                f"{self._file_head(entry.path, name, status, size)}{_content_member(before.content)}}}"
            )
            return
        if before is None:
            self._new += 1
        else:
            self._changed += 1
        link = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
        if link is not None and link in self._links:
            content = self._links[link]
            self._done(status.st_size)
            directory.nodes.append(f"{self._file_head(entry.path, name, status, status.st_size)}{content}}}")
            return
        descriptor = os.open(entry.path, _OPEN_FLAGS)
        try:
            opened = os.fstat(descriptor)
            if not stat.S_ISREG(opened.st_mode) or (opened.st_ino, opened.st_dev) != (status.st_ino, status.st_dev):
                self._warn(entry.path, "was replaced by another file while the backup ran; the new one is stored")
                if not stat.S_ISREG(opened.st_mode):
                    return
                status = opened
            if status.st_size <= MIN_SIZE:
                data = os.read(descriptor, status.st_size + 1)
                if len(data) <= status.st_size and (len(data) == status.st_size or not os.read(descriptor, 1)):
                    content = self._small(data)
                    directory.nodes.append(f"{self._file_head(entry.path, name, status, len(data))}{content}}}")
                    if link is not None:
                        self._links[link] = content
                    self._done(len(data))
                    self._compare(entry.path, status, os.fstat(descriptor), len(data))
                    return
                os.lseek(descriptor, 0, os.SEEK_SET)
            self._large(directory, entry.path, name, status, descriptor, link)
        finally:
            os.close(descriptor)

    def _small(self, data: bytes) -> str:
        if not data:
            return ',"content":[]'
        return f',"content":["{self._writer.save_blob(BlobType.DATA, data).hex()}"]'

    def _large(
        self,
        directory: _Directory,
        path: bytes,
        name: str,
        status: os.stat_result,
        descriptor: int,
        link: tuple[int, int] | None,
    ) -> None:
        assert self._workers is not None
        ids: list[bytes | None] = []
        jobs: list[Future[None]] = []
        size = 0

        def readinto(room: memoryview) -> int:
            return os.readv(descriptor, [room])

        def store(position: int, chunk: bytes) -> None:
            try:
                ids[position] = self._writer.save_blob(BlobType.DATA, chunk)
            finally:
                self._room.release()

        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        for chunk in self._chunker.cut(readinto):
            self._room.acquire()
            ids.append(None)
            for job in [job for job in jobs if job.done()]:
                job.result()  # a failed upload ends the walk here, not at the end of a large file
                jobs.remove(job)
            jobs.append(self._workers.submit(store, len(ids) - 1, chunk))
            size += len(chunk)
            self._bytes += len(chunk)
            self._tell()
        self._files += 1
        self._compare(path, status, os.fstat(descriptor), size)
        file = _File(self._file_head(path, name, status, size), "}", ids, jobs)
        directory.nodes.append(file)
        if link is not None:
            encoded = file.encode()
            directory.nodes[-1] = encoded
            self._links[link] = encoded[len(file.head) : -1]

    def _compare(self, path: bytes, before: os.stat_result, after: os.stat_result, size: int) -> None:
        if (
            size != before.st_size
            or before.st_size != after.st_size
            or before.st_mtime_ns != after.st_mtime_ns
            or before.st_ctime_ns != after.st_ctime_ns
        ):
            self._changed_while_read += 1
            self._warn(path, "changed while it was read; its content may be of no single moment")

    # --- nodes ----------------------------------------------------------------------------------------------------

    def _head(self, path: bytes, name: str, status: os.stat_result) -> str:
        mtime = rfc3339.from_ns(status.st_mtime_ns)
        mode = tree.go_mode(status.st_mode)
        member = f',"mode":{mode}' if mode else ""
        return (
            f'{{"name":{tree.json_string(tree.quote(name))},"type":"{tree.type_name(status.st_mode)}"{member}'
            f',"mtime":"{mtime}","atime":"{mtime}","ctime":"{rfc3339.from_ns(status.st_ctime_ns)}"'
            f',"uid":{status.st_uid},"gid":{status.st_gid}'
            + (f',"inode":{status.st_ino}' if status.st_ino else "")
            + (f',"device_id":{self._device(status)}' if status.st_nlink > 1 and _linkable(status) else "")
        )

    def _file_head(self, path: bytes, name: str, status: os.stat_result, size: int) -> str:
        member = f',"size":{size}' if size else ""
        return f'{self._head(path, name, status)}{member},"links":{status.st_nlink}{self._xattr_member(path)}'

    def _device(self, status: os.stat_result) -> int:
        """Small numbers in order of appearance: the kernel's differ from mount to mount and would change every tree."""
        return self._devices.setdefault(status.st_dev, len(self._devices) + 1)

    def _xattr_member(self, path: bytes) -> str:
        if not self._xattrs:
            return ""
        try:
            names = os.listxattr(path, follow_symlinks=False)
            if not names:
                return ""
            found = [
                (name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names) if name != SELINUX
            ]
        except OSError as error:
            if error.errno == 95:  # EOPNOTSUPP: this file system has none
                self._xattrs = False
            elif error.errno not in (2, 61):  # ENOENT, ENODATA: gone since
                self._warn(path, f"its extended attributes cannot be read: {error.strerror}")
            return ""
        return tree.xattr_fields(found)

    # --- telling --------------------------------------------------------------------------------------------------

    def _done(self, size: int) -> None:
        self._files += 1
        self._bytes += size
        self._tell()

    def _tell(self, *, force: bool = False) -> None:
        if self._progress is None:
            return
        at = time.monotonic()
        if force or at - self._told > _PROGRESS_SECONDS:
            self._told = at
            self._progress(Progress(self._files, self._bytes))

    def _warn(self, path: bytes, message: str) -> None:
        self._warning_count += 1
        if len(self._warnings) < WARNINGS:
            shown = path.removeprefix(self._root).decode("utf-8", "replace")
            self._warnings.append(Warning(shown or "/", message))


def _empty_or_closed(path: bytes) -> bool:
    try:
        return not os.listdir(path)
    except PermissionError:
        return True


def _name(entry: os.DirEntry[bytes]) -> bytes:
    return entry.name


def _linkable(status: os.stat_result) -> bool:
    return not stat.S_ISDIR(status.st_mode)


def _same_time(text: str, ns: int) -> bool:
    if text == rfc3339.from_ns(ns):
        return True
    try:
        return not text.endswith("Z") and rfc3339.to_ns(text) == ns
    except ValueError:
        return False


def _content_member(ids: list[str]) -> str:
    return ',"content":["' + '","'.join(ids) + '"]' if ids else ',"content":[]'
