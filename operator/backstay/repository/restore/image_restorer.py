"""Writing one file's content to a block device or a file, and only where it differs from what is there.

What is there is read and hashed first, so a device that is nearly right is written nearly nowhere: that is kind to thin
volumes and to flash, and it makes a broken restore resumable. Within a blob that differs, only the pieces that differ
are written.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from backstay.repository.archive.single_file import ID
from backstay.repository.errors import Corrupted, NoSpace, TargetError
from backstay.repository.format.blob import BlobType
from backstay.repository.format.crypto import OVERHEAD
from backstay.repository.outcome import Progress, Restoration
from backstay.repository.parallel import ordered
from backstay.repository.reader import parse_id

if TYPE_CHECKING:
    from backstay.repository.format.tree import Node
    from backstay.repository.reader import Reader

WORKERS = 3
AHEAD = 6
PART = 8 << 20  # bytes that are no zeros and that one worker takes at once, one blob at least
PART_BLOBS = 64
PIECE = 64 << 10  # bytes that are compared and written together
MAX_BLOB = 512 << 20  # bytes; nobody writes blobs near that
_PROGRESS_SECONDS = 0.25
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16  # of fallocate(2)
_ZERO_PIECE = bytes(PIECE)


@dataclass(frozen=True)
class ImageRestoration(Restoration):
    """`bytes` is the image's size. `written`: bytes that differed and were written; `zeroed`: that were made zeros."""

    written: int = 0
    zeroed: int = 0


@dataclass(frozen=True)
class _Part:
    """Adjoining blobs: `first` to `end` (exclusive), where `offset` is the first one's place in the target."""

    first: int
    end: int
    offset: int
    size: int


