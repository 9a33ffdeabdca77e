"""Directories below a restore's target, reached one name after the other.

A path that is resolved anew for each call could be turned elsewhere between two of them, by a link that somebody plants
in the target or that the restored tree itself holds. So each directory is opened by its name in its parent's
descriptor, never through a link, and everything is done in descriptors. Paths may then be of any length and depth.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

_OPEN = 64  # directories that stay open at once
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Directories:
    """Descriptors of directories by their path relative to the root. For one thread."""

    def __init__(self, root: int, target: bytes) -> None:
        """`root`: a descriptor of the target, which stays the caller's; -1 when there is none, in a dry run."""
        self.target = target
        self._root = root
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def descriptor(self, path: bytes) -> int:
        """Of the directory at `path`; it stays valid for as long as few others are asked for."""
        if not path:
            return self._root
        found = self._open.get(path)
        if found is not None:
            self._open.move_to_end(path)
            return found
        cut = path.rfind(b"/")
        while cut > 0 and path[:cut] not in self._open:
            cut = path.rfind(b"/", 0, cut)
        parent = self._open[path[:cut]] if cut > 0 else self._root
        if cut > 0:
            self._open.move_to_end(path[:cut])
        for name in path[cut + 1 :].split(b"/"):
            parent = os.open(name, _FLAGS, dir_fd=parent)
            cut = cut + 1 + len(name)
            self._open[path[:cut]] = parent
            if len(self._open) > _OPEN:
                os.close(self._open.popitem(last=False)[1])
        return parent

    def status(self, path: bytes, name: bytes) -> os.stat_result | None:
        """Of what stands there under a name in the directory at `path`; None when nothing does."""
        try:
            return os.stat(name, dir_fd=self.descriptor(path), follow_symlinks=False)
        except FileNotFoundError:
            return None

    @contextmanager
    def entry(self, path: bytes, name: bytes, kind: int | None = None) -> Iterator[bytes]:
        """What leads to just this entry and to nothing else, for one block; the entry is open without being read.

        `kind`: the file type that it must have. Raises OSError when it has another.
        """
        descriptor = os.open(name, _PATH, dir_fd=self.descriptor(path))
        try:
            if kind is not None and stat.S_IFMT(os.fstat(descriptor).st_mode) != kind:
                raise OSError(errno.ELOOP, "it was replaced while it was restored", name)
            yield b"/proc/self/fd/%d" % descriptor
        finally:
            os.close(descriptor)

    def shown(self, path: bytes) -> bytes:
        """The path of what lies at `path` in the target, for telling only."""
        return join(self.target, path) if path else self.target

    def forget(self, path: bytes) -> None:
        """Close the directory at `path`, which is about to go or to be made anew."""
        found = self._open.pop(path, None)
        if found is not None:
            os.close(found)

    def close(self) -> None:
        """Close all but the root."""
        while self._open:
            os.close(self._open.popitem()[1])


def join(directory: bytes, name: bytes) -> bytes:
    """The path of `name` in `directory`."""
    return directory + b"/" + name if directory else name
