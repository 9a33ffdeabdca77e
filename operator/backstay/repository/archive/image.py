"""A block device, or a raw image file, as one file of fixed blobs.

Blobs are cut at fixed places, so that a block written in the middle changes one blob. They are of 1 MiB up to 64 GiB,
then twice as large for each doubling, up to 8 MiB from 256 GiB on, and stay as large as the parent's, since blobs of
another size share nothing. What reads as zeros is one blob, named again and again, and holes that the file system tells
of are not even read. The format has no other way to say "hole", and no other way to say that a block did not change
than to hash it, so a device is read in full each time; only what changed is stored.

restic makes holes only in a file that names the blob which its own chunker makes of zeros, 512 KiB of them. So the
first block of zeros is said in such pieces, and the others, which restic then passes over as well, in one blob each.

All ids stand in one tree blob of 67 bytes for each: 9 MiB for 1 TiB, 137 MiB for 16 TiB, which is the limit here,
since whoever reads the tree, restic too, holds it and what it decodes to in memory.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from backstay.repository.archive.single_file import ID, Tally, save_tree
from backstay.repository.errors import Corrupted, SourceError, UnsafeName
from backstay.repository.format import tree
from backstay.repository.format.blob import BlobType
from backstay.repository.format.chunker import SPARSE_MARK
from backstay.repository.format.crypto import OVERHEAD
from backstay.repository.format.tree import Node
from backstay.repository.outcome import Archive, Progress, Warning
from backstay.repository.parallel import ordered
from backstay.repository.reader import parse_id
from backstay.repository.restore.image_restorer import ImageRestoration, ImageRestorer

if TYPE_CHECKING:
    from backstay.repository.archive.writer import Writer
    from backstay.repository.reader import Reader
    from backstay.repository.repository import Repository

MIB = 1 << 20
BLOB_SIZES = (1 * MIB, 2 * MIB, 4 * MIB, 8 * MIB)
BLOBS = 1 << 16  # from which on the next blob size is chosen
MAX_BLOBS = 1 << 21  # in one image: 16 TiB
WORKERS = 3  # each holds a blob, and what it compresses to
AHEAD = 6
_PROGRESS_SECONDS = 0.25
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def blob_size(size: int) -> int:
    """Bytes of each blob of an image of `size` bytes that has no parent."""
    return next((each for each in BLOB_SIZES if size <= each * BLOBS), BLOB_SIZES[-1])


def blob_size_after(reader: Reader, parent: Node | None, size: int) -> int:
    """Bytes of each blob of an image of `size` bytes: the parent's, if it was made here and these still fit."""
    if parent is not None and parent.type == "file" and parent.content and len(parent.content) > 1:
        with suppress(Corrupted):
            lengths = {_length(reader, text) for text in parent.content[:-1]} - {SPARSE_MARK}
            if len(lengths) == 1 and (each := lengths.pop()) in BLOB_SIZES and size <= each * MAX_BLOBS:
                return each
    return blob_size(size)


def _length(reader: Reader, blob_id: str) -> int:
    location = reader.locate(BlobType.DATA, parse_id(blob_id, "the parent"))
    return location.plain_length or location.length - OVERHEAD


