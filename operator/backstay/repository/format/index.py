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

from backstay.repository.errors import Corrupted
from backstay.repository.format.blob import BlobType
from backstay.repository.format.malformed import MALFORMED, malformed
from backstay.repository.format.pack import Entry as Entry

_PLACE = struct.Struct("<IIII")  # number of the pack, offset, stored length, plain length
_NUMBER = struct.Struct("<I")
_SKIP_ID = struct.Struct("<32xIIII")
_WHOLE = struct.Struct("<32sIIII")
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

    def contains(self, kind: BlobType, ids: bytes) -> bytearray:
        """As `has` for many ids in one string: 1 for each that is there, 0 for the rest."""
        flags = bytearray(len(ids) // _ID)
        buckets = self._buckets[kind]
        for at in range(0, len(ids), _ID):
            bucket = buckets.get(ids[at : at + 2])
            if bucket is not None:
                found = bucket.find(ids[at : at + _ID])
                if found >= 0 and (not found % _RECORD or _find(bucket, ids[at : at + _ID]) >= 0):
                    flags[at // _ID] = 1
        return flags

    def lookup(self, kind: BlobType, blob_id: bytes) -> Location | None:
        """Where the blob lies, or None."""
        bucket = self._buckets[kind].get(blob_id[:2])
        if bucket is None or (found := _find(bucket, blob_id)) < 0:
            return None
        pack, offset, length, plain_length = _PLACE.unpack_from(bucket, found + _ID)
        return Location(self._packs[pack], offset, length, plain_length)

    def copies(self, kind: BlobType, blob_id: bytes) -> list[Location]:
        """All places where the blob lies, as far as index files told of them; first the one of `lookup`."""
        bucket = self._buckets[kind].get(blob_id[:2], bytearray())
        found = _find(bucket, blob_id)
        copies: dict[Location, None] = {}
        while found >= 0:
            pack, offset, length, plain_length = _PLACE.unpack_from(bucket, found + _ID)
            copies[Location(self._packs[pack], offset, length, plain_length)] = None
            found = _find(bucket, blob_id, found + _RECORD)
        return list(copies)

    def slot(self, kind: BlobType, blob_id: bytes) -> int:
        """Which of the records that share the id's first two bytes is the blob's, counted from 0; -1 if none is."""
        bucket = self._buckets[kind].get(blob_id[:2])
        return -1 if bucket is None else _find(bucket, blob_id) // _RECORD

    def places(self, kind: BlobType) -> Iterator[tuple[bytes, Iterator[tuple[int, int, int, int]]]]:
        """All records by the first two bytes of their ids: number of the pack, offset, stored and plain length."""
        for prefix, bucket in self._buckets[kind].items():
            yield prefix, _SKIP_ID.iter_unpack(bucket)

    def records(self, kind: BlobType, prefix: bytes) -> Iterator[tuple[bytes, int, int, int, int]]:
        """The records of the ids that begin with two bytes: id, number of the pack, offset, stored and plain length."""
        return _WHOLE.iter_unpack(self._buckets[kind].get(prefix, b""))

    def pack_end(self, pack_id: bytes) -> int:
        """Bytes of a pack up to its header, as far as its blobs are known."""
        return self._pack_ends[self._pack_numbers[pack_id]]

    def add(
        self,
        pack_id: bytes,
        entries: Iterable[tuple[BlobType, bytes, int, int, int]],
        again: list[Entry] | None = None,
    ) -> int:
        """Take in the blobs of one pack; its number. A blob that is known already keeps its first place.

        `entries`: as `Entry` or in plain tuples. `again` gets the entries of blobs that were known.
        """
        number = self._pack_numbers.get(pack_id)
        if number is None:
            number = self._pack_numbers[pack_id] = len(self._packs)
            self._packs.append(pack_id)
            self._pack_ends.append(0)
        ends = self._pack_ends
        end = ends[number]
        both, pack = self._buckets, _PLACE.pack
        for kind, blob_id, offset, length, plain_length in entries:
            buckets = both[kind]
            bucket = buckets.get(blob_id[:2])
            if bucket is None:
                bucket = buckets[blob_id[:2]] = bytearray()
            elif (found := bucket.find(blob_id)) >= 0 and (not found % _RECORD or _find(bucket, blob_id) >= 0):
                if again is not None:
                    again.append(Entry(kind, blob_id, offset, length, plain_length))
                continue
            bucket += blob_id + pack(number, offset, length, plain_length)
            self._count += 1
            if offset + length > end:
                end = offset + length
        ends[number] = end
        return number

    def load(self, document: bytes, name: str) -> None:
        """Take in an index file. Raises Corrupted, naming the file; then nothing of it was taken in.

        One loop without objects, since an index may hold millions. A blob that is known already gets one more record,
        behind its first, which is the one that is found.
        """
        packs = [(pack_id, *_columns(blobs, name)) for pack_id, blobs in _packs(document, name)]
        for pack_id, kinds, ids, places, end in packs:
            number = self.add(pack_id, ())
            records = _interleave(ids, _NUMBER.pack(number) * len(kinds), places)
            only = self._buckets[kinds[0]] if len(set(kinds)) == 1 else None
            for at, kind in zip(range(0, len(records), _RECORD), kinds, strict=True):
                record = records[at : at + _RECORD]
                buckets = self._buckets[kind] if only is None else only
                bucket = buckets.get(record[:2])
                if bucket is None:
                    buckets[record[:2]] = bytearray(record)
                else:
                    bucket += record
            self._count += len(kinds)
            self._pack_ends[number] = max(self._pack_ends[number], end)


def _find(bucket: bytearray, blob_id: bytes, start: int = 0) -> int:
    found = bucket.find(blob_id, start)
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


def _packs(data: bytes, name: str) -> list[tuple[bytes, list[_BlobJSON]]]:
    try:
        packs = [(bytes.fromhex(pack.id), pack.blobs or []) for pack in _decoder.decode(data).packs or ()]
    except MALFORMED as error:
        raise malformed(f"{name} decrypts but is no index document", error) from error
    for pack_id, _ in packs:
        if len(pack_id) != _ID:
            raise Corrupted(f"{name} decrypts but names a pack by an id of {len(pack_id)} bytes")
    return packs


def _columns(blobs: list[_BlobJSON], name: str) -> tuple[list[BlobType], bytes, bytes, int]:
    """Types, ids and places (offset, length, plain length) of a pack's blobs, and where the last one ends."""
    try:
        kinds = [_TYPES[blob.type] for blob in blobs]
        ids = bytes.fromhex("".join([blob.id for blob in blobs]))
        numbers = [number for blob in blobs for number in (blob.offset, blob.length, blob.uncompressed_length)]
        places = struct.pack(f"<{len(numbers)}I", *numbers)
    except MALFORMED as error:
        raise malformed(f"{name} decrypts but is no index document", error) from error
    except struct.error:
        places = b""
    if len(places) != 12 * len(kinds) or len(ids) != _ID * len(kinds) or any(len(blob.id) != 2 * _ID for blob in blobs):
        raise Corrupted(f"{name} decrypts but places a blob where none can be")
    return kinds, ids, places, max((blob.offset + blob.length for blob in blobs), default=0)


def _interleave(*columns: bytes) -> bytes:
    """Records of an id, a number and three numbers, from strings that hold one column each."""
    count = len(columns[0]) // _ID
    records = bytearray(count * _RECORD)
    start = 0
    for column in columns:
        width = len(column) // count if count else 0
        for byte in range(width):  # one byte of all records at a time: a few loops in C for each pack
            records[start + byte :: _RECORD] = column[byte::width]
        start += width
    return bytes(records)


def decode(data: bytes, name: str) -> list[tuple[bytes, list[Entry]]]:
    """The packs of an index file with their blobs. Raises Corrupted, naming the file."""
    packs = []
    for pack_id, blobs in _packs(data, name):
        kinds, ids, places, _ = _columns(blobs, name)
        numbers = struct.iter_unpack("<III", places)
        entries = [
            Entry(kind, ids[at : at + _ID], *place)
            for kind, at, place in zip(kinds, range(0, len(ids), _ID), numbers, strict=True)
        ]
        packs.append((pack_id, entries))
    return packs


def encode(packs: Iterable[tuple[bytes, Iterable[tuple[BlobType, bytes, int, int, int]]]]) -> bytes:
    """An index file's JSON for some packs."""
    parts = []
    for pack_id, entries in packs:
        blobs = []
        for kind, blob_id, offset, length, plain_length in entries:
            start = (
                f'{{"id":"{blob_id.hex()}","type":"{"tree" if kind else "data"}","offset":{offset},"length":{length}'
            )
            blobs.append(f'{start},"uncompressed_length":{plain_length}}}' if plain_length else start + "}")
        parts.append(f'{{"id":"{pack_id.hex()}","blobs":[{",".join(blobs)}]}}')
    return ('{"packs":[' + ",".join(parts) + "]}\n").encode()
