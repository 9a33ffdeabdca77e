"""Blobs and small files in stored form: compressed, sealed, and proven again when they come back.

A blob's id is the SHA-256 of its plain content, which is checked on every read. Tree blobs are always compressed, data
blobs only when that makes them smaller. See "Pack Format" and "Unpacked Data Format" in restic's design document.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from enum import IntEnum

import zstandard

from backstay.repository.errors import Corrupted
from backstay.repository.format.crypto import Key

LEVEL = 2  # of zstandard: stores a little less than restic's default, and 3 takes 40% more time
_JSON_STARTS = (0x5B, 0x7B)  # '[' and '{': a file that is not compressed
_COMPRESSED = b"\x02"
_PIECE = 4 << 20  # bytes of content up to which a blob is opened at once
_FILE_LIMIT = 128 << 20  # bytes of an unpacked file's plain content; an index of restic's has some 10 MiB
_MOST_RATIO = 1 << 15  # of a zstandard frame: a block of at most 128 KiB takes at least 4 bytes


class BlobType(IntEnum):
    """What a blob holds. A data blob and a tree blob with the same content have the same id and are different blobs."""

    DATA = 0
    TREE = 1


def split_ids(ids: bytes) -> list[bytes]:
    """Ids that stand in one string."""
    return [ids[at : at + 32] for at in range(0, len(ids), 32)]


def _pieces(data: bytes, what: str) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor().stream_reader(data)
    try:
        while piece := reader.read(_PIECE):
            yield piece
    except zstandard.ZstdError as error:
        raise Corrupted(f"{what} cannot be decompressed: {error}") from error


class TreeStream:
    """The blob of a tree that is too large to be held as text: hashed and compressed while it is made."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._compressor = zstandard.ZstdCompressor(level=LEVEL).compressobj()
        self._compressed: list[bytes] = []
        self._length = 0

    def add(self, data: bytes) -> None:
        """Some more of the content."""
        self._digest.update(data)
        self._compressed.append(self._compressor.compress(data))
        self._length += len(data)

    def finish(self) -> tuple[bytes, bytes, int]:
        """The blob's id, its compressed content, and its plain length."""
        self._compressed.append(self._compressor.flush())
        return self._digest.digest(), b"".join(self._compressed), self._length


class _Contexts(threading.local):
    compressor: zstandard.ZstdCompressor | None = None
    decompressor: zstandard.ZstdDecompressor | None = None


class Codec:
    """Turns plain content into stored form and back, with one master key. Safe to use from several threads."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self._contexts = _Contexts()

    def compress(self, data: bytes | memoryview) -> bytes:
        """One zstandard frame that tells its content's size."""
        compressor = self._contexts.compressor
        if compressor is None:
            compressor = self._contexts.compressor = zstandard.ZstdCompressor(level=LEVEL)
        return compressor.compress(data)

    def _decompress(self, data: bytes, limit: int, what: str) -> bytes:
        decompressor = self._contexts.decompressor
        if decompressor is None:
            decompressor = self._contexts.decompressor = zstandard.ZstdDecompressor()
        try:
            size = zstandard.frame_content_size(data)
            if size > min(limit, len(data) * _MOST_RATIO):  # before as much memory is asked for
                raise Corrupted(f"{what} claims to hold {size} bytes, more than it may or can")
            if size >= 0:
                return decompressor.decompress(data, max_output_size=size)
        except zstandard.ZstdError as error:
            raise Corrupted(f"{what} cannot be decompressed: {error}") from error
        pieces = []
        length = 0
        for piece in _pieces(data, what):
            pieces.append(piece)
            length += len(piece)
            if length > limit:
                raise Corrupted(f"{what} holds more than the {limit} bytes that it may")
        return b"".join(pieces)

    def open_blob(self, sealed: bytes | memoryview, plain_length: int, blob_id: bytes, what: str) -> bytes:
        """A blob's plain content. `plain_length` 0: it is not compressed. Raises Corrupted, naming `what`."""
        data = self.key.open(sealed, what)
        if plain_length:
            data = self._decompress(data, plain_length, what)
            if len(data) != plain_length:
                raise Corrupted(f"{what} holds {len(data)} bytes where the index says {plain_length}")
        if hashlib.sha256(data).digest() != blob_id:
            raise Corrupted(f"{what} is another blob than the index says: its content does not hash to its id")
        return data

    def open_stream(self, sealed: bytes | memoryview, plain_length: int, blob_id: bytes, what: str) -> Iterator[bytes]:
        """A blob's plain content in pieces, which are given out once the whole is proven. Raises as `open_blob`."""
        if plain_length <= _PIECE:
            yield self.open_blob(sealed, plain_length, blob_id, what)
            return
        data = self.key.open(sealed, what)
        digest = hashlib.sha256()
        length = 0
        for piece in _pieces(data, what):
            digest.update(piece)
            length += len(piece)
            if length > plain_length:
                break
        if length != plain_length or digest.digest() != blob_id:
            raise Corrupted(f"{what} is another blob than the index says: its content does not hash to its id")
        yield from _pieces(data, what)

    def seal_file(self, plain: bytes) -> bytes:
        """An index, snapshot or lock in stored form."""
        return self.key.seal(_COMPRESSED + self.compress(plain))

    def open_file(self, stored: bytes, name: str) -> bytes:
        """The plain content of an index, snapshot or lock, whose `name` ends in the hash of what is stored."""
        if hashlib.sha256(stored).hexdigest() != name.rpartition("/")[2]:
            raise Corrupted(f"{name} was changed after it was written: its content does not hash to its name")
        plain = self.key.open(stored, name)
        if not plain or plain[0] in _JSON_STARTS:
            return plain
        if plain[0] != _COMPRESSED[0]:
            raise Corrupted(f"{name} is encoded in a way that this program does not know ({plain[0]})")
        return self._decompress(plain[1:], _FILE_LIMIT, name)