class ImageRestorer:
    """One restore to one target."""

    def __init__(
        self,
        reader: Reader,
        node: Node,
        target: str,
        progress: Callable[[Progress], None] | None,
        *,
        sparse: bool,
    ) -> None:
        self._reader = reader
        self._node = node
        self._target = target
        self._progress = progress
        self._sparse = sparse
        self._ids = bytearray()
        self._lengths = array("Q")
        self._descriptor = -1
        self._is_device = False
        self._created = False
        self._zero_ids: dict[int, bytes] = {}
        self._zeroing = True  # until the kernel refuses to

    def run(self) -> ImageRestoration:
        """See `image.restore`."""
        self._plan()
        done = written = zeroed = 0
        told = time.monotonic()
        self._open()
        try:
            for part, wrote, made_zero in ordered(
                self._restore, self._parts(), threads=WORKERS, ahead=AHEAD, name="image"
            ):
                done += part.size
                written += wrote
                zeroed += made_zero
                if self._progress is not None and time.monotonic() - told > _PROGRESS_SECONDS:
                    told = time.monotonic()
                    self._progress(Progress(0, done, 1, self._node.size))
            os.fsync(self._descriptor)
            if self._created:
                _sync_directory(os.path.dirname(self._target) or ".")
        except OSError as error:
            raise self._error(error) from error
        finally:
            os.close(self._descriptor)
        if self._progress is not None:
            self._progress(Progress(1, self._node.size, 1, self._node.size))
        return ImageRestoration(files=1, bytes=self._node.size, written=written, zeroed=zeroed)

    # --- what is to be written ------------------------------------------------------------------------------------

    def _plan(self) -> None:
        node = self._node
        if node.type != "file":
            raise TargetError(f"restoring {node.name!r} to {self._target}: it is a {node.type}, not a file's content")
        what = f"the file {node.name!r}"
        size = 0
        for text in node.content or ():
            blob_id = parse_id(text, what)
            location = self._reader.locate(BlobType.DATA, blob_id)
            length = location.plain_length or location.length - OVERHEAD
            if not 0 < length <= MAX_BLOB:
                raise Corrupted(f"{what} has a blob of {length} bytes, {blob_id.hex()}, which nobody writes")
            self._ids += blob_id
            self._lengths.append(length)
            size += length
        if size != node.size:
            raise Corrupted(f"{what} is of {node.size} bytes, but its blobs hold {size}")
        for length, _ in Counter(self._lengths).most_common(4):  # an image of ours has no more
            self._zero_ids[length] = hashlib.sha256(bytes(length)).digest()

    def _parts(self) -> Iterator[_Part]:
        first = offset = size = work = 0
        for at, length in enumerate(self._lengths):
            if at > first and (work + length > PART or at - first == PART_BLOBS):
                yield _Part(first, at, offset, size)
                first, offset, size, work = at, offset + size, 0, 0
            size += length
            if self._id(at) != self._zero_ids.get(length):
                work += length
        if size:
            yield _Part(first, len(self._lengths), offset, size)

    def _id(self, at: int) -> bytes:
        return bytes(self._ids[at * ID : at * ID + ID])

    # --- the target -----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._open_target()
        except OSError as error:
            raise self._error(error) from error

    def _open_target(self) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            status = os.stat(self._target)
        except FileNotFoundError:
            self._descriptor = os.open(self._target, flags | os.O_CREAT | os.O_EXCL, 0o600)
            self._created = True
        else:
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
                raise TargetError(f"restoring to {self._target}: it is neither a block device nor a file")
            # Of a device O_EXCL asks that nobody has mounted it, of a file nothing.
            self._descriptor = os.open(self._target, flags | (os.O_EXCL if stat.S_ISBLK(status.st_mode) else 0))
        try:
            self._is_device = stat.S_ISBLK(os.fstat(self._descriptor).st_mode)
            self._fit()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _fit(self) -> None:
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        wanted = self._node.size
        if self._is_device:
            if size < wanted:
                raise TargetError(
                    f"restoring to {self._target}: the device has {size} bytes, the image {wanted}; take a larger one"
                )
            return
        if size != wanted:
            os.ftruncate(self._descriptor, wanted)
        if not self._sparse and wanted:
            os.posix_fallocate(self._descriptor, 0, wanted)

    # --- one part, by a worker ------------------------------------------------------------------------------------

    def _restore(self, part: _Part) -> tuple[_Part, int, int]:
        written = zeroed = 0
        wanted: list[bytes] = []
        places: list[tuple[int, bytes | None]] = []
        offset = part.offset
        for at in range(part.first, part.end):
            blob_id, length = self._id(at), self._lengths[at]
            current = self._current(offset, length)
            if blob_id == self._zero_ids.get(length):
                if current is not None:
                    self._zero(offset, length)
                    zeroed += length
            elif current is None or hashlib.sha256(current).digest() != blob_id:
                wanted.append(blob_id)
                places.append((offset, current))
            offset += length
        for data, (place, current) in zip(self._reader.contents(wanted), places, strict=True):
            wrote, made_zero = self._update(place, data, current)
            written += wrote
            zeroed += made_zero
        return part, written, zeroed

    def _current(self, offset: int, length: int) -> bytes | None:
        """What stands in the target; None: zeros."""
        if not self._is_device:
            try:
                if os.lseek(self._descriptor, offset, os.SEEK_DATA) >= offset + length:
                    return None
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return None
        data = os.pread(self._descriptor, length, offset)
        while len(data) < length:
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                raise TargetError(f"restoring to {self._target}: somebody else made it smaller; let nobody else use it")
            data += more
        return data if _any_set(data) else None

    def _update(self, offset: int, data: bytes, current: bytes | None) -> tuple[int, int]:
        """Write the pieces that differ; bytes written, and bytes made zeros."""
        done = {False: 0, True: 0}
        run = range(0)  # of `data`, not written yet, all zeros or all not
        is_zero = False
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            empty = piece == _ZERO_PIECE[: len(piece)]
            if empty if current is None else piece == current[start : start + PIECE]:
                continue
            if run and (run.stop != start or empty != is_zero):
                done[is_zero] += self._put(offset, data, run, is_zero)
                run = range(0)
            run = range(run.start if run else start, start + len(piece))
            is_zero = empty
        if run:
            done[is_zero] += self._put(offset, data, run, is_zero)
        return done[False], done[True]

    def _put(self, offset: int, data: bytes, run: range, is_zero: bool) -> int:
        if is_zero:
            self._zero(offset + run.start, len(run))
        else:
            self._write(offset + run.start, memoryview(data)[run.start : run.stop])
        return len(run)

    def _write(self, offset: int, view: memoryview) -> None:
        while view:
            count = os.pwrite(self._descriptor, view, offset)
            view = view[count:]
            offset += count

    def _zero(self, offset: int, length: int) -> None:
        """Make zeros of a range: a hole where that is wanted and can be, else by the kernel, else by writing them."""
        for mode in (_PUNCH_HOLE, _ZERO_RANGE) if self._sparse else (_ZERO_RANGE,):
            if self._zeroing and _fallocate()(self._descriptor, mode | _KEEP_SIZE, offset, length) == 0:
                return
        self._zeroing = self._zeroing and ctypes.get_errno() not in (errno.EOPNOTSUPP, errno.ENOSYS)
        zeros = memoryview(_ZERO_PIECE)
        for at in range(0, length, PIECE):
            self._write(offset + at, zeros[: min(PIECE, length - at)])

    def _error(self, error: OSError) -> TargetError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return NoSpace(
                f"restoring to {self._target}: there is no room for an image of {self._node.size} bytes; make room and"
                " restore again: what is written already is not written twice"
            )
        if error.errno == errno.EBUSY:
            return TargetError(f"restoring to {self._target}: it is in use; unmount it and stop what uses it")
        return TargetError(f"restoring to {self._target}: {error.strerror}; check the device and this user's rights")


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _any_set(data: bytes) -> bool:
    """Whether any byte is not zero."""
    return any(data[at : at + PIECE] != _ZERO_PIECE[: len(data) - at] for at in range(0, len(data), PIECE))


@cache
def _fallocate() -> Callable[[int, int, int, int], Any]:
    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "fallocate64", library.fallocate)
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    found: Callable[[int, int, int, int], Any] = function
    return found
