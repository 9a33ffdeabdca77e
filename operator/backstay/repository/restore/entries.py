"""What a restore does with an entry that is no directory: files, further names of them, and everything special."""

from __future__ import annotations

import errno
import functools
import os
import stat

from backstay.repository.directories import Directories, join
from backstay.repository.errors import Corrupted, UnsafeName
from backstay.repository.format.tree import NodeJSON
from backstay.repository.restore import metadata
from backstay.repository.restore.contents import Contents
from backstay.repository.restore.existing import Action, Options, decide
from backstay.repository.restore.files import clear, target_error
from backstay.repository.restore.levels import Level
from backstay.repository.restore.metadata import Attributes
from backstay.repository.restore.plan import File
from backstay.repository.restore.report import Report

_KINDS = {"symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO, "dev": stat.S_IFBLK, "chardev": stat.S_IFCHR}


class _Link:
    """A file of which further names are expected."""

    __slots__ = ("directory", "file", "name", "remaining")

    def __init__(self, directory: bytes, name: bytes, remaining: int) -> None:
        self.file: File | None = None  # that is still to be written
        self.directory = directory
        self.name = name
        self.remaining = remaining


class Entries:
    """Restores one entry after the other. Directories are there already."""

    def __init__(self, directories: Directories, contents: Contents, report: Report, options: Options) -> None:
        self._directories = directories
        self._contents = contents
        self._report = report
        self._options = options
        self._privileged = os.geteuid() == 0
        self._links: dict[tuple[int, int, int, int], _Link] = {}

    def restore(self, level: Level, name: bytes, node: NodeJSON) -> None:
        """Restore the entry `name` of a directory, or have it restored soon."""
        if node.type == "file":
            self._file(level, name, node)
        elif node.type in _KINDS:
            self._special(level, name, node)
        else:
            self._report.warn(b"/" + join(level.path, name), f"a {node.type}, which cannot be restored")

    # --- files ----------------------------------------------------------------------------------------------------

    def _file(self, level: Level, name: bytes, node: NodeJSON) -> None:
        report = self._report
        report.files += 1
        content = node.content or []
        link = key = None
        if node.links > 1 and node.inode:
            key = (node.device_id, node.inode, node.size, hash(tuple(content)))
            link = self._links.get(key)
        size = node.size if link is None else 0
        report.bytes += size
        wanted = attributes(level, name, node)
        status = None if level.fresh else self._status(level, name)
        action = Action.MAKE
        if status is not None:
            writable = self._privileged or bool(status.st_mode & 0o200)
            action = decide(self._options.overwrite, "file", node.size, wanted.mtime, status, writable)
        if action is Action.SKIP:
            report.skip(size)
            return
        if link is not None and key is not None:
            link.remaining -= 1
            if not link.remaining:
                del self._links[key]
            self._contents.after(functools.partial(self._link, link, level.path, name, status))
            return
        if key is not None:
            link = self._links[key] = _Link(level.path, name, node.links - 1)
        if status is None or action is Action.MAKE:
            file = File(level.path, name, wanted)
        elif action is Action.COMPARE:
            file = File(level.path, name, wanted, (status.st_dev, status.st_ino), status.st_size)
        else:
            report.files_unchanged += 1
            report.bytes_skipped += size
            report.tell(1, size)
            self._amend(level, name, status, wanted)
            return
        if link is not None:
            link.file = file
        self._contents.add(file, content)

    def _amend(self, level: Level, name: bytes, status: os.stat_result, wanted: Attributes) -> None:
        """Give a file whose content is taken as equal what else it lacks."""
        same = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (wanted.uid, wanted.gid, wanted.mode)
        if not same and not self._options.dry_run:
            with self._directories.entry(level.path, name) as place:
                metadata.apply(place, wanted, self._report.losses, b"/" + join(level.path, name))

    def _link(self, first: _Link, directory: bytes, name: bytes, status: os.stat_result | None) -> None:
        """Make a further name of a file that is restored by now. `status`: of what stands there."""
        report = self._report
        if first.file is not None and first.file.fault:
            shown = os.fsdecode(b"/" + join(first.directory, first.name))
            report.damage(
                b"/" + join(directory, name), f"it is not restored: another name of {shown}, which is damaged"
            )
            report.tell(1, 0)
            return
        try:
            found = self._directories.status(first.directory, first.name) if status is not None else None
            if status is not None and found is not None and os.path.samestat(status, found):
                report.files_unchanged += 1
            else:
                report.files_restored += 1
                if not self._options.dry_run:
                    if status is not None:
                        clear(self._directories.descriptor(directory), name)
                    source = self._directories.descriptor(first.directory)
                    place = self._directories.descriptor(directory)
                    os.link(first.name, name, src_dir_fd=source, dst_dir_fd=place, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            report.warn(b"/" + join(directory, name), f"could not be made a hard link: {error.strerror}")
        report.tell(1, 0)

    # --- links, fifos and devices ---------------------------------------------------------------------------------

    def _special(self, level: Level, name: bytes, node: NodeJSON) -> None:
        wanted = attributes(level, name, node)
        status = None if level.fresh else self._status(level, name)
        action = decide(self._options.overwrite, node.type, 0, wanted.mtime, status, True)
        if action is Action.SKIP or self._options.dry_run:
            return
        path = b"/" + join(level.path, name)
        is_link = node.type == "symlink"
        try:
            if not (is_link and self._links_to(level, name, status, _linktarget(node))):
                if status is not None:
                    clear(self._directories.descriptor(level.path), name)
                self._make(self._directories.descriptor(level.path), name, node)
            with self._directories.entry(level.path, name, _KINDS[node.type]) as place:
                metadata.apply(place, wanted, self._report.losses, path, link=is_link)
        except (ValueError, OverflowError) as error:
            shown = os.fsdecode(self._directories.target + path)
            raise UnsafeName(f"restoring {shown!r}: it points nowhere a link could point: {error}") from error
        except OSError as error:
            if isinstance(error, PermissionError) and node.type in ("dev", "chardev"):
                self._report.losses.add("device", path)
                return
            raise target_error(error, self._directories.target + path) from error

    def _links_to(self, level: Level, name: bytes, status: os.stat_result | None, target: bytes) -> bool:
        if status is None or not stat.S_ISLNK(status.st_mode):
            return False
        return os.readlink(name, dir_fd=self._directories.descriptor(level.path)) == target

    def _make(self, directory: int, name: bytes, node: NodeJSON) -> None:
        if node.type == "symlink":
            os.symlink(_linktarget(node), name, dir_fd=directory)
        elif node.type == "fifo":
            os.mkfifo(name, 0o600, dir_fd=directory)
        else:
            os.mknod(name, 0o600 | _KINDS[node.type], node.device, dir_fd=directory)

    def _status(self, level: Level, name: bytes) -> os.stat_result | None:
        try:
            return self._directories.status(level.path, name)
        except OSError as error:
            raise target_error(error, self._directories.shown(join(level.path, name))) from error


def attributes(level: Level, name: bytes, node: NodeJSON) -> Attributes:
    """What an entry is given besides its content. Raises Corrupted."""
    try:
        return metadata.of_raw(node)
    except ValueError as error:
        shown = os.fsdecode(join(level.path, name))
        raise Corrupted(f"the node of {shown!r} in the snapshot cannot be read: {error}") from error


def _linktarget(node: NodeJSON) -> bytes:
    if node.linktarget_raw is not None:
        return node.linktarget_raw
    return node.linktarget.encode("utf-8", "surrogateescape")
