"""Which bytes of which packs a restore fetches, and who writes what of them where.

A plan is made for a batch of files. Each blob is fetched once; what lies close together in a pack is fetched together,
up to RANGE bytes, and is handed to those who write in portions of about PORTION bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

from backstay.repository.crew import SLOT_BYTES
from backstay.repository.errors import Corrupted
from backstay.repository.format.crypto import OVERHEAD
from backstay.repository.format.index import Location
from backstay.repository.restore.metadata import Attributes
from backstay.repository.restore.orders import Blob, Part, Write

RANGE = 16 << 20  # bytes of a pack that are fetched at once at most; a single blob may be larger
PORTION = 4 << 20  # bytes that one order covers
GAP = 64 << 10  # bytes between two wanted blobs that are fetched rather than asked around
LARGEST = 64 << 20  # bytes of a blob's content: eight times what any chunker makes
_PARTS = 1024  # parts of one order


class File:
    """A file that is to be written.

    `directory`: path relative to the target. `size`: bytes, as its blobs add up; `written`: those that it lacks.
    `pieces`: how many blobs go into it in this batch. `whole`: all of its content is in this batch. `identity`: device
    and inode of the file to write into; None while there is none. `fresh`: what stands there is ours, and empty but for
    what was written in this restore; `old_size`: bytes of what stood there before, if it is kept. `done`: nothing is
    left to do for it. `occupied`: somebody else has made a file there, which may not be replaced. `fault`: what of its
    content is lost, so that it is not to be restored; `touched`: something was written into it before it was done.
    """

    __slots__ = (
        "attributes", "directory", "done", "fault", "fresh", "identity", "name", "occupied", "old_size", "pieces",
        "size", "touched", "whole", "written",
    )  # fmt: skip

    def __init__(
        self,
        directory: bytes,
        name: bytes,
        attributes: Attributes,
        identity: tuple[int, int] | None = None,
        old_size: int = 0,
    ) -> None:
        self.directory = directory
        self.name = name
        self.attributes = attributes
        self.identity = identity
        self.fresh = identity is None
        self.old_size = old_size
        self.size = self.written = self.pieces = 0
        self.whole = True
        self.done = self.occupied = self.touched = False
        self.fault = ""


class Wanted:
    """A blob that a batch needs, and the places in files where it goes."""

    __slots__ = ("id", "length", "offset", "pack", "places", "plain_length", "size")

    def __init__(self, blob_id: bytes, location: Location) -> None:
        """Raises Corrupted when the index tells a size that no blob of a file has."""
        self.id = blob_id
        self.pack, self.offset, self.length, self.plain_length = location
        self.size = self.plain_length or self.length - OVERHEAD  # of the content, in bytes
        self.places: list[tuple[File, int]] = []
        if self.length < OVERHEAD or self.length > SLOT_BYTES or self.plain_length > LARGEST:
            raise Corrupted(
                f"data blob {blob_id.hex()} is said to have {max(self.length, self.plain_length)} bytes in pack"
                f" {self.pack.hex()}, which no blob of a file has; the index that says so is broken"
            )


class Portion(NamedTuple):
    """An order, the files of its parts, how many of them it finishes, and bytes that it writes."""

    order: Write
    files: list[File]
    finishes: int
    size: int


class Range:
    """Bytes of one pack that are fetched at once, and what they are for."""

    __slots__ = ("length", "offset", "pack", "portions")

    def __init__(self, pack: bytes, offset: int) -> None:
        self.pack = pack
        self.offset = offset
        self.length = 0
        self.portions: list[Portion] = []


_order = attrgetter("pack", "offset")


def ranges(wanted: Iterable[Wanted]) -> Iterator[Range]:
    """The ranges to fetch. Sets the orders' blobs and parts; slots are still to be given."""
    run: list[Wanted] = []
    for blob in sorted(wanted, key=_order):
        if run:
            first, last = run[0], run[-1]
            far = blob.offset - last.offset - last.length > GAP or blob.offset + blob.length - first.offset > RANGE
            if blob.pack != first.pack or far:
                yield _range(run)
                run = []
        run.append(blob)
    if run:
        yield _range(run)


def _range(run: list[Wanted]) -> Range:
    first = run[0]
    found = Range(first.pack, first.offset)
    portion: list[Wanted] = []
    size = places = 0
    for blob in run:
        if portion and (size + blob.length > PORTION or places >= _PARTS):
            found.portions.append(_write(portion, first.offset))
            portion, size, places = [], 0, 0
        portion.append(blob)
        size += blob.length
        places += len(blob.places)
        found.length = max(found.length, blob.offset + blob.length - first.offset)
    found.portions.append(_write(portion, first.offset))
    return found


def _write(portion: list[Wanted], start: int) -> Portion:
    """The order for some blobs, offsets counted from `start`."""
    numbers: dict[bytes, int] = {}
    pieces: dict[File, list[tuple[int, int]]] = {}
    blobs: list[Blob] = []
    finishes = size = 0
    shared: list[int] = []
    for number, blob in enumerate(portion):
        blobs.append(Blob(blob.id, blob.offset - start, blob.length, blob.plain_length))
        size += blob.size * len(blob.places)
        if len(blob.places) > 1:
            shared.append(number)
        for file, offset in blob.places:
            found = pieces.get(file)
            if found is None:
                pieces[file] = [(number, offset)]
            else:
                found.append((number, offset))
    parts = []
    for file, found in pieces.items():
        directory = numbers.setdefault(file.directory, len(numbers))
        complete = file.whole and len(found) == file.pieces
        if complete:
            finishes += 1
            part = Part(directory, file.name, file.size, found, file.identity, file.attributes, file.fresh)
        else:
            part = Part(directory, file.name, file.size, found, None, None, file.fresh)
        parts.append(part)
    order = Write(portion[0].pack, 0, list(numbers), blobs, parts, shared)
    return Portion(order, list(pieces), finishes, size)


def empties(files: list[File]) -> Iterator[Portion]:
    """Orders for files that need no blob: empty ones."""
    for at in range(0, len(files), _PARTS):
        some = files[at : at + _PARTS]
        numbers: dict[bytes, int] = {}
        parts = [
            Part(numbers.setdefault(f.directory, len(numbers)), f.name, f.size, [], f.identity, f.attributes, f.fresh)
            for f in some
        ]
        yield Portion(Write(b"", 0, list(numbers), [], parts, []), some, len(some), 0)
