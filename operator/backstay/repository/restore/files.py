"""Files as they come into being: made, filled piece by piece with holes left out, and finished."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from backstay.repository.errors import NoSpace, RepositoryError, TargetError

HOLE = 64 << 10  # aligned runs of zeros of this size are left as holes
_ZEROS = bytes(HOLE)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REOPEN = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Occupied(Exception):  # noqa: N818  (not an error: an answer)
    """What stands in a file's place may not be replaced."""


def create(directory: int, name: bytes, mode: int, *, replace: bool) -> int:
    """A descriptor of a new, empty file. What stands in its place goes first, or raises Occupied."""
    while True:
        try:
            return os.open(name, _CREATE, mode, dir_fd=directory)
        except FileExistsError:
            if not replace:
                raise Occupied from None
            clear(directory, name)


def reopen(directory: int, name: bytes, identity: tuple[int, int]) -> int:
    """A descriptor of the file that was there before. Raises TargetError when it is another one by now."""
    descriptor = os.open(name, _REOPEN, dir_fd=directory)
    status = os.fstat(descriptor)
    if (status.st_dev, status.st_ino) != identity or not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise TargetError(
            f"restoring {os.fsdecode(name)}: somebody replaced the file while it was written; restore into a directory"
            " that nobody else changes"
        )
    return descriptor


def open_to_read(directory: int, name: bytes) -> int:
    """A descriptor of a plain file. Raises OSError when it is none."""
    descriptor = os.open(name, _READ, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file")
    return descriptor


def clear(directory: int, name: bytes) -> None:
    """Remove what stands in the place. Raises OSError when it is a directory with something in it."""
    with suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            os.rmdir(name, dir_fd=directory)


def write(descriptor: int, data: bytes, offset: int) -> None:
    """All of `data`, at `offset`."""
    written = os.pwrite(descriptor, data, offset)
    if written < len(data):
        view = memoryview(data)
        while written < len(data):
            written += os.pwrite(descriptor, view[written:], offset + written)


def write_sparse(descriptor: int, data: bytes, offset: int) -> bool:
    """Write data but for aligned runs of zeros, which stay holes; whether there were any."""
    size = len(data)
    if size < HOLE:
        write(descriptor, data, offset)
        return False
    start = 0
    sparse = False
    position = -offset % HOLE
    while position + HOLE <= size:
        if data.startswith(_ZEROS, position):
            if start < position:
                write(descriptor, data[start:position], offset + start)
            start = position + HOLE
            sparse = True
        position += HOLE
    if not sparse:
        write(descriptor, data, offset)
    elif start < size:
        write(descriptor, data[start:], offset + start)
    return sparse


def target_error(error: OSError, path: bytes) -> RepositoryError:
    """What to tell of an error of the file system at `path`."""
    shown = os.fsdecode(path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"restoring {shown}: the volume is full; give the claim more room and restore again")
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return TargetError(
            f"restoring {shown}: a link or a file stands where a directory was; restore into a directory that nobody"
            " else changes"
        )
    if error.errno == errno.ENOTEMPTY:
        return TargetError(
            f"restoring {shown}: a directory with something in it stands where this should be; remove it, or restore"
            " with --delete"
        )
    return TargetError(f"restoring {shown}: {error.strerror}; check the mount and this user's rights")
