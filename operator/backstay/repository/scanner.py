"""One directory of the source: its entries read, its files' contents stored, its tree made.

The source is read with plain reads into our own buffers, never mapped: a file that is truncated under a mapping kills
the process, and files do change while they are read here. What changes, vanishes or cannot be read is reported, never
just skipped. Every step goes through the descriptor of a directory that was reached without following a link: whoever
may write to the source must not be able to lead the reader elsewhere.

A file is taken over from the parent without being read when type, size, mtime, ctime and inode are those of the parent,
every blob of it is in the index, and both times lie well before the parent was taken: a write in the same tick of the
clock as the parent's reading would otherwise stay unseen for ever.

A directory is worked on when all below it is stored; first it is asked for its subdirectories.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from backstay.repository import rfc3339, tree
from backstay.repository.blob import BlobType, Codec, TreeStream
from backstay.repository.chunker import MIN_SIZE, SPARSE_MARK, Chunker
from backstay.repository.errors import Corrupted
from backstay.repository.metadata import SELINUX
from backstay.repository.parent import Batch, ParentTree
from backstay.repository.tree import NodeJSON

WARNINGS = 100  # warnings that are kept; all are counted
BATCH_FILES = 256  # files whose contents are stored together
BATCH_BYTES = 4 << 20
BATCH_NODES = 8_192  # nodes of a directory that are kept as text; those of a larger one are compressed on the way
OPEN_DIRECTORIES = 400  # directories that stay open on the way to the present one
_PROGRESS_SECONDS = 0.25
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_UTF8 = sys.getfilesystemencoding().lower().replace("-", "") == "utf8"
_SAFE = re.compile(r"[ !#-%'-;=?-\[\]-~]*")  # what neither Go's quoting nor JSON changes
_NOTHING = "00" * 32  # the id of no blob
_ID = re.compile("[0-9a-f]{64}")

_KIND = 0o170000  # of a st_mode

Exclude = Callable[[bytes, bool], bool]
_Item = str | tuple[Batch, int]  # a node's text, or where the parent has it


class Sink(Protocol):
    """Where blobs go."""

    def known(self, kind: BlobType, ids: bytes) -> bytes:
        """For each of the ids in one string 1 when the blob is stored already, or on its way, else 0."""

    def save(self, kind: BlobType, contents: Sequence[bytes]) -> list[bytes]:
        """Store blobs unless they are known; their ids."""

    def save_compressed(self, kind: BlobType, blob_id: bytes, content: bytes, plain_length: int) -> None:
        """Store a blob that is compressed already, unless it is known."""


@dataclass(frozen=True)
class Settings:
    """What holds for a whole walk.

    `parent_time`: ns; files with later times are read. `exclude`: says of a path (from the root, with a leading slash)
    and whether it is a directory if it is left out. `device`: the root's file system, as the kernel numbers it, and
    `device_number` as we do.
    """

    root: bytes
    device: int
    device_number: int = 1
    parent_time: int = 0
    one_file_system: bool = False
    exclude: Exclude | None = None


class Task(msgspec.Struct, tag=True, array_like=True, kw_only=True):
    """One directory to work on.

    `path`: from the root, without a slash at its ends, empty for the root. `device` and `device_number`: the file
    system of the directory above, as the kernel numbers it and as we do. `before`: the parent's tree as it is stored,
    with its id and plain length. `subtrees`: tree ids of what lies below by name, empty for what is gone; None while
    nobody has asked. `trusted`: whether it is likely that the repository has what the parent's tree names.
    """

    path: bytes
    device: int
    device_number: int
    before: bytes = b""
    before_id: bytes = b""
    before_length: int = 0
    subtrees: dict[bytes, bytes] | None = None
    trusted: bool = True


class Below(msgspec.Struct, tag=True, array_like=True, kw_only=True):
    """Subdirectories that must come first: their names, and the ids of the parent's trees of them (or nothing)."""

    names: list[bytes]
    before: list[bytes]
    device: int
    device_number: int


