"""One directory of the source: its entries read, its files' contents stored, its tree made.

The source is read with plain reads into our own buffers, never mapped: a file that is truncated under a mapping kills
the process, and files do change while they are read here. What changes, vanishes or cannot be read is reported, never
just skipped. Every step goes through the descriptor of a directory that was reached without following a link: whoever
may write to the source must not be able to lead the reader elsewhere.

A file that did not change since the parent was taken (see `comparison`) is taken over without being read, provided that
every blob of it is in the index.

A directory is worked on when all below it is stored; first it is asked for its subdirectories.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable

from backstay.repository.archive.comparison import Comparison, proper_ids
from backstay.repository.archive.node_text import (
    KIND,
    NodeText,
    content_member,
    device_number,
    from_disk,
    on_disk,
    quoted,
)
from backstay.repository.archive.orders import Below, Done, Settings, Sink, Task
from backstay.repository.archive.parent import Batch, ParentTree
from backstay.repository.directories import Directories
from backstay.repository.errors import Corrupted
from backstay.repository.format import tree
from backstay.repository.format.blob import BlobType, Codec, TreeStream
from backstay.repository.format.chunker import MIN_SIZE, SPARSE_MARK, Chunker
from backstay.repository.format.tree import NodeJSON

WARNINGS = 100  # warnings that are kept; all are counted
BATCH_FILES = 256  # files whose contents are stored together
BATCH_BYTES = 4 << 20
BATCH_NODES = 8_192  # nodes of a directory that are kept as text; those of a larger one are compressed on the way
_PROGRESS_SECONDS = 0.25
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_Item = str | tuple[Batch, int]  # a node's text, or where the parent has it


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
        self._directories = Directories(self._root, settings.root)
        self._text = NodeText(self._warn)
        self._comparison = Comparison(settings.parent_time)
        self._links: dict[tuple[int, int], str] = {}
        self._done = Done(warnings=[], notes=[])

    def close(self) -> None:
        """Let go of what is open."""
        self._directories.close()
        os.close(self._root)

    def prove_readable(self) -> None:
        """Raises OSError when the root cannot be listed: there is nothing to back up then."""
        os.listdir(self._root)

    def root_node(self, name: str, subtree: str) -> str:
        """The node of the root, named `name`."""
        return self._text.directory(name, os.fstat(self._root), subtree, self._root)

    # --- a directory ----------------------------------------------------------------------------------------------

    def run(self, task: Task) -> Below | Done:
        """Store a directory, or name the subdirectories that must be stored first."""
        self._earlier = (self._earlier[0] + self._done.files, self._earlier[1] + self._done.size)
        self._done = Done(warnings=[], notes=[])
        self._text.path = task.path
        try:
            descriptor = self._directories.descriptor(task.path)
        except FileNotFoundError:
            self._warn("", "vanished while the backup ran")
            return self._done
        except OSError as error:
            self._warn("", f"cannot be listed, so what is in it is missing: {error.strerror}")
            self._done.tree_id = self._save_tree([])
            return self._done
        return self._work(task, descriptor)

    def _work(self, task: Task, descriptor: int) -> Below | Done:
        text = self._text
        text.descriptor, text.device, text.device_number = descriptor, os.fstat(descriptor).st_dev, task.device_number
        if text.device != task.device:
            text.device_number = device_number(task.path)
            if self._settings.one_file_system and text.device != self._settings.device:
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
                device=text.device,
                device_number=text.device_number,
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
            at += self._take_over_run(names, at)
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
        with os.scandir(self._text.descriptor) as entries:
            for entry in entries:
                name = from_disk(entry.name)
                is_directory = entry.is_dir(follow_symlinks=False)
                if exclude is not None and exclude(self._text.whole(name), is_directory):
                    continue
                if is_directory:
                    if name == "lost+found" and not task.path and self._empty_or_closed(entry.name):
                        continue  # the file system's own, which most movers may not even list
                    directories.append(name)
                names.append(name)
        return _ordered(names), _ordered(directories)

    def _empty_or_closed(self, name: str) -> bool:
        try:
            descriptor = os.open(
                name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._text.descriptor
            )
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

    def _take_over_run(self, names: list[str], at: int) -> int:
        """Take over files from `names[at]` on, as long as each is plainly unchanged; how many."""
        before = self._before
        if before is None:
            return 0
        batch, first = before.at_hand()
        found = self._comparison.run(self._text.descriptor, names, at, batch, first, BATCH_NODES - len(self._nodes))
        if not found:
            return 0
        position, nodes, reused, ids = len(self._nodes), self._nodes, self._reused, self._ids
        for name, status, content in found:
            ids += content
            reused.append((len(nodes), name, status, len(content)))
            nodes.append((batch, first))
            first += 1
            self._done.size += status.st_size
        taken = len(nodes) - position
        before.pass_over(taken)
        self._done.unmodified += taken
        self._done.files += taken
        self._progress()
        return taken

    def _entry(self, name: str, subtrees: dict[bytes, bytes]) -> None:
        position = len(self._nodes)
        self._nodes.append("")
        try:
            status = os.stat(on_disk(name), dir_fd=self._text.descriptor, follow_symlinks=False)
            kind = status.st_mode & KIND
            subtree = subtrees.get(tree.name_bytes(name), b"").hex() if kind == stat.S_IFDIR else ""
            before = self._before
            node = None
            if before is not None:
                node = before.find(quoted(name))
                if node is not None and self._same(node, name, status, subtree):
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
                if not subtree:
                    raise FileNotFoundError
                self._nodes[position] = self._text.directory(name, status, subtree)
            elif kind == stat.S_IFSOCK:
                if len(self._done.notes) < WARNINGS:
                    path = self._text.whole(name)
                    self._done.notes.append((path, "a socket is not stored; its server makes it anew"))
            else:
                self._nodes[position] = self._text.special(name, status)
        except OSError as error:
            self._failed(name, error)

    def _same(self, node: NodeJSON, name: str, status: os.stat_result, subtree: str) -> bool:
        number = self._text.number(name, status) if status.st_nlink > 1 else 0
        return self._comparison.same(node, status, number, subtree)

    def _take_over(
        self, position: int, place: tuple[Batch, int], node: NodeJSON, name: str, status: os.stat_result
    ) -> None:
        self._nodes[position] = place
        if node.content is not None:
            self._reused.append((position, name, status, len(node.content)))
            self._ids += proper_ids(node.content)
            self._done.unmodified += 1
            self._count(status.st_size)

    def _failed(self, name: str, error: OSError) -> None:
        if isinstance(error, FileNotFoundError):
            self._warn(name, "vanished while the backup ran")
        else:
            self._warn(name, f"cannot be read: {error.strerror}")

    def _read(self, position: int, name: str, status: os.stat_result) -> None:
        """Store a file's content; its node follows then, or when the batch is stored."""
        descriptor = os.open(on_disk(name), _FILE, dir_fd=self._text.descriptor)
        try:
            size = status.st_size
            if size <= MIN_SIZE:
                data = os.read(descriptor, size + 1)
                after = os.fstat(descriptor)
                if len(data) == size and _untouched(status, after):
                    head = self._text.file_head(name, status, size) + self._text.attributes(descriptor, name)
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
                self._text.file_head(name, status, status.st_size) + self._text.attributes(descriptor, name) + content
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
        content = content_member(ids) + "}"
        self._nodes[position] = (
            self._text.file_head(name, status, size) + self._text.attributes(descriptor, name) + content
        )
        if link is not None:
            self._links[link] = content

    # --- telling --------------------------------------------------------------------------------------------------

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
            self._done.warnings.append((self._text.whole(name), message))


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
