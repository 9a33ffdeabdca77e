"""Packs: many sealed blobs in one object, with a sealed header at the end that says what is where.

A pack is filled in one preallocated buffer, into which blobs are sealed in place by several threads at once, so nothing
is copied between compression and upload. See "Pack Format" in restic's design document.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from backstay.repository.errors import Corrupted
from backstay.repository.format.blob import BlobType
from backstay.repository.format.crypto import OVERHEAD, Key

TARGET_SIZE = 16 << 20  # bytes at which a pack is closed
MAX_BLOB = 9 << 20  # bytes of sealed blob that may follow when a pack is just below its target
MAX_ENTRIES = 60_000  # blobs in a pack; restic refuses headers above 16 MiB
BUFFER_SIZE = TARGET_SIZE + MAX_BLOB + MAX_ENTRIES * 41 + OVERHEAD + 4

_PLAIN = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")
_LENGTH = struct.Struct("<I")
_TWO_LENGTHS = struct.Struct("<II")


class Entry(NamedTuple):
    """Where a blob lies in a pack. `length` is as stored; `plain_length` is 0 for a blob that is not compressed."""

    type: BlobType
    id: bytes
    offset: int
    length: int
    plain_length: int


def parse_header(header: bytes, what: str) -> Iterator[Entry]:
    """The entries of a plain pack header. Raises Corrupted, naming `what`."""
    return map(Entry._make, plain_entries(header, what))


def plain_entries(header: bytes, what: str) -> list[tuple[BlobType, bytes, int, int, int]]:
    """As `parse_header`, in plain tuples, which cost a third of named ones: there may be one for each small file."""
    found = []
    position = offset = 0
    end = len(header)
    types, two, one = tuple(BlobType), _TWO_LENGTHS.unpack_from, _LENGTH.unpack_from
    try:
        while position < end:
            kind = header[position]
            if kind & 2:
                length, plain_length = two(header, position + 1)
                following = position + _COMPRESSED.size
            else:
                (length,), plain_length = one(header, position + 1), 0
                following = position + _PLAIN.size
            if kind > 3 or following > end:
                raise Corrupted(f"{what} has a header that cannot be read")
            found.append((types[kind & 1], header[following - 32 : following], offset, length, plain_length))
            offset += length
            position = following
    except struct.error as error:
        raise Corrupted(f"{what} has a header that cannot be read") from error
    return found


class PackBuilder:
    """One pack while it is filled. The caller serialises `reserve` and the counting of `filled`, not the sealing."""

    def __init__(self, buffer: bytearray | memoryview, release: Callable[[], object] = bool) -> None:
        """`buffer`: BUFFER_SIZE bytes that belong to this pack until `release` is called; anything may be in them."""
        self.release = release
        self.view = memoryview(buffer)
        self.size = 0
        self.header = bytearray()
        self.count = 0
        self.filled = 0
        self.closed = False

    def reserve(self, kind: BlobType, blob_id: bytes, stored_length: int, plain_length: int) -> memoryview:
        """Room for one sealed blob of `stored_length` bytes. `plain_length` 0: it is not compressed."""
        if plain_length:
            self.header += _COMPRESSED.pack(kind | 2, stored_length, plain_length, blob_id)
        else:
            self.header += _PLAIN.pack(kind, stored_length, blob_id)
        start = self.size
        self.size = start + stored_length
        self.count += 1
        if self.size >= TARGET_SIZE or self.count >= MAX_ENTRIES:
            self.closed = True
        return self.view[start : self.size]

    def adopt(self, header: bytes, size: int, count: int) -> None:
        """Take over `size` bytes of `count` blobs, as `header` says, that another process has put into the buffer."""
        self.header += header
        self.size = size
        self.count = self.filled = count
        self.closed = True

    @property
    def complete(self) -> bool:
        """Closed, and every reserved room is filled."""
        return self.closed and self.filled == self.count

    def finish(self, key: Key) -> tuple[bytes, memoryview]:
        """Append the header; the pack's id and its bytes."""
        sealed = key.seal(bytes(self.header))
        end = self.size + len(sealed)
        self.view[self.size : end] = sealed
        self.view[end : end + 4] = _LENGTH.pack(len(sealed))
        body = self.view[: end + 4]
        return hashlib.sha256(body).digest(), body


def name(pack_id: bytes) -> str:
    """The object's name of a pack."""
    text = pack_id.hex()
    return f"data/{text[:2]}/{text}"