class Done(msgspec.Struct, tag=True, array_like=True, kw_only=True):
    """A directory that is stored. `tree_id` is empty when there is none any more. `size` in bytes.

    `reused`: ids in one string of the blobs that must be in the repository for this to be true; if one is not, the
    directory must be done again.
    """

    tree_id: bytes = b""
    files: int = 0
    size: int = 0
    new: int = 0
    changed: int = 0
    unmodified: int = 0
    changed_while_read: int = 0
    unmodified_directory: bool = False
    reused: bytes = b""
    had_parent: bool = False
    warnings: list[tuple[bytes, str]] = []
    warning_count: int = 0
    notes: list[tuple[bytes, str]] = []


class Scanner:
    """Works on one directory after another, for one walk."""

    def __init__(
        self,
        settings: Settings,
        sink: Sink,
        codec: Codec,
        make_chunker: Callable[[], Chunker],
        tell: Callable[[int, int], None],
    ) -> None:
        """`tell` is called now and then with files and bytes that were done since the last time."""
        self._settings = settings
        self._sink = sink
        self._codec = codec
        self._make_chunker = make_chunker
        self._chunker: Chunker | None = None
        self._tell = tell
        self._told_at = 0.0
        self._told = self._earlier = (0, 0)  # files and bytes that were told; that earlier directories had
        self._root = os.open(settings.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent_time = settings.parent_time
        self._xattrs = True
        self._chain: list[tuple[bytes, int]] = []  # directories below the root that are open, each in the one before
        self._loose = -1  # the present directory when it lies deeper than those
        self._links: dict[tuple[int, int], str] = {}
        self._modes: dict[int, str] = {}
        self._file_bits: dict[int, int] = {}  # Go's mode of a file's mode
        self._seconds: dict[str, int] = {}  # ns of the first 19 characters of a time
        self._done = Done(warnings=[], notes=[])

    def close(self) -> None:
        """Let go of what is open."""
        self._cut_chain(0)
        os.close(self._root)

    # --- a directory ----------------------------------------------------------------------------------------------

    def run(self, task: Task) -> Below | Done:
        """Store a directory, or name the subdirectories that must be stored first."""
        self._earlier = (self._earlier[0] + self._done.files, self._earlier[1] + self._done.size)
        self._done = Done(warnings=[], notes=[])
        self._path = task.path
        try:
            descriptor = self._open(task.path)
        except FileNotFoundError:
            self._warn("", "vanished while the backup ran")
            return self._done
        except OSError as error:
            self._warn("", f"cannot be listed, so what is in it is missing: {error.strerror}")
            self._done.tree_id = self._save_tree([])
            return self._done
        return self._work(task, descriptor)

    def _open(self, path: bytes) -> int:
        """The directory at `path`, reached from the root one name after the other, following no link.

        The directories on the way stay open, since the next path has most of them too.
        """
        names = path.split(b"/") if path else []
        same = 0
        for (name, _), wanted in zip(self._chain, names, strict=False):
            if name != wanted:
                break
            same += 1
        self._cut_chain(same)
        descriptor = self._chain[-1][1] if self._chain else self._root
        for name in names[same:]:
            descriptor = os.open(name, _DIRECTORY, dir_fd=descriptor)
            if len(self._chain) < OPEN_DIRECTORIES:
                self._chain.append((name, descriptor))
            else:
                self._drop_loose()
                self._loose = descriptor
        return descriptor

    def _drop_loose(self) -> None:
        if self._loose >= 0:
            os.close(self._loose)
            self._loose = -1

    def _cut_chain(self, length: int) -> None:
        self._drop_loose()
        while len(self._chain) > length:
            os.close(self._chain.pop()[1])

    def _work(self, task: Task, descriptor: int) -> Below | Done:
        self._descriptor = descriptor
        self._device, self._device_number = os.fstat(descriptor).st_dev, task.device_number
        if self._device != task.device:
            self._device_number = device_number(task.path)
            if self._settings.one_file_system and self._device != self._settings.device:
                self._done.tree_id = self._save_tree([])
                return self._done
        names, directories = self._list(task)
        subtrees = task.subtrees or {}
        missing = [name for name in directories if tree.name_bytes(name) not in subtrees]
        if missing:
            before = self._parent(task)
            return Below(
                names=[tree.name_bytes(name) for name in missing],
                before=before.subtrees(missing) if before is not None else [b""] * len(missing),
                device=self._device,
                device_number=self._device_number,
            )
        self._before = self._parent(task)
        self._done.had_parent = self._before is not None
        self._nodes: list[_Item] = []  # in order; empty where a content is waited for, or nothing came
        self._all_same = self._before is not None
        self._stream: TreeStream | None = None
        self._streamed = False
        self._contents: list[bytes] = []
        self._waiting: list[tuple[int, str]] = []
        self._size = 0
        self._reused: list[tuple[int, str, os.stat_result, int]] = []
        self._ids: list[str] = []
        at = 0
        while at < len(names):
            at += self._pass_unchanged(names, at)
            if at < len(names):
                self._entry(names[at], subtrees)
                at += 1
            if len(self._nodes) >= BATCH_NODES or len(self._waiting) >= BATCH_FILES or self._size >= BATCH_BYTES:
                self._settle()
        self._finish(task)
        return self._done

    def _list(self, task: Task) -> tuple[list[str], list[str]]:
        """Names of all entries, and of the directories among them, in the order of their bytes."""
        exclude = self._settings.exclude
        names, directories = [], []
        with os.scandir(self._descriptor) as entries:
            for entry in entries:
                name = entry.name if _UTF8 else tree.name_text(os.fsencode(entry.name))
                is_directory = entry.is_dir(follow_symlinks=False)
                if exclude is not None and exclude(self._whole(name), is_directory):
                    continue
                if is_directory:
                    if name == "lost+found" and not task.path and self._empty_or_closed(entry.name):
                        continue  # the file system's own, which most movers may not even list
                    directories.append(name)
                names.append(name)
        return _ordered(names), _ordered(directories)

    def _empty_or_closed(self, name: str) -> bool:
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=self._descriptor)
        except PermissionError:
            return True
        except OSError:
            return False
        try:
            return not os.listdir(descriptor)
        finally:
            os.close(descriptor)

    def _parent(self, task: Task) -> ParentTree | None:
        """The parent's tree; none when it cannot be read, since reading the source again is safe."""
        if not task.before:
            return None
        what = f"tree {task.before_id.hex()}"
        try:
            pieces = self._codec.open_stream(task.before, task.before_length, task.before_id, what)
            return ParentTree(pieces, task.before_id.hex())
        except Corrupted as error:
            self._warn("", f"the parent cannot be used here, so all is read again: {error}")
            return None

    def _finish(self, task: Task) -> None:
        """Store the tree, unless it is the parent's."""
        before = self._before
        same = self._all_same and before is not None and before.all_taken and before.exhausted()
        if same and task.trusted:
            self._done.reused = bytes.fromhex("".join(self._ids))
        else:
            self._settle(last=True)
        if same and self._all_same:  # it is not if something turned out to be missing
            self._done.unmodified_directory = True
            self._done.tree_id = task.before_id
        elif self._stream is None:
            self._done.tree_id = self._save_tree(self._texts())
        else:
            self._feed(last=True)
            self._done.tree_id, content, length = self._stream.finish()
            self._sink.save_compressed(BlobType.TREE, self._done.tree_id, content, length)

    def _texts(self) -> list[str]:
        return [item if isinstance(item, str) else item[0].text(item[1]) for item in self._nodes if item]

    def _save_tree(self, nodes: list[str]) -> bytes:
        return self._sink.save(BlobType.TREE, [tree.join(nodes)])[0]

    # --- batches --------------------------------------------------------------------------------------------------

    def _settle(self, *, last: bool = False) -> None:
        """Prove that what was taken over is there, and store the contents that have come together."""
        if self._ids:
            flags = self._sink.known(BlobType.DATA, bytes.fromhex("".join(self._ids)))
            if 0 in flags:
                self._read_what_is_missing(flags)
        self._ids, self._reused = [], []
        if self._contents:
            ids = self._sink.save(BlobType.DATA, self._contents)
            for (position, head), blob_id in zip(self._waiting, ids, strict=True):
                self._nodes[position] = f'{head},"content":["{blob_id.hex()}"]}}'
            self._contents, self._waiting, self._size = [], [], 0
        if not last and len(self._nodes) >= BATCH_NODES:
            self._feed()

    def _read_what_is_missing(self, flags: bytes) -> None:
        self._all_same = False
        at = 0
        for position, name, status, count in self._reused:
            if 0 in flags[at : at + count]:
                self._done.unmodified -= 1
                self._done.changed += 1
                self._done.files -= 1
                self._done.size -= status.st_size
                self._nodes[position] = ""
                try:
                    self._read(position, name, status)
                except OSError as error:
                    self._failed(name, error)
            at += count

    def _feed(self, *, last: bool = False) -> None:
        """Hash and compress the nodes so far: the tree of a huge directory is never whole in memory."""
        text = ",".join(self._texts())
        if self._stream is None:
            self._stream = TreeStream()
            self._stream.add(b'{"nodes":[')
        elif text and self._streamed:
            text = "," + text
        self._streamed = self._streamed or bool(text)
        self._stream.add((text + ("]}\n" if last else "")).encode())
        self._nodes = []

    # --- entries --------------------------------------------------------------------------------------------------

    def _pass_unchanged(self, names: list[str], at: int) -> int:
        """Take over files from `names[at]` on, as long as each is plainly unchanged; how many.

        It is `_entry` for what most backups consist of, and does nothing that `_entry` would not do: whatever is not
        plain is left to that. Millions of files pass here, so it is one loop on local names.
        """
        before = self._before
        if before is None:
            return 0
        batch, first = before.at_hand()
        nodes = batch.nodes
        most = min(len(names) - at, len(nodes) - first, BATCH_NODES - len(self._nodes))
        bits, seconds, latest = self._file_bits, self._seconds, self._parent_time
        descriptor, look = self._descriptor, os.stat
        items, reused, ids = self._nodes, self._reused, self._ids
        is_id = _ID.fullmatch
        taken = size = 0
        try:
            for taken in range(most):
                name, node = names[at + taken], nodes[first + taken]
                if node.name != name or "\\" in name:
                    break
                status = look(name, dir_fd=descriptor, follow_symlinks=False)
                ctime, mtime = status.st_ctime_ns, status.st_mtime_ns
                text = node.ctime
                if (
                    node.inode != status.st_ino
                    or node.size != status.st_size
                    or ctime > latest
                    or seconds[text[:19]] + int(text[20:-1].ljust(9, "0")) != ctime
                ):
                    break
                if node.mtime != text:
                    text = node.mtime
                    if mtime > latest or seconds[text[:19]] + int(text[20:-1].ljust(9, "0")) != mtime:
                        break
                elif mtime != ctime:
                    break
                if (
                    bits[status.st_mode] != node.mode
                    or node.uid != status.st_uid
                    or node.gid != status.st_gid
                    or status.st_nlink != 1
                    or node.error
                ):
                    break
                content = node.content
                if content is None or len(content) > 1 or (content and not is_id(content[0])):
                    break
                ids += content
                reused.append((len(items), name, status, len(content)))
                items.append((batch, first + taken))
                size += status.st_size
            else:
                taken = most
        except (OSError, LookupError, ValueError):
            pass  # not plain
        before.pass_over(taken)
        self._done.unmodified += taken
        self._done.files += taken
        self._done.size += size
        if taken:
            self._progress()
        return taken

    def _entry(self, name: str, subtrees: dict[bytes, bytes]) -> None:
        position = len(self._nodes)
        self._nodes.append("")
        try:
            status = os.stat(_on_disk(name), dir_fd=self._descriptor, follow_symlinks=False)
            kind = status.st_mode & _KIND
            before = self._before
            node = None
            if before is not None:
                node = before.find(name if _SAFE.fullmatch(name) else tree.quote(name))
                if node is not None and self._unchanged(node, name, status, subtrees):
                    self._take_over(position, before.taken, node, name, status)
                    return
                self._all_same = False
            if kind == stat.S_IFREG:
                if node is None:
                    self._done.new += 1
                else:
                    self._done.changed += 1
                self._read(position, name, status)
            elif kind == stat.S_IFDIR:
                self._nodes[position] = self._directory(name, status, subtrees)
            elif kind == stat.S_IFSOCK:
                if len(self._done.notes) < WARNINGS:
                    self._done.notes.append((self._whole(name), "a socket is not stored; its server makes it anew"))
            else:
                self._nodes[position] = self._special(name, status)
        except OSError as error:
            self._failed(name, error)

    def _unchanged(self, node: NodeJSON, name: str, status: os.stat_result, subtrees: dict[bytes, bytes]) -> bool:
        """Whether the parent's node tells the present state. A change of anything else would have changed the ctime."""
        mtime, ctime = status.st_mtime_ns, status.st_ctime_ns
        mode = status.st_mode
        kind = mode & _KIND
        if (
            ctime > self._parent_time
            or mtime > self._parent_time
            or node.inode != status.st_ino
            or node.mode != tree.go_mode(mode)
            or self._ns(node.ctime) != ctime
            or self._ns(node.mtime) != mtime
            or node.uid != status.st_uid
            or node.gid != status.st_gid
            or node.error
        ):
            return False
        if kind == stat.S_IFREG:
            self._file_bits[mode] = node.mode
            if node.size != status.st_size or node.content is None or node.type != "file":
                return False
            return status.st_nlink == 1 or node.device_id == self._number(name, status)
        if kind == stat.S_IFDIR:
            subtree = subtrees.get(tree.name_bytes(name))
            return bool(subtree) and subtree is not None and node.subtree == subtree.hex()
        return node.type == tree.type_name(mode)

    def _ns(self, text: str) -> int:
        """As rfc3339.to_ns; -1, which no reused time is, when it is no time."""
        try:
            if text[-1:] == "Z" and len(text) > 20:
                if len(self._seconds) > 10_000:
                    self._seconds.clear()
                self._seconds[text[:19]] = rfc3339.to_ns(text[:19] + "Z")
            return rfc3339.to_ns(text)
        except ValueError:
            return -1

    def _take_over(
        self, position: int, place: tuple[Batch, int], node: NodeJSON, name: str, status: os.stat_result
    ) -> None:
        self._nodes[position] = place
        content = node.content
        if content is None:
            return
        # Something that is no id cannot be in the repository, so the file will be read.
        ids = [text if _ID.fullmatch(text) else _NOTHING for text in content]
        self._reused.append((position, name, status, len(ids)))
        self._ids += ids
        self._done.unmodified += 1
        self._count(status.st_size)

    def _failed(self, name: str, error: OSError) -> None:
        if isinstance(error, FileNotFoundError):
            self._warn(name, "vanished while the backup ran")
        else:
            self._warn(name, f"cannot be read: {error.strerror}")

    def _directory(self, name: str, status: os.stat_result, subtrees: dict[bytes, bytes]) -> str:
        subtree = subtrees.get(tree.name_bytes(name))
        if not subtree:
            raise FileNotFoundError
        return self._directory_node(name, status, self._path_of(name), subtree.hex())

    def _path_of(self, name: str) -> bytes:
        """A path for what is not opened; only its last name may be a link, which is not to be followed."""
        return b"/proc/self/fd/%d/%s" % (self._descriptor, tree.name_bytes(name))

    def prove_readable(self) -> None:
        """Raises OSError when the root cannot be listed: there is nothing to back up then."""
        os.listdir(self._root)

    def root_node(self, name: str, subtree: str) -> str:
        """The node of the root, named `name`."""
        settings = self._settings
        self._device, self._device_number, self._path = settings.device, settings.device_number, b""
        return self._directory_node(name, os.fstat(self._root), self._root, subtree)

    def _directory_node(self, name: str, status: os.stat_result, place: int | bytes, subtree: str) -> str:
        attributes = self._attributes(place, name)
        return f'{self._head(name, status)}{attributes},"content":null,"subtree":"{subtree}"}}'

    def _special(self, name: str, status: os.stat_result) -> str:
        """Symlinks, fifos and devices. Their attributes are reached by a path, since they cannot be opened."""
        kind = stat.S_IFMT(status.st_mode)
        members = ""
        if kind != stat.S_IFIFO and status.st_nlink:
            members = f',"links":{status.st_nlink}'
        if kind == stat.S_IFLNK:
            members += tree.linktarget_fields(tree.name_text(os.readlink(os.fsencode(name), dir_fd=self._descriptor)))
        members += self._attributes(self._path_of(name), name)
        if kind in (stat.S_IFBLK, stat.S_IFCHR) and status.st_rdev:
            members += f',"device":{status.st_rdev}'
        return f'{self._head(name, status)}{members},"content":null}}'

    def _read(self, position: int, name: str, status: os.stat_result) -> None:
        """Store a file's content; its node follows then, or when the batch is stored."""
        descriptor = os.open(_on_disk(name), _FILE, dir_fd=self._descriptor)
        try:
            size = status.st_size
            if size <= MIN_SIZE:
                data = os.read(descriptor, size + 1)
                after = os.fstat(descriptor)
                if len(data) == size and _untouched(status, after):
                    head = self._file_head(name, status, size) + self._attributes(descriptor, name)
                    if not size:
                        self._nodes[position] = head + ',"content":[]}'
                    else:
                        self._contents.append(data)
                        self._waiting.append((position, head))
                        self._size += size
                    self._count(size)
                    return
                os.lseek(descriptor, 0, os.SEEK_SET)
            self._cut(position, name, status, descriptor)
        finally:
            os.close(descriptor)

    def _cut(self, position: int, name: str, status: os.stat_result, descriptor: int) -> None:
        """A large file, or one that is not what it was a moment ago."""
        opened = os.fstat(descriptor)
        if not stat.S_ISREG(opened.st_mode) or (opened.st_ino, opened.st_dev) != (status.st_ino, status.st_dev):
            self._warn(name, "was replaced by another file while the backup ran; the new one is stored")
            if not stat.S_ISREG(opened.st_mode):
                return
            status = opened
        link = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
        content = self._links.get(link) if link is not None else None
        if content is not None:
            self._nodes[position] = (
                self._file_head(name, status, status.st_size) + self._attributes(descriptor, name) + content
            )
            self._count(status.st_size)
            return
        if self._chunker is None:
            self._chunker = self._make_chunker()
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        ids: list[str] = []
        size = 0
        sparse = False
        for chunk in self._chunker.cut(lambda room: os.readv(descriptor, [room])):
            contents = [chunk]
            if not sparse and len(chunk) > SPARSE_MARK and not any(chunk[:64]) and chunk.count(0) == len(chunk):
                contents = [chunk[:SPARSE_MARK], chunk[SPARSE_MARK:]]  # restic makes holes where it finds this
                sparse = True
            ids += [blob_id.hex() for blob_id in self._sink.save(BlobType.DATA, contents)]
            size += len(chunk)
            self._done.size += len(chunk)
            self._progress()
        self._done.files += 1
        after = os.fstat(descriptor)
        if size != status.st_size or not _untouched(status, after):
            self._done.changed_while_read += 1
            self._warn(name, "changed while it was read; its content may be of no single moment")
        content = _content_member(ids) + "}"
        self._nodes[position] = self._file_head(name, status, size) + self._attributes(descriptor, name) + content
        if link is not None:
            self._links[link] = content

    # --- nodes ----------------------------------------------------------------------------------------------------

    def _head(self, name: str, status: os.stat_result) -> str:
        mode = self._modes.get(status.st_mode)
        if mode is None:
            bits = tree.go_mode(status.st_mode)
            mode = f'"type":"{tree.type_name(status.st_mode)}"' + (f',"mode":{bits}' if bits else "")
            self._modes[status.st_mode] = mode
        shown = f'"{name}"' if _SAFE.fullmatch(name) else tree.json_string(tree.quote(name))
        mtime = rfc3339.from_ns(status.st_mtime_ns)
        ctime = mtime if status.st_ctime_ns == status.st_mtime_ns else rfc3339.from_ns(status.st_ctime_ns)
        inode = f',"inode":{status.st_ino}' if status.st_ino else ""
        device = ""
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            device = f',"device_id":{self._number(name, status)}'
        return (
            f'{{"name":{shown},{mode},"mtime":"{mtime}","atime":"{mtime}","ctime":"{ctime}"'
            f',"uid":{status.st_uid},"gid":{status.st_gid}{inode}{device}'
        )

    def _file_head(self, name: str, status: os.stat_result, size: int) -> str:
        member = f',"size":{size}' if size else ""
        return f'{self._head(name, status)}{member},"links":{status.st_nlink}'

    def _number(self, name: str, status: os.stat_result) -> int:
        if status.st_dev == self._device:
            return self._device_number
        return device_number(os.fsencode(self._whole(name)))  # a file that something else is mounted on

    def _attributes(self, place: int | bytes, name: str) -> str:
        if not self._xattrs:
            return ""
        # What cannot be opened has its attributes read by path, without following the link that it may be.
        follow = isinstance(place, int)
        try:
            names = os.listxattr(place, follow_symlinks=follow)
            if not names:
                return ""
            found = [(key, os.getxattr(place, key, follow_symlinks=follow)) for key in sorted(names) if key != SELINUX]
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                self._xattrs = False
            elif error.errno not in (errno.ENOENT, errno.ENODATA, errno.EPERM):  # gone since; a kind that has none
                self._warn(name, f"its extended attributes cannot be read: {error.strerror}")
            return ""
        return tree.xattr_fields(found)

    # --- telling --------------------------------------------------------------------------------------------------

    def _whole(self, name: str) -> bytes:
        """The path of an entry from the root, with a slash in front."""
        path = b"/" + self._path
        if not name:
            return path
        return path.rstrip(b"/") + b"/" + tree.name_bytes(name)

    def _count(self, size: int) -> None:
        self._done.files += 1
        self._done.size += size
        if self._done.files & 15 == 1:  # the clock takes longer than the rest
            self._progress()

    def _progress(self) -> None:
        if time.monotonic() - self._told_at > _PROGRESS_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Tell what was done since the last time."""
        self._told_at = time.monotonic()
        files, size = self._earlier[0] + self._done.files, self._earlier[1] + self._done.size
        self._tell(files - self._told[0], size - self._told[1])
        self._told = (files, size)

    def _warn(self, name: str, message: str) -> None:
        self._done.warning_count += 1
        if len(self._done.warnings) < WARNINGS:
            self._done.warnings.append((self._whole(name), message))


def device_number(path: bytes) -> int:
    """Our number of a file system that is mounted at `path`: the kernel's differ from mount to mount."""
    return zlib.crc32(path) | 1 << 32


def _on_disk(name: str) -> str | bytes:
    return name if _UTF8 else tree.name_bytes(name)


def _ordered(names: list[str]) -> list[str]:
    """In the order of the bytes; that of characters is another one where bytes are no UTF-8."""
    return sorted(names) if all(map(str.isascii, names)) else sorted(names, key=tree.name_bytes)


def _untouched(before: os.stat_result, after: os.stat_result) -> bool:
    return (
        before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
        and before.st_size == after.st_size
        and before.st_ino == after.st_ino
        and before.st_dev == after.st_dev
    )


def _content_member(ids: list[str]) -> str:
    return ',"content":["' + '","'.join(ids) + '"]' if ids else ',"content":[]'
