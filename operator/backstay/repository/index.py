"""The index: which pack holds a blob, and where.

In memory an entry is a record of 48 bytes in one of up to 65,536 byte arrays, chosen by the first two bytes of the
blob's id and searched with `find`; a dict of objects would take ten times as much. See "Indexing" in restic's design
document.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from backstay.repository.blob import BlobType
from backstay.repository.errors import Corrupted
from backstay.repository.pack import Entry as Entry
from backstay.repository.pack import parse_header

_PLACE = struct.Struct("<IIII")  # number of the pack, offset, stored length, plain length
_ID = 32
_RECORD = _ID + _PLACE.size


class Location(NamedTuple):
    """Where a blob lies. Lengths and offset in bytes; `plain_length` 0: it is not compressed."""

    pack: bytes
    offset: int
    length: int
    plain_length: int


class Index:
    """What is in the repository. Safe to read while one thread adds."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Know nothing, as at the beginning."""
        self._buckets: tuple[dict[bytes, bytearray], dict[bytes, bytearray]] = ({}, {})
        self._packs: list[bytes] = []
        self._pack_ends: list[int] = []
        self._pack_numbers: dict[bytes, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def packs(self) -> Iterator[bytes]:
        """Ids of the packs that hold what is indexed."""
        return iter(self._packs)

    def has(self, kind: BlobType, blob_id: bytes) -> bool:
        """Whether the blob is in the repository."""
        bucket = self._buckets[kind].get(blob_id[:2])
        return bucket is not None and _find(bucket, blob_id) >= 0

    def has_mark(self, mark: bytes) -> bool:
        """As `has`, for the blob's type in one byte followed by its id."""
        bucket = self._buckets[mark[0]].get(mark[1:3])
        return bucket is not None and _find(bucket, mark[1:]) >= 0

    def lookup(self, kind: BlobType, blob_id: bytes) -> Location | None:
        """Where the blob lies, or None."""
        bucket = self._buckets[kind].get(blob_id[:2])
        if bucket is None or (found := _find(bucket, blob_id)) < 0:
            return None
        pack, offset, length, plain_length = _PLACE.unpack_from(bucket, found + _ID)
        return Location(self._packs[pack], offset, length, plain_length)

    def pack_end(self, pack_id: bytes) -> int:
        """Bytes of a pack up to its header, as far as its blobs are known."""
        return self._pack_ends[self._pack_numbers[pack_id]]

    def add_header(self, pack_id: bytes, header: bytes) -> None:
        """Take in the blobs of a pack of our own, from its plain header."""
        self.add(pack_id, parse_header(header, "a pack of our own"))

    def add(self, pack_id: bytes, entries: Iterable[Entry]) -> None:
        """Take in the blobs of one pack. A blob that is known already keeps its first place."""
        number = self._pack_numbers.get(pack_id)
        if number is None:
            number = self._pack_numbers[pack_id] = len(self._packs)
            self._packs.append(pack_id)
            self._pack_ends.append(0)
        end = self._pack_ends[number]
        pack = _PLACE.pack
        for kind, blob_id, offset, length, plain_length in entries:
            buckets = self._buckets[kind]
            bucket = buckets.get(blob_id[:2])
            if bucket is None:
                bucket = buckets[blob_id[:2]] = bytearray()
            elif _find(bucket, blob_id) >= 0:
                continue
            bucket += blob_id + pack(number, offset, length, plain_length)
            self._count += 1
            if offset + length > end:
                end = offset + length
        self._pack_ends[number] = end


def _find(bucket: bytearray, blob_id: bytes) -> int:
    found = bucket.find(blob_id)
    while found >= 0 and found % _RECORD:
        found = bucket.find(blob_id, found + 1)
    return found


class _BlobJSON(msgspec.Struct, gc=False):
    id: str
    type: str
    offset: int
    length: int
    uncompressed_length: int = 0


class _PackJSON(msgspec.Struct):
    id: str
    blobs: list[_BlobJSON] | None = None


class _IndexJSON(msgspec.Struct):
    packs: list[_PackJSON] | None = None


_decoder = msgspec.json.Decoder(_IndexJSON)
_TYPES = {"data": BlobType.DATA, "tree": BlobType.TREE}
_LIMIT = 1 << 32


def _entry(blob: _BlobJSON, name: str) -> Entry:
    blob_id = bytes.fromhex(blob.id)
    numbers = (blob.offset, blob.length, blob.uncompressed_length)
    if len(blob_id) != _ID or not all(0 <= number < _LIMIT for number in numbers):
        raise Corrupted(f"{name} decrypts but places a blob where none can be")
    return Entry(_TYPES[blob.type], blob_id, *numbers)


def decode(data: bytes, name: str) -> list[tuple[bytes, list[Entry]]]:
    """The packs of an index file with their blobs. Raises Corrupted, naming the file."""
    try:
        packs = []
        for pack in _decoder.decode(data).packs or ():
            pack_id = bytes.fromhex(pack.id)
            if len(pack_id) != _ID:
                raise Corrupted(f"{name} decrypts but names a pack by an id of {len(pack_id)} bytes")
            packs.append((pack_id, [_entry(blob, name) for blob in pack.blobs or ()]))
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        raise Corrupted(f"{name} decrypts but is no index document: {error}") from error
    return packs


def encode(packs: Iterable[tuple[bytes, Iterable[Entry]]]) -> bytes:
    """An index file's JSON for some packs."""
    parts = []
    for pack_id, entries in packs:
        blobs = []
        for kind, blob_id, offset, length, plain_length in entries:
            tail = f',"uncompressed_length":{plain_length}}}' if plain_length else "}"
            word = "tree" if kind else "data"
            blobs.append(f'{{"id":"{blob_id.hex()}","type":"{word}","offset":{offset},"length":{length}{tail}')
        parts.append(f'{{"id":"{pack_id.hex()}","blobs":[{",".join(blobs)}]}}')
    return ('{"packs":[' + ",".join(parts) + "]}\n").encode()
