"""What writes files in a restore: opens blobs that were fetched, proves them, and puts them where they belong.

It runs in the processes of a crew, which share the memory that ranges are fetched into, or in threads of the restoring
process itself. No byte is written before the MAC and the hash of its blob are proven; a file that is made here and
cannot be finished is removed again.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress

from backstay.repository.crew import Channel, Crew
from backstay.repository.directories import Directories
from backstay.repository.errors import Corrupted, TargetError
from backstay.repository.format.blob import Codec
from backstay.repository.format.crypto import Key
from backstay.repository.restore import files as restore_files
from backstay.repository.restore import metadata
from backstay.repository.restore import orders as restore_orders
from backstay.repository.restore.files import Occupied, target_error
from backstay.repository.restore.metadata import Losses
from backstay.repository.restore.orders import Candidate, Compare, Compared, Damaged, Loss, Part, Setup, Write, Written

_KEPT = 16 << 20  # bytes of opened blobs that are kept for another place
_ACL_FOR_NEW = "system.posix_acl_default"


def work(channel: Channel, crew: Crew, setup: bytes) -> None:
    """Carry out orders from the channel until an empty one comes."""
    settings = restore_orders.decode_setup(setup)
    worker = Worker(Codec(Key(settings.encrypt, settings.mac_k, settings.mac_r)), settings)
    try:
        while message := channel.receive():
            order = restore_orders.decode_order(message)
            room = crew.slot(order.slot) if isinstance(order, Write) else memoryview(b"")
            channel.send(restore_orders.encode(worker.carry_out(order, room)))
    finally:
        worker.close()


class _Place:
    """A directory of one order, and what a file that is made in it is born with."""

    def __init__(self, path: bytes, descriptor: int) -> None:
        self.path = b"/" + path if path else b""
        self.descriptor = descriptor
        self.owner: tuple[int, int] | None = None
        self.plain = False  # new files get just the mode that they are made with, less the umask


class Worker:
    """Carries out orders. For one thread."""

    def __init__(self, codec: Codec, setup: Setup) -> None:
        self._codec = codec
        self._setup = setup
        self._losses = Losses()
        self._umask = _umask()
        self._root = os.open(setup.target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        status = os.fstat(self._root)
        if (status.st_dev, status.st_ino) != setup.identity:
            os.close(self._root)
            raise TargetError(f"restoring into {os.fsdecode(setup.target)}: it was replaced while the restore began")
        self._directories = Directories(self._root, setup.target)

    def close(self) -> None:
        """Give the target back."""
        self._directories.close()
        os.close(self._root)

    def carry_out(self, order: Write | Compare, room: memoryview) -> Written | Compared:
        """Do what is asked. `room`: the range that was fetched for a Write."""
        return self._write(order, room) if isinstance(order, Write) else self._compare(order)

    # --- writing --------------------------------------------------------------------------------------------------

    def _write(self, order: Write, room: memoryview) -> Written:
        occupied = []
        damaged = []
        contents = _Contents(self._codec, order, room)
        here = -1
        place: _Place | None = None
        for number, part in enumerate(order.parts):
            if part.directory != here or place is None:
                here = part.directory
                place = self._place(order.directories[here])
            try:
                if part.identity is None:
                    self._make(place, part, contents)
                else:
                    self._fill(place, part, contents)
            except Occupied:
                occupied.append(number)
            except Corrupted as error:
                damaged.append(Damaged(number, part.identity is not None and not contents.fits(part), str(error)))
            except OSError as error:
                raise target_error(error, self._shown(place, part.name)) from error
        return Written([Loss(*loss) for loss in self._losses.take()], occupied, damaged)

    def _place(self, path: bytes) -> _Place:
        try:
            return _Place(path, self._directories.descriptor(path))
        except OSError as error:
            raise target_error(error, self._directories.shown(path)) from error

    def _shown(self, place: _Place, name: bytes) -> bytes:
        return self._setup.target + place.path + b"/" + name

    def _make(self, place: _Place, part: Part, contents: _Contents) -> None:
        """A file that is new and whole with this part."""
        pieces, wanted = part.pieces, part.attributes
        assert wanted is not None
        first = contents.get(pieces[0][0]) if pieces else b""  # proven before there is a file
        mode = 0o600 & ~self._umask
        if place.plain and place.owner == (wanted.uid, wanted.gid):
            mode = wanted.mode & 0o777 & ~self._umask
        descriptor = restore_files.create(place.descriptor, part.name, mode, replace=self._setup.replace)
        try:
            if place.owner is None:
                self._learn(place, descriptor)
            assert place.owner is not None
            if len(first) < restore_files.HOLE and len(pieces) == 1:
                restore_files.write(descriptor, first, pieces[0][1])
            else:
                holes = [self._put(descriptor, contents.get(blob), offset) for blob, offset in pieces]
                if any(holes):
                    os.ftruncate(descriptor, part.size)
            path = place.path + b"/" + part.name
            metadata.apply_to_new(descriptor, wanted, place.owner, mode if place.plain else -1, self._losses, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part.name, dir_fd=place.descriptor)
            raise
        finally:
            os.close(descriptor)

    def _fill(self, place: _Place, part: Part, contents: _Contents) -> None:
        """A file that is there already. One that was there before stays as it was when a blob is damaged, if it can."""
        assert part.identity is not None
        ahead = [contents.get(blob) for blob, _ in part.pieces] if not part.holes and contents.fits(part) else None
        descriptor = restore_files.reopen(place.descriptor, part.name, part.identity)
        try:
            for number, (blob, offset) in enumerate(part.pieces):
                data = contents.get(blob) if ahead is None else ahead[number]
                if part.holes:
                    self._put(descriptor, data, offset)
                else:
                    restore_files.write(descriptor, data, offset)
            if part.attributes is not None:
                if os.fstat(descriptor).st_size != part.size:  # or the call alone would change the time
                    os.ftruncate(descriptor, part.size)
                path = place.path + b"/" + part.name
                metadata.apply(descriptor, part.attributes, self._losses, path)
        finally:
            os.close(descriptor)

    def _put(self, descriptor: int, data: bytes, offset: int) -> bool:
        if self._setup.sparse:
            return restore_files.write_sparse(descriptor, data, offset)
        restore_files.write(descriptor, data, offset)
        return False

    def _learn(self, place: _Place, descriptor: int) -> None:
        status = os.fstat(descriptor)
        place.owner = (status.st_uid, status.st_gid)
        try:
            os.getxattr(place.descriptor, _ACL_FOR_NEW)
        except OSError:
            place.plain = True

    # --- comparing ------------------------------------------------------------------------------------------------

    def _compare(self, order: Compare) -> Compared:
        found: list[tuple[bytes, bool] | None] = []
        here = -1
        place: _Place | None = None
        for candidate in order.candidates:
            if candidate.directory != here or place is None:
                here = candidate.directory
                place = self._place(order.directories[here])
            try:
                descriptor = restore_files.open_to_read(place.descriptor, candidate.name)
            except OSError:
                found.append(None)
                continue
            try:
                present = _matches(descriptor, candidate)
                same_size = candidate.size in (-1, os.fstat(descriptor).st_size)
                if candidate.attributes is not None and same_size and 0 not in present:
                    path = place.path + b"/" + candidate.name
                    metadata.apply(descriptor, candidate.attributes, self._losses, path)
                found.append((present, same_size))
            except OSError:
                found.append(None)
            finally:
                os.close(descriptor)
        return Compared(found, [Loss(*loss) for loss in self._losses.take()])


class _Contents:
    """The blobs of one order, opened when they are needed; those with more than one place are kept for a while."""

    def __init__(self, codec: Codec, order: Write, room: memoryview) -> None:
        self._codec = codec
        self._pack = order.pack
        self._blobs = order.blobs
        self._room = room
        self._shared = frozenset(order.shared)
        self._kept: dict[int, bytes] = {}
        self._last = (-1, b"")
        self._size = 0

    def fits(self, part: Part) -> bool:
        """Whether all contents of a part may be held at once."""
        blobs = self._blobs
        return sum(max(blobs[blob].length, blobs[blob].plain_length) for blob, _ in part.pieces) <= _KEPT

    def get(self, number: int) -> bytes:
        """A blob's content. Raises Corrupted."""
        if self._last[0] == number:
            return self._last[1]
        kept = self._kept.get(number)
        if kept is not None:
            return kept
        blob = self._blobs[number]
        sealed = self._room[blob.offset : blob.offset + blob.length]
        try:
            data = self._codec.open_blob(sealed, blob.plain_length, blob.id, "it")
        except Corrupted as error:
            what = f"data blob {blob.id.hex()} in pack {self._pack.hex()}"
            raise Corrupted(f"{what}: {error}") from error
        self._last = (number, data)
        if number in self._shared:
            if self._size + len(data) > _KEPT:
                self._kept, self._size = {}, 0
            self._kept[number] = data
            self._size += len(data)
        return data


def _matches(descriptor: int, candidate: Candidate) -> bytes:
    """One byte for each piece: 1 when the file holds it already."""
    found = bytearray(len(candidate.pieces))
    for number, (blob_id, offset, length) in enumerate(candidate.pieces):
        data = os.pread(descriptor, length, offset)
        if len(data) == length and hashlib.sha256(data).digest() == blob_id:
            found[number] = 1
        elif not data:
            break  # the file ends before here
    return bytes(found)


def _umask() -> int:
    """This process's umask, without changing it for a moment; all bits where it cannot be known."""
    with suppress(OSError, ValueError), open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"Umask:"):
                return int(line[6:], 8)
    return 0o777
