"""From a tree in the repository to a directory: the walk, and everything that is no file's content.

Contents go in batches to those who fetch and write them (`restore_contents`). Directories get their modes and times
when all in them is done, since a read-only one could not be filled and filling changes its times.

Names come from the bucket and are not trusted: none may hold a separator or mean another directory, none may come twice
in a directory. Nothing is reached through a path: each directory is opened in its parent, never through a link, and
whatever stands in an entry's place is unlinked rather than followed or written through.

A file that is there already, with one name only, is written into: its blobs are read and hashed, and only those that
differ are fetched and written. A restore that is killed meanwhile leaves such a file with some old and some new blobs,
with the old length or times, so that the next restore, even one of `if-changed`, compares it again. Files that are made
anew are removed when a restore fails; one that is killed may leave them unfinished, with the time of the restore.
"""

from __future__ import annotations

import errno
import functools
import gc
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from backstay.repository import metadata, restore_existing, restore_files, tree
from backstay.repository.blob import Codec
from backstay.repository.crew import Crew
from backstay.repository.errors import Corrupted, TargetError, UnsafeName
from backstay.repository.metadata import Attributes, Losses
from backstay.repository.outcome import Progress, Restoration, Warning
from backstay.repository.reader import Reader, parse_id
from backstay.repository.restore_contents import Contents
from backstay.repository.restore_directories import Directories, join
from backstay.repository.restore_existing import Action, Choice, Overwrite, Select, decide
from backstay.repository.restore_flow import Flow
from backstay.repository.restore_plan import File, Portion
from backstay.repository.tree import Node, NodeJSON