def save(
    writer: Writer,
    path: str,
    *,
    name: str,
    parent: Node | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Archive:
    """Store the device or file `path` as the file `name`; nothing refers to it until a snapshot is committed.

    `parent`: the node of an earlier image of the same, of which the blobs' size is kept. The node's times, owner and
    permissions are those of `path`. Raises SourceError when it cannot be read, and UnsafeName.
    """
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(tree.name_bytes(name)) > 255:
        raise UnsafeName(f"storing an image as {name!r}: no file can be called so; choose another name")
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except OSError as error:
        raise SourceError(f"reading {path}: {error.strerror}; check the device and this user's rights") from error
    try:
        return _Saver(writer, path, descriptor, parent).run(name, progress)
    finally:
        os.close(descriptor)


def restore(
    repository: Repository,
    node: Node,
    target: str,
    *,
    progress: Callable[[Progress], None] | None = None,
    sparse: bool = True,
) -> ImageRestoration:
    """Write the content of the file `node` to a block device, or to a file, which is made when it is not there.

    What is there already is read first, and only what differs is written. `sparse`: what is zeros becomes holes in a
    file, and is discarded on a device that can; otherwise a file takes all of its size at once. A device may be larger
    than the image, and what lies behind it stays; a file gets the image's size. All is on disk at the end. Raises
    TargetError when the target is too small, mounted or cannot be written, NoSpace, and Corrupted.
    """
    return ImageRestorer(repository.ready(), node, target, progress, sparse=sparse).run()


class _Saver:
    """One reading of one device."""

    def __init__(self, writer: Writer, path: str, descriptor: int, parent: Node | None) -> None:
        self._writer = writer
        self._path = path
        self._descriptor = descriptor
        self._status = os.fstat(descriptor)
        if not (stat.S_ISREG(self._status.st_mode) or stat.S_ISBLK(self._status.st_mode)):
            raise SourceError(f"reading {path}: it is neither a block device nor a file")
        self._size = os.lseek(descriptor, 0, os.SEEK_END)
        self._each = blob_size_after(writer.reader, parent, self._size)
        self._count = -(-self._size // self._each)
        if self._count > MAX_BLOBS:
            raise SourceError(
                f"reading {path}: {self._size} bytes are more than the {MAX_BLOBS * self._each} that one image can"
                " hold; back up the file system instead, or divide the device"
            )
        self._zeros = bytes(self._each)
        self._is_new = parent is None
        self._short = False

    def run(self, name: str, progress: Callable[[Progress], None] | None) -> Archive:
        """Read, store, and give the archive."""
        tally = Tally(self._writer)
        zeros_id = hashlib.sha256(self._zeros).digest()
        ids = bytearray(zeros_id * self._count)
        stored = 0
        told = time.monotonic()
        for at, blob_id in ordered(self._store, self._with_data(), threads=WORKERS, ahead=AHEAD, name="image"):
            if blob_id:
                ids[at * ID : at * ID + ID] = blob_id
                stored += 1
            if progress is not None and time.monotonic() - told > _PROGRESS_SECONDS:
                told = time.monotonic()
                progress(Progress(0, min((at + 1) * self._each, self._size), 1, self._size))
        if stored < self._count:
            self._name_zeros(ids, zeros_id)
        warnings = self._changes()
        tree_id = save_tree(self._writer, self._node(name), ids)
        if progress is not None:
            progress(Progress(1, self._size, 1, self._size))
        return tally.archive(tree_id, self._size, is_new=self._is_new, warnings=warnings)

    def _name_zeros(self, ids: bytearray, zeros_id: bytes) -> None:
        """Store what stands for zeros, and say the first of them in pieces that restic knows."""
        at = next(at for at in range(0, len(ids), ID) if ids.startswith(zeros_id, at))
        mark = self._writer.save_blob(BlobType.DATA, self._zeros[:SPARSE_MARK])
        ids[at : at + ID] = mark * (self._each // SPARSE_MARK)
        if ids.find(zeros_id) >= 0:
            self._writer.save_blob(BlobType.DATA, self._zeros)

    def _with_data(self) -> Iterator[int]:
        """Numbers of the blobs that are not all hole, as far as the kernel tells."""
        whole = self._size // self._each  # what is left behind these is no blob of zeros, but a shorter one
        at = 0
        while at < whole:
            start, end = self._extent(at * self._each)
            first = min(start // self._each, whole)
            at = min(max(-(-end // self._each), first), whole)
            yield from range(first, at)
        yield from range(whole, self._count)

    def _extent(self, offset: int) -> tuple[int, int]:
        """Where the next data begin, and where the hole behind them."""
        try:
            start = os.lseek(self._descriptor, offset, os.SEEK_DATA)
            return start, os.lseek(self._descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                return self._size, self._size
            return offset, self._size  # the file system cannot tell

    def _store(self, at: int) -> tuple[int, bytes]:
        """The number of a blob and its id; no id when it is all zeros."""
        offset = at * self._each
        data = self._read(offset, min(self._each, self._size - offset))
        if data == self._zeros:
            return at, b""
        return at, self._writer.save_blob(BlobType.DATA, data)

    def _read(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._descriptor, length, offset)
            while len(data) < length:
                more = os.pread(self._descriptor, length - len(data), offset + len(data))
                if not more:
                    self._short = True
                    return data.ljust(length, b"\0")
                data += more
        except OSError as error:
            raise SourceError(
                f"reading {self._path} at byte {offset}: {error.strerror}; the device may be failing, see the kernel's"
                " messages"
            ) from error
        return data

    def _changes(self) -> tuple[Warning, ...]:
        after = os.fstat(self._descriptor)
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        if self._short or size < self._size:
            message = "shrank while it was read; what is missing is stored as zeros"
        elif size != self._size or (stat.S_ISREG(after.st_mode) and after.st_mtime_ns != self._status.st_mtime_ns):
            message = "changed while it was read; its content may be of no single moment"
        else:
            return ()
        return (Warning(self._path, message),)

    def _node(self, name: str) -> Node:
        status = self._status
        return Node(
            name=name,
            type="file",
            mode=tree.go_mode(stat.S_IFREG | stat.S_IMODE(status.st_mode)),
            mtime=status.st_mtime_ns,
            atime=status.st_mtime_ns,
            ctime=status.st_ctime_ns,
            uid=status.st_uid,
            gid=status.st_gid,
            size=self._size,
            links=1,
        )
