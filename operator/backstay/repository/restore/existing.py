"""What is done with what stands in a restored entry's place, and what is removed because the snapshot lacks it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple, get_args

Overwrite = Literal["always", "if-changed", "if-newer", "never"]
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = 64  # directories that stay open at once while a tree is removed
MODES: tuple[str, ...] = get_args(Overwrite)


class Choice(NamedTuple):
    """Whether a restore takes a path, and whether it looks for more below it. Parents of what is taken are made."""

    take: bool
    descend: bool


Select = Callable[[bytes, bool], Choice]
"""The choice for a path, relative to the root of the tree and beginning with a slash, of a directory or not."""


@dataclass(frozen=True)
class Options:
    """How a restore treats what is there; see Repository.restore. Raises ValueError for an `overwrite` that is none."""

    overwrite: Overwrite = "always"
    delete: bool = False
    select: Select | None = None
    verify: bool = False
    dry_run: bool = False
    sparse: bool = True

    def __post_init__(self) -> None:
        if self.overwrite not in MODES:
            raise ValueError(f"overwrite is one of {', '.join(MODES)}, not {self.overwrite!r}")

    @property
    def replace(self) -> bool:
        """Whether anything that stands in a place may go."""
        return self.overwrite != "never"


class Action(Enum):
    """What happens to one entry. KEEP: content is taken as equal; SKIP: what stands there stays as it is."""

    MAKE = "make"
    COMPARE = "compare"
    KEEP = "keep"
    SKIP = "skip"


def decide(
    overwrite: Overwrite, kind: str, size: int, mtime: int, status: os.stat_result | None, writable: bool
) -> Action:
    """What to do for an entry of type `kind` where `status` (of the thing itself, not of what it links to) stands.

    `mtime`: of the snapshot's entry, in nanoseconds. `writable`: whether this process may write into what stands there.
    Only a plain file with one name is compared and written into: another name of it may be somebody else's.
    """
    if status is None:
        return Action.MAKE
    if overwrite == "never" or (overwrite == "if-newer" and mtime <= status.st_mtime_ns):
        return Action.SKIP
    if kind != "file" or not stat.S_ISREG(status.st_mode):
        return Action.MAKE
    if overwrite == "if-changed" and status.st_size == size and status.st_mtime_ns == mtime:
        return Action.KEEP
    if status.st_nlink != 1 or not writable:
        return Action.MAKE
    return Action.COMPARE


def remove(
    directory: int,
    name: bytes,
    path: bytes,
    take: Callable[[bytes, bool], bool],
    refused: Callable[[bytes, OSError], None],
    *,
    dry_run: bool = False,
) -> int:
    """Remove an entry and all that is below it as far as `take` allows; returns how many entries went.

    `path`: of the entry, for `take` and `refused`. No link is followed, and what is mounted below stays.
    """
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            return _unlink(directory, name, path, take, dry_run)
        return _remove_tree(directory, name, path, status.st_dev, take, refused, dry_run)
    except OSError as error:
        refused(path, error)
        return 0


def _unlink(directory: int, name: bytes, path: bytes, take: Callable[[bytes, bool], bool], dry_run: bool) -> int:
    if not take(path, False):
        return 0
    if not dry_run:
        os.unlink(name, dir_fd=directory)
    return 1


class _Open:
    """A directory that is being emptied, and what is left to do in it. Far above the deepest it is closed meanwhile."""

    def __init__(self, descriptor: int, name: bytes, path: bytes) -> None:
        status = os.fstat(descriptor)
        self.descriptor = descriptor
        self.identity = (status.st_dev, status.st_ino)
        self.name = name
        self.path = path
        self.whole = True  # nothing stays
        with os.scandir(descriptor) as entries:
            self.entries = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def back_from(self, child: _Open) -> None:
        """Be open again. Raises OSError when the child was moved away meanwhile."""
        if self.descriptor >= 0:
            return
        descriptor = os.open("..", _ENTER, dir_fd=child.descriptor)
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != self.identity:
            os.close(descriptor)
            raise OSError(errno.ESTALE, "it was moved while it was removed")
        self.descriptor = descriptor


def _remove_tree(
    directory: int, name: bytes, path: bytes, device: int, take: Callable[[bytes, bool], bool],
    refused: Callable[[bytes, OSError], None], dry_run: bool,
) -> int:  # fmt: skip
    if os.fstat(directory).st_dev != device:
        raise OSError(errno.EBUSY, "something is mounted there")
    count = 0
    stack = [_Open(os.open(name, _ENTER, dir_fd=directory), name, path)]
    try:
        while stack:
            here = stack[-1]
            if here.entries:
                entry, is_directory = here.entries.pop()
                below = here.path + b"/" + entry
                try:
                    if is_directory:
                        stack.append(_enter(here, entry, below, device))
                        if len(stack) > _OPEN:
                            stack[-_OPEN].close()
                    elif _unlink(here.descriptor, entry, below, take, dry_run):
                        count += 1
                    else:
                        here.whole = False
                except OSError as error:
                    here.whole = False
                    refused(below, error)
            else:
                if len(stack) > 1:
                    stack[-2].back_from(here)
                gone = here.whole and take(here.path, True)
                try:
                    if gone and not dry_run:
                        os.rmdir(here.name, dir_fd=stack[-2].descriptor if len(stack) > 1 else directory)
                except OSError as error:
                    gone = False
                    refused(here.path, error)
                count += gone
                here.close()
                stack.pop()
                if stack and not gone:
                    stack[-1].whole = False
    finally:
        for opened in stack:
            opened.close()
    return count


def _enter(here: _Open, name: bytes, path: bytes, device: int) -> _Open:
    descriptor = os.open(name, _ENTER, dir_fd=here.descriptor)
    if os.fstat(descriptor).st_dev != device:
        os.close(descriptor)
        raise OSError(errno.EBUSY, "something is mounted there")
    return _Open(descriptor, name, path)
