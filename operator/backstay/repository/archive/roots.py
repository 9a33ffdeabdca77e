"""The upper part of a snapshot's tree: from the paths that somebody named to the directories that hold them.

restic keeps `/srv/shop` as a directory `srv` with a directory `shop` in it, and of `.` just the entries; so do we,
since its `restore`, `diff` and parents go by that. What lies between is read from the disk like everything else, so
that a restore gives `srv` its mode and owner back. A directory that was named is the archiver's affair; a single file,
link or device is stored here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import msgspec

from backstay.repository.archive.node_text import device_number
from backstay.repository.errors import RepositoryError, SourceError
from backstay.repository.format import rfc3339, tree
from backstay.repository.format.blob import BlobType
from backstay.repository.format.snapshot import Snapshot
from backstay.repository.format.tree import Node
from backstay.repository.outcome import Archive, Progress, Warning
from backstay.repository.restore.metadata import SELINUX

if TYPE_CHECKING:
    from backstay.repository.archive.writer import Writer
    from backstay.repository.repository import Repository

Exclude = Callable[[bytes, bool], bool]
WARNINGS = 100  # warnings that are kept; all are counted
_CLOCK_TICK = 2_000_000_000  # ns by which a file's times must precede the parent's
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class Root:
    """A place in the snapshot's tree, and where on the disk it is.

    `source`: the path whose content belongs here, empty for a directory that only holds `entries`. `described`: the
    directory on disk whose mode, owner and times such a one gets. `origin`: the directory that relative paths begin in.
    `named`: somebody asked for this very path.
    """

    source: bytes = b""
    described: bytes = b""
    origin: bytes = b""
    named: bool = False
    entries: dict[bytes, Root] = field(default_factory=dict)


def plan(targets: Sequence[str]) -> Root:
    """Where in a snapshot's tree the targets go. Raises SourceError when two of them cannot be in one tree.

    One that lies below another makes that one's directory be listed here, so that both are there, on whichever file
    systems they are. Two different directories whose names are equal at the top are told apart by a number.
    """
    paths = list(dict.fromkeys(os.path.normpath(os.fsencode(target)).replace(b"//", b"/") for target in targets))
    if len(paths) == 1 and not _components(paths[0]):
        return Root(source=paths[0])
    top = Root()
    for path in paths:
        if _components(path):
            _add(top, path)
        else:
            for name in _listed(path):
                _add(top, os.path.normpath(os.path.join(path, name)), named=False)
    _unroll(top)
    return top


def _components(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".", b"..")]


def _origin(path: bytes) -> bytes:
    if path.startswith(b"/"):
        return b"/"
    return b"/".join([b"."] + [part for part in path.split(b"/") if part == b".."])


def _listed(path: bytes) -> list[bytes]:
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        raise SourceError(f"listing {_shown(path)}: {error.strerror}; check the path and this user's rights") from error


def _add(top: Root, path: bytes, *, named: bool = True) -> None:
    parts = _components(path)
    place = origin = _origin(path)
    name, number = parts[0], 0
    while name in top.entries and top.entries[name].origin != origin:
        number += 1
        name = b"%s-%d" % (parts[0], number)
    at = top.entries.setdefault(name, Root(origin=origin))
    for depth, part in enumerate(parts):
        place = os.path.join(place, part)
        if depth:
            at = at.entries.setdefault(part, Root())
        at.described = place
    at.source, at.named = path, named


def _unroll(root: Root) -> None:
    if root.source and root.entries:
        for name in _listed(root.source):
            below = root.entries.setdefault(name, Root())
            below.source = below.source or (b"" if below.entries else os.path.join(root.source, name))
            below.described = below.described or os.path.join(root.source, name)
        root.source = b""
    for below in root.entries.values():
        _unroll(below)


@dataclass(frozen=True)
class _Below:
    """An exclusion by absolute paths, asked by paths below one directory. An object, so that a crew can be sent it."""

    exclude: Exclude
    directory: bytes

    def __call__(self, path: bytes, is_dir: bool) -> bool:
        return self.exclude(self.directory + path, is_dir)


@dataclass
class Saver:
    """Stores the content of roots.

    `parent`: an earlier snapshot with the same roots. `archive`: a directory, as `Writer.backup` does it. `image`: a
    block device, and with `images` files too, and what a link leads to that was named and leads to either; None:
    devices are stored as the nodes that they are. `exclude`: says of an absolute path, and whether it is a directory,
    if it is left out; paths that were named are not asked about.
    """

    repository: Repository
    writer: Writer
    archive: Callable[..., Archive]
    parent: Snapshot | None = None
    image: Callable[..., Archive] | None = None
    images: bool = False
    exclude: Exclude | None = None
    progress: Callable[[Progress], None] | None = None
    total: Archive = field(default_factory=lambda: Archive("", 0, 0, 0, 0))
    _devices: dict[int, int] = field(default_factory=dict)

    def save(self, root: Root) -> Archive:
        """Store everything; what it came to, with the id of the whole tree."""
        before = self._figures()
        tree_id = self._directory(root, self.parent.tree if self.parent else "")
        added: dict[str, Any] = {name: value - before[name] for name, value in self._figures().items()}
        return replace(self.total, tree=tree_id, **added)

    def _figures(self) -> dict[str, int]:
        """What the writer has stored, our own nodes and trees included."""
        return {
            "added_bytes": self.writer.added_bytes,
            "data_added": self.writer.added_plain_bytes,
            "data_blobs": self.writer.added_blobs(BlobType.DATA),
            "tree_blobs": self.writer.added_blobs(BlobType.TREE),
        }

    def _directory(self, root: Root, before: str) -> str:
        """The tree of a root that is a directory."""
        if root.source:
            return self._archive(root.source, before)
        nodes = []
        for name, below in sorted(root.entries.items()):
            node = self._node(tree.name_text(name), below, self._before(before, name))
            if node is not None:
                nodes.append(node)
        tree_id = self.writer.save_blob(BlobType.TREE, tree.encode(nodes)).hex()
        same = tree_id == before
        count: dict[str, Any] = {"dirs_unmodified": 1} if same else {"dirs_changed": 1} if before else {"dirs_new": 1}
        self._count(Archive("", 0, 1, 0, 0, **count))
        return tree_id

    def _before(self, tree_id: str, name: bytes) -> Node | None:
        """The parent's node of that name; none when it cannot be read, since reading the source again is safe."""
        if not tree_id:
            return None
        try:
            wanted = tree.name_text(name)
            return next((node for node in self.repository.nodes(tree_id) if node.name == wanted), None)
        except RepositoryError as error:
            self._warn(name, f"the parent cannot be used here, so all is read again: {error}")
            return None

    def _node(self, name: str, root: Root, before: Node | None) -> Node | None:
        path = root.source or root.described
        try:
            status = self._status(root, path)
            self._device_number(status, path)
            if stat.S_ISDIR(status.st_mode):
                if self._left_out(root, path, is_dir=True):
                    return None
                below = self._directory(root, before.subtree if before and before.type == "dir" else "")
                return _with_subtree(self._describe(name, path, status), below)
            if root.entries:
                raise SourceError(f"reading {_shown(path)}: it is no directory; check the paths to be backed up")
            if self._left_out(root, path, is_dir=False):
                return None
            return self._leaf(name, path, status, before)
        except OSError as error:
            reason = "vanished while the backup ran" if isinstance(error, FileNotFoundError) else error.strerror
            if os.path.islink(path):
                reason = f"what the link leads to: {error.strerror}"
            self._warn(path, f"cannot be read: {reason}")
            return None

    def _status(self, root: Root, path: bytes) -> os.stat_result:
        if not root.source:
            # A directory on the way may be a link; what lies behind it was asked for by this path.
            return os.stat(path)
        status = os.lstat(path)
        if self.images and root.named and stat.S_ISLNK(status.st_mode):
            behind = os.stat(path)  # as LVM and udev name devices
            if stat.S_ISBLK(behind.st_mode) or stat.S_ISREG(behind.st_mode):
                return behind
        return status

    def _left_out(self, root: Root, path: bytes, *, is_dir: bool) -> bool:
        if self.exclude is None or root.named or root.entries:
            return False
        return self.exclude(os.path.abspath(path), is_dir)

    def _leaf(self, name: str, path: bytes, status: os.stat_result, before: Node | None) -> Node | None:
        if self.image is not None and (stat.S_ISBLK(status.st_mode) or (self.images and stat.S_ISREG(status.st_mode))):
            return self._image(name, path, before)
        if stat.S_ISREG(status.st_mode):
            return self._file(name, path, before)
        if stat.S_ISSOCK(status.st_mode):
            self._warn(path, "a socket, which cannot be stored; its server makes it anew")
            return None
        return self._describe(name, path, status)

    # --- kinds of content -----------------------------------------------------------------------------------------

    def _archive(self, path: bytes, before: str) -> str:
        base = self.total
        parent = replace(self.parent, tree=before) if self.parent and before else None
        place = os.path.abspath(path)

        def told(at: Progress) -> None:
            if self.progress is not None:
                total_files = None if at.total_files is None else base.files + at.total_files
                total_bytes = None if at.total_bytes is None else base.bytes + at.total_bytes
                self.progress(Progress(base.files + at.files, base.bytes + at.bytes, total_files, total_bytes))

        exclude = _Below(self.exclude, place.rstrip(b"/")) if self.exclude is not None else None
        made = self.archive(
            os.fsdecode(path),
            parent=parent,
            progress=told,
            exclude=exclude,
            device_number=self._device_number(os.stat(path), path),
        )
        shown = _shown(place).rstrip("/")
        warnings, notes = (
            tuple(Warning(shown + told.path, told.message) for told in list_) for list_ in (made.warnings, made.notes)
        )
        self._count(replace(made, warnings=warnings, notes=notes))
        return made.tree

    def _device_number(self, status: os.stat_result, path: bytes) -> int:
        """1 for the first file system of the snapshot, and for others a number from where they were met."""
        other = device_number(os.path.abspath(path)) if self._devices else 1
        return self._devices.setdefault(status.st_dev, other)

    def _image(self, name: str, path: bytes, before: Node | None) -> Node:
        assert self.image is not None
        made = self.image(self.writer, os.fsdecode(path), name=name, parent=before, progress=self.progress)
        self._count(made)
        self.writer.flush()  # to read back the node
        return self.repository.read_tree(made.tree)[0]

    def _file(self, name: str, path: bytes, before: Node | None) -> Node | None:
        descriptor = os.open(path, _OPEN_FLAGS)
        try:
            status = os.fstat(descriptor)
            node = self._describe(name, descriptor, status)
            if self._unchanged(status, before):
                assert before is not None
                self._count(Archive("", 1, 0, status.st_size, 0, files_unmodified=1))
                return _with_content(node, before.content or (), status.st_size)
            ids = []
            size = 0
            for chunk in self.writer.chunker().cut(lambda room: os.readv(descriptor, [room])):
                ids.append(self.writer.save_blob(BlobType.DATA, chunk).hex())
                size += len(chunk)
                if self.progress is not None:
                    self.progress(Progress(self.total.files, self.total.bytes + size))
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        self._count(Archive("", 1, 0, size, 0, files_new=int(before is None), files_changed=int(before is not None)))
        if size != status.st_size or (after.st_mtime_ns, after.st_ctime_ns) != (status.st_mtime_ns, status.st_ctime_ns):
            self._count(Archive("", 0, 0, 0, 0, changed_while_read=1))
            self._warn(path, "changed while it was read; its content may be of no single moment")
        return _with_content(node, tuple(ids), size)

    def _unchanged(self, status: os.stat_result, before: Node | None) -> bool:
        if self.parent is None or before is None or before.type != "file" or before.content is None:
            return False
        limit = rfc3339.to_ns(rfc3339.from_datetime(self.parent.time)) - _CLOCK_TICK
        return (
            (before.size, before.inode, before.mtime, before.ctime)
            == (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
            and max(status.st_mtime_ns, status.st_ctime_ns) < limit
            and all(self.writer.known(BlobType.DATA, bytes.fromhex("".join(before.content))))
        )

    # --- nodes and counts -----------------------------------------------------------------------------------------

    def _describe(self, name: str, place: bytes | int, status: os.stat_result) -> Node:
        kind = stat.S_IFMT(status.st_mode)
        linked = kind != stat.S_IFDIR and status.st_nlink > 1
        return Node(
            name=name,
            type=tree.type_name(status.st_mode),
            mode=tree.go_mode(status.st_mode),
            mtime=status.st_mtime_ns,
            atime=status.st_mtime_ns,
            ctime=status.st_ctime_ns,
            uid=status.st_uid,
            gid=status.st_gid,
            inode=status.st_ino,
            device_id=self._devices[status.st_dev] if linked else 0,
            links=status.st_nlink if kind not in (stat.S_IFDIR, stat.S_IFIFO) else 0,
            linktarget=tree.name_text(os.readlink(place)) if isinstance(place, bytes) and kind == stat.S_IFLNK else "",
            device=status.st_rdev if kind in (stat.S_IFBLK, stat.S_IFCHR) else 0,
            xattrs=tuple(self._xattrs(place, follow=kind == stat.S_IFDIR)),
        )

    def _xattrs(self, place: bytes | int, *, follow: bool) -> Iterator[tuple[str, bytes]]:
        options: dict[str, Any] = {} if isinstance(place, int) else {"follow_symlinks": follow}
        try:
            for name in sorted(os.listxattr(place, **options)):
                if name != SELINUX:
                    yield name, os.getxattr(place, name, **options)
        except OSError as error:
            if error.errno not in (2, 61, 95):  # ENOENT, ENODATA: gone since; EOPNOTSUPP: this file system has none
                shown = place if isinstance(place, bytes) else b""
                self._warn(shown, f"its extended attributes cannot be read: {error.strerror}")

    def _count(self, more: Archive) -> None:
        self.total = combine(self.total, more)

    def _warn(self, path: bytes, message: str) -> None:
        self._count(
            Archive("", 0, 0, 0, 0, warnings=(Warning(_shown(os.path.abspath(path)), message),), warning_count=1)
        )


def combine(a: Archive, b: Archive) -> Archive:
    """Both together: counts are added, warnings appended as far as they are kept."""
    summed: dict[str, Any] = {
        each.name: getattr(a, each.name) + getattr(b, each.name) for each in fields(Archive) if each.name != "tree"
    }
    for name in ("warnings", "notes"):
        summed[name] = summed[name][:WARNINGS]
    return Archive(tree="", **summed)


def _with_subtree(node: Node, tree_id: str) -> Node:
    """The node of a directory with that tree in it."""
    return msgspec.structs.replace(node, subtree=tree_id)


def _with_content(node: Node, ids: tuple[str, ...], size: int) -> Node:
    return msgspec.structs.replace(node, content=ids, size=size)


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "replace")