WARNINGS = 100
_PROGRESS_SECONDS = 0.25
_ALL = Choice(take=True, descend=True)
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {"symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO, "dev": stat.S_IFBLK, "chardev": stat.S_IFCHR}


@dataclass(frozen=True)
class Options:
    """How a restore treats what is there; see Repository.restore."""

    overwrite: Overwrite = "always"
    delete: bool = False
    select: Select | None = None
    verify: bool = False
    dry_run: bool = False
    sparse: bool = True


class _Level:
    """A directory on the way of the walk.

    `path`: relative to the target. `made`: it is there. `fresh`: nothing was in it before. `refused`: something else
    stands there and stays. `attributes`: what it gets in the end, None for nothing; `mode`: what it gets back instead.
    `extras`: what is to be removed from it.
    """

    __slots__ = (
        "attributes", "extras", "fresh", "made", "mode", "name", "nodes", "parent", "path", "refused",
    )  # fmt: skip

    def __init__(self, parent: _Level | None, name: bytes, attributes: Attributes | None) -> None:
        self.parent = parent
        self.name = name
        self.path: bytes = join(parent.path, name) if parent is not None else b""
        self.attributes = attributes
        self.nodes: Iterator[tuple[bytes, NodeJSON]] = iter(())
        self.made = self.fresh = self.refused = False
        self.mode = -1
        self.extras: list[bytes] = []


class _Link:
    """A file of which further names are expected."""

    __slots__ = ("directory", "name", "remaining")

    def __init__(self, directory: bytes, name: bytes, remaining: int) -> None:
        self.directory = directory
        self.name = name
        self.remaining = remaining


class Restorer:
    """One restore of one tree into one directory."""

    def __init__(
        self,
        reader: Reader,
        codec: Codec,
        target: str,
        options: Options,
        *,
        crew: Crew | None = None,
        progress: Callable[[Progress], None] | None = None,
        total_files: int | None = None,
        total_bytes: int | None = None,
    ) -> None:
        if options.overwrite not in restore_existing.MODES:
            raise ValueError(f"overwrite is one of {', '.join(restore_existing.MODES)}, not {options.overwrite!r}")
        self._reader = reader
        self._codec = codec
        self._target = os.fsencode(os.path.abspath(target))
        self._options = options
        self._crew = crew
        self._progress = progress
        self._totals = (total_files, total_bytes)
        self._mutex = threading.Lock()
        self._told = 0.0
        self._told_files = self._told_bytes = 0
        self._files = self._bytes = self._dirs = self._deleted = 0
        self._warnings: list[Warning] = []
        self._warning_count = 0
        self._losses = Losses()
        self._links: dict[tuple[int, int, int, int], _Link] = {}
        self._links_made = self._links_kept = 0
        self._privileged = os.geteuid() == 0
        self._fresh = False
        self._directories: Directories
        self._contents: Contents

    def run(self, tree_id: str, root: Node | None) -> Restoration:
        """Restore. `root`: the node that the target itself stands for. See Repository.restore."""
        gc.freeze()  # or all that the program ever loaded is looked through again for each few thousand files
        try:
            return self._run(tree_id, root)
        finally:
            gc.unfreeze()

    def _run(self, tree_id: str, root: Node | None) -> Restoration:
        top = self._open_target()
        flow: Flow | None = None
        options = self._options
        replace = options.overwrite != "never"
        try:
            self._directories = Directories(top)
            if top >= 0:
                flow = Flow(
                    self._reader, self._codec, self._target, top, self._crew, self._tell_portion,
                    replace=replace, sparse=options.sparse,
                )  # fmt: skip
            self._contents = Contents(
                self._reader, flow, self._directories, self._target, self._losses, self._warn, self._tell,
                replace=replace, verify=options.verify and not options.dry_run, dry_run=options.dry_run,
            )  # fmt: skip
            try:
                self._walk(tree_id, metadata.of(root) if root is not None else None)
                self._contents.finish()
            except OSError as error:
                raise restore_files.target_error(error, os.fsencode(error.filename or self._target)) from error
            except BaseException:
                if flow is not None:
                    flow.close()
                    flow = None
                self._contents.abandon()
                raise
        finally:
            if flow is not None:
                flow.close()
            if top >= 0:
                self._directories.close()
                os.close(top)
        self._tell(0, 0, force=True)
        return self._outcome()

    def _outcome(self) -> Restoration:
        for path, message in self._losses.told():
            self._warn(path, message)
        tally = self._contents.tally
        return Restoration(
            files=self._files,
            bytes=self._bytes,
            dirs=self._dirs,
            warnings=tuple(self._warnings),
            warning_count=self._warning_count + self._losses.beyond(),
            files_restored=tally.restored + self._links_made,
            files_updated=tally.updated,
            files_unchanged=tally.unchanged + self._links_kept,
            files_skipped=tally.skipped,
            deleted=self._deleted,
            bytes_restored=tally.bytes_restored,
            bytes_skipped=tally.bytes_skipped,
            files_verified=tally.verified,
            verify_errors=tally.wrong,
        )

    def _open_target(self) -> int:
        """A descriptor of the target, -1 when this is a dry run and there is none."""
        shown = os.fsdecode(self._target)
        try:
            if not self._options.dry_run:
                try:
                    os.makedirs(self._target)
                    self._fresh = True
                except FileExistsError:
                    pass
            return os.open(self._target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            if self._options.dry_run:
                self._fresh = True
                return -1
            raise restore_files.target_error(error, self._target) from error
        except NotADirectoryError as error:
            raise TargetError(f"restoring into {shown}: it is not a directory") from error
        except OSError as error:
            raise restore_files.target_error(error, self._target) from error

    # --- the walk -------------------------------------------------------------------------------------------------

    def _walk(self, tree_id: str, root: Attributes | None) -> None:
        top = _Level(None, b"", root)
        top.made, top.fresh = True, self._fresh
        self._enter(top, tree_id)
        stack = [top]
        select = self._options.select
        while stack:
            level = stack[-1]
            entry = next(level.nodes, None)
            if entry is None:
                self._leave(stack.pop())
                continue
            name, node = entry
            choice = select(b"/" + join(level.path, name), node.type == "dir") if select is not None else _ALL
            if node.type == "dir":
                if not choice.take and not choice.descend:
                    continue
                below = _Level(level, name, self._attributes(node, level, name))
                if choice.take and not self._ensure(below):
                    continue
                if choice.descend:
                    self._enter(below, node.subtree or "")
                stack.append(below)
            elif choice.take and (level.made or self._ensure(level)):
                if node.type == "file":
                    self._add_file(level, name, node)
                else:
                    self._make_special(level, name, node)

    def _enter(self, level: _Level, tree_id: str) -> None:
        """Begin to read the tree of a directory, and see what of the directory is not in it."""
        level.nodes = self._nodes(level, tree_id)

    def _nodes(self, level: _Level, tree_id: str) -> Iterator[tuple[bytes, NodeJSON]]:
        """The nodes of a tree by their names, which are proven to be harmless; few are held at a time."""
        there: deque[bytes] | None = None  # in the directory, and not passed yet
        if self._options.delete and not level.fresh and not level.refused:
            there = self._entries(level)
        shown = os.fsdecode(join(self._target, level.path))
        last = b""
        for batch in self._reader.node_batches(parse_id(tree_id, f"the directory {shown!r}")):
            named = []
            for node in batch:
                name = _name(node, last, tree_id, shown)
                named.append((name, node))
                last = name
                while there and there[0] <= name:
                    if (entry := there.popleft()) != name:
                        level.extras.append(entry)
            yield from named
        if there:
            level.extras += there

    def _entries(self, level: _Level) -> deque[bytes]:
        """The names in a directory as it was, in order."""
        try:
            with os.scandir(self._directories.descriptor(level.path)) as entries:
                return deque(sorted(os.fsencode(entry.name) for entry in entries))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # it is not there (yet)
                return deque()
            raise restore_files.target_error(error, join(self._target, level.path)) from error

    def _attributes(self, node: NodeJSON, level: _Level, name: bytes) -> Attributes:
        try:
            return metadata.of_raw(node)
        except ValueError as error:
            raise Corrupted(f"the node of {self._shown(level, name)!r} cannot be read: {error}") from error

    def _shown(self, level: _Level, name: bytes) -> str:
        return os.fsdecode(join(join(self._target, level.path), name))

    def _status(self, level: _Level, name: bytes) -> os.stat_result | None:
        """Of what stands in an entry's place."""
        if level.fresh:
            return None
        try:
            return os.stat(name, dir_fd=self._directories.descriptor(level.path), follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise restore_files.target_error(error, join(join(self._target, level.path), name)) from error

    # --- directories ----------------------------------------------------------------------------------------------

    def _ensure(self, level: _Level) -> bool:
        """Let the directory be there, and those above it; whether it is."""
        chain = []
        at: _Level | None = level
        while at is not None and not at.made:
            chain.append(at)
            at = at.parent
        for at in reversed(chain):
            if at.refused or (at.parent is not None and at.parent.refused):
                at.refused = True
                return False
            try:
                self._make_directory(at)
            except OSError as error:
                raise restore_files.target_error(error, join(self._target, at.path)) from error
            if at.refused:
                return False
        return not level.refused

    def _make_directory(self, level: _Level) -> None:
        parent = level.parent
        assert parent is not None
        status = self._status(parent, level.name)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            mtime = level.attributes.mtime if level.attributes is not None else 0
            if decide(self._options.overwrite, "dir", 0, mtime, status, True) is Action.SKIP:
                self._warn(b"/" + level.path, "was not restored: what stands in the directory's place was to be kept")
                level.refused = True
                return
        level.made = True
        self._dirs += 1
        level.fresh = status is None or not stat.S_ISDIR(status.st_mode)
        if self._options.dry_run:
            return
        above = self._directories.descriptor(parent.path)
        if level.fresh:
            if status is not None:
                self._directories.forget(level.path)
                os.unlink(level.name, dir_fd=above)
            os.mkdir(level.name, 0o700, dir_fd=above)
            return
        assert status is not None
        if status.st_mode & 0o700 != 0o700:
            with suppress(PermissionError), self._entry(parent, level.name) as place:
                os.chmod(place, status.st_mode & 0o7777 | 0o700)
        if self._options.overwrite == "never":
            level.attributes, level.mode = None, stat.S_IMODE(status.st_mode)

    def _leave(self, level: _Level) -> None:
        """The walk is through with a directory; it is finished when the files in it are."""
        if level.extras or (level.made and not self._options.dry_run):
            self._contents.after(functools.partial(self._finish_directory, level))

    def _finish_directory(self, level: _Level) -> None:
        if level.extras:
            self._delete(level)
        if self._options.dry_run or not level.made:
            return
        path = b"/" + level.path
        try:
            descriptor = self._directories.descriptor(level.path)
            if level.attributes is not None:
                metadata.apply(descriptor, level.attributes, self._losses, path)
            elif level.mode >= 0 and stat.S_IMODE(os.fstat(descriptor).st_mode) != level.mode:
                os.chmod(descriptor, level.mode)
        except OSError as error:
            raise restore_files.target_error(error, self._target + path) from error

    # --- what the snapshot lacks ----------------------------------------------------------------------------------

    def _delete(self, level: _Level) -> None:
        select = self._options.select
        directory = self._directories.descriptor(level.path)
        for name in level.extras:
            path = join(level.path, name)
            self._directories.forget(path)
            self._deleted += restore_existing.remove(
                directory,
                name,
                b"/" + path,
                lambda below, is_dir: select is None or select(below, is_dir).take,
                lambda below, error: self._warn(below, f"could not be removed: {error.strerror}"),
                dry_run=self._options.dry_run,
            )

    # --- entries --------------------------------------------------------------------------------------------------

    def _add_file(self, level: _Level, name: bytes, node: NodeJSON) -> None:
        self._files += 1
        content = node.content or []
        link: _Link | None = None
        key: tuple[int, int, int, int] | None = None
        if node.links > 1 and node.inode:
            key = (node.device_id, node.inode, node.size, hash(tuple(content)))
            link = self._links.get(key)
        attributes = self._attributes(node, level, name)
        status = None if level.fresh else self._status(level, name)
        action = Action.MAKE
        if status is not None:
            writable = self._privileged or bool(status.st_mode & 0o200)
            action = decide(self._options.overwrite, "file", node.size, attributes.mtime, status, writable)
        if link is None:
            self._bytes += node.size
        if action is Action.SKIP:
            self._contents.tally.skipped += 1
            if link is None:
                self._contents.tally.bytes_skipped += node.size
            self._tell(1, 0 if link is not None else node.size)
            return
        if link is not None and key is not None:
            link.remaining -= 1
            if not link.remaining:
                del self._links[key]
            self._contents.after(functools.partial(self._make_link, link, level.path, name, status))
            return
        if key is not None:
            self._links[key] = _Link(level.path, name, node.links - 1)
        if action is Action.KEEP:
            assert status is not None
            self._contents.tally.unchanged += 1
            self._contents.tally.bytes_skipped += node.size
            self._tell(1, node.size)
            if not self._options.dry_run:
                self._amend(level, name, status, attributes)
        elif action is Action.COMPARE:
            assert status is not None
            identity = (status.st_dev, status.st_ino)
            self._contents.add(File(level.path, name, attributes, identity, status.st_size), content)
        else:
            self._contents.add(File(level.path, name, attributes), content)

    def _amend(self, level: _Level, name: bytes, status: os.stat_result, wanted: Attributes) -> None:
        """Give a file whose content is taken as equal what else it lacks."""
        if (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) != (wanted.uid, wanted.gid, wanted.mode):
            with self._entry(level, name) as place:
                metadata.apply(place, wanted, self._losses, b"/" + join(level.path, name))

    def _make_link(self, first: _Link, directory: bytes, name: bytes, status: os.stat_result | None) -> None:
        try:
            if status is not None or not self._options.dry_run:
                source = self._directories.descriptor(first.directory)
                found = os.stat(first.name, dir_fd=source, follow_symlinks=False) if status is not None else None
                same = status is not None and found is not None and os.path.samestat(status, found)
                self._links_kept += same
                self._links_made += not same
                if not same and not self._options.dry_run:
                    place = self._directories.descriptor(directory)
                    source = self._directories.descriptor(first.directory)
                    if status is not None:
                        restore_files.clear(place, name)
                    os.link(first.name, name, src_dir_fd=source, dst_dir_fd=place, follow_symlinks=False)
            else:
                self._links_made += 1
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._warn(b"/" + join(directory, name), f"could not be made a hard link: {error.strerror}")
        self._tell(1, 0)

    def _make_special(self, level: _Level, name: bytes, node: NodeJSON) -> None:
        path = b"/" + join(level.path, name)
        if node.type not in _KINDS:
            self._warn(path, f"a {node.type}, which cannot be restored")
            return
        wanted = self._attributes(node, level, name)
        status = self._status(level, name)
        action = decide(self._options.overwrite, node.type, 0, wanted.mtime, status, True)
        if action is Action.SKIP or self._options.dry_run:
            return
        try:
            directory = self._directories.descriptor(level.path)
            target = _linktarget(node)
            same = (
                status is not None
                and node.type == "symlink"
                and stat.S_ISLNK(status.st_mode)
                and os.readlink(name, dir_fd=directory) == target
            )
            if not same:
                if status is not None:
                    restore_files.clear(directory, name)
                if node.type == "symlink":
                    os.symlink(target, name, dir_fd=directory)
                elif node.type == "fifo":
                    os.mkfifo(name, 0o600, dir_fd=directory)
                else:
                    os.mknod(name, 0o600 | _KINDS[node.type], node.device, dir_fd=directory)
            with self._entry(level, name, _KINDS[node.type]) as place:
                metadata.apply(place, wanted, self._losses, path, link=node.type == "symlink")
        except PermissionError as error:
            if node.type not in ("dev", "chardev"):
                raise restore_files.target_error(error, self._target + path) from error
            self._losses.add("device", path)
        except (ValueError, OverflowError) as error:
            shown = os.fsdecode(self._target + path)
            raise UnsafeName(f"restoring {shown!r}: it points nowhere a link could point: {error}") from error
        except OSError as error:
            raise restore_files.target_error(error, self._target + path) from error

    def _entry(self, level: _Level, name: bytes, kind: int | None = None) -> _Entry:
        """What leads to just this entry of a directory, whatever it is, for one block."""
        return _Entry(self._directories.descriptor(level.path), name, kind)

    # --- telling --------------------------------------------------------------------------------------------------

    def _tell_portion(self, portion: Portion) -> None:
        self._tell(portion.finishes, portion.size)

    def _tell(self, files: int, size: int, *, force: bool = False) -> None:
        with self._mutex:
            self._told_files += files
            self._told_bytes += size
            if self._progress is None:
                return
            at = time.monotonic()
            if not force and at - self._told <= _PROGRESS_SECONDS:
                return
            self._told = at
            progress = Progress(self._told_files, self._told_bytes, *self._totals)
        self._progress(progress)

    def _warn(self, path: bytes, message: str) -> None:
        self._warning_count += 1
        if len(self._warnings) < WARNINGS:
            self._warnings.append(Warning(path.decode("utf-8", "replace"), message))


class _Entry:
    """An entry that is open without being read: a path that leads to it and to nothing else."""

    def __init__(self, directory: int, name: bytes, kind: int | None) -> None:
        self._descriptor = os.open(name, _PATH, dir_fd=directory)
        if kind is not None and stat.S_IFMT(os.fstat(self._descriptor).st_mode) != kind:
            os.close(self._descriptor)
            raise OSError(errno.ELOOP, "it was replaced while it was restored", name)

    def __enter__(self) -> bytes:
        return metadata.through(self._descriptor)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _name(node: NodeJSON, last: bytes, tree_id: str, shown: str) -> bytes:
    """A node's name on disk. `last`: the name before it, which is less: so no name comes twice.

    Whoever writes trees sorts them, restic at all times. Raises UnsafeName.
    """
    try:
        text = tree.unquote(node.name)
    except ValueError as error:
        raise Corrupted(f"tree {tree_id} holds a node that cannot be read: {error}") from error
    try:
        name = tree.name_bytes(text)
    except ValueError:
        name = b""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        fault = "which could lead elsewhere"
    elif name <= last:
        fault = "which comes twice" if name == last else "which is out of order and may come twice"
    else:
        return name
    raise UnsafeName(
        f"restoring into {shown!r}: tree {tree_id} holds the name {text!r}, {fault}; it was made by a hostile or broken"
        " program, so the restore stops here"
    )


def _linktarget(node: NodeJSON) -> bytes:
    if node.linktarget_raw is not None:
        return node.linktarget_raw
    return node.linktarget.encode("utf-8", "surrogateescape")
