"""The directories that a restore walks through: made when something goes into them, finished when all in them is done.

They get their modes and times last, since a read-only one could not be filled and filling changes its times. Then what
the snapshot lacks is removed from them too.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from backstay.repository.directories import Directories, join
from backstay.repository.format.tree import NodeJSON
from backstay.repository.restore import existing as restore_existing
from backstay.repository.restore import metadata
from backstay.repository.restore.contents import Contents
from backstay.repository.restore.existing import Action, Options, decide
from backstay.repository.restore.files import target_error
from backstay.repository.restore.metadata import Attributes
from backstay.repository.restore.report import Report


class Level:
    """A directory on the way of the walk.

    `path`: relative to the target. `nodes`: of its tree, which are still to come. `made`: it is there. `fresh`: nothing
    was in it before. `refused`: something else stands there and stays. `attributes`: what it gets in the end, None for
    nothing; `mode`: what it gets back instead. `extras`: what is to be removed from it.
    """

    __slots__ = (
        "attributes", "extras", "fresh", "made", "mode", "name", "nodes", "parent", "path", "refused",
    )  # fmt: skip

    def __init__(self, parent: Level | None, name: bytes, attributes: Attributes | None) -> None:
        self.parent = parent
        self.name = name
        self.path: bytes = join(parent.path, name) if parent is not None else b""
        self.attributes = attributes
        self.nodes: Iterator[tuple[bytes, NodeJSON]] = iter(())
        self.made = self.fresh = self.refused = False
        self.mode = -1
        self.extras: list[bytes] = []


class Levels:
    """Makes, finishes and tidies the directories of one restore."""

    def __init__(self, directories: Directories, contents: Contents, report: Report, options: Options) -> None:
        self._directories = directories
        self._contents = contents
        self._report = report
        self._options = options

    def ensure(self, level: Level) -> bool:
        """Let the directory be there, and those above it; whether it is."""
        chain = []
        at: Level | None = level
        while at is not None and not at.made:
            chain.append(at)
            at = at.parent
        for at in reversed(chain):
            if at.refused or (at.parent is not None and at.parent.refused):
                at.refused = True
                return False
            try:
                self._make(at)
            except OSError as error:
                raise target_error(error, self._directories.shown(at.path)) from error
            if at.refused:
                return False
        return not level.refused

    def _make(self, level: Level) -> None:
        parent = level.parent
        assert parent is not None
        status = None if parent.fresh else self._directories.status(parent.path, level.name)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            mtime = level.attributes.mtime if level.attributes is not None else 0
            if decide(self._options.overwrite, "dir", 0, mtime, status, True) is Action.SKIP:
                what = "was not restored: what stands in the directory's place was to be kept"
                self._report.warn(b"/" + level.path, what)
                level.refused = True
                return
        level.made = True
        self._report.dirs += 1
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
            with suppress(PermissionError), self._directories.entry(parent.path, level.name) as place:
                os.chmod(place, status.st_mode & 0o7777 | 0o700)
        if not self._options.replace:
            level.attributes, level.mode = None, stat.S_IMODE(status.st_mode)

    def entries(self, level: Level) -> deque[bytes]:
        """The names in the directory as it was before, in order."""
        try:
            with os.scandir(self._directories.descriptor(level.path)) as entries:
                return deque(sorted(os.fsencode(entry.name) for entry in entries))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # it is not there (yet)
                return deque()
            raise target_error(error, self._directories.shown(level.path)) from error

    def leave(self, level: Level) -> None:
        """The walk is through with a directory; it is finished when the files in it are."""
        if level.extras or (level.made and not self._options.dry_run):
            self._contents.after(functools.partial(self._finish, level))

    def _finish(self, level: Level) -> None:
        if level.extras:
            self._delete(level)
        if self._options.dry_run or not level.made:
            return
        try:
            descriptor = self._directories.descriptor(level.path)
            if level.attributes is not None:
                metadata.apply(descriptor, level.attributes, self._report.losses, b"/" + level.path)
            elif level.mode >= 0 and stat.S_IMODE(os.fstat(descriptor).st_mode) != level.mode:
                os.chmod(descriptor, level.mode)
        except OSError as error:
            raise target_error(error, self._directories.shown(level.path)) from error

    def _delete(self, level: Level) -> None:
        select = self._options.select
        directory = self._directories.descriptor(level.path)
        for name in level.extras:
            path = join(level.path, name)
            self._directories.forget(path)
            self._report.deleted += restore_existing.remove(
                directory,
                name,
                b"/" + path,
                lambda below, is_dir: select is None or select(below, is_dir).take,
                lambda below, error: self._report.warn(below, f"could not be removed: {error.strerror}"),
                dry_run=self._options.dry_run,
            )
