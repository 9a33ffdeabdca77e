"""What goes up and what comes down, without a copy of it."""

from __future__ import annotations

import os
from http.client import HTTPResponse
from typing import Any

from backstay.repository.stores.rate_limit import RateLimit
from backstay.repository.stores.store import Buffer

# A connection's time limit holds for each piece: a link of 26 kB/s still sends one of these in 5 seconds.
_PIECE = 128 << 10
_LANDED = 1 << 20  # bytes that come down at once into memory that is there: more would cost fresh pages for each


class UploadBody:
    """An object's bytes as a file that hands out views of them.

    botocore takes bytes or a file, and turning a pack's buffer into bytes would copy 16 MiB. It asks for the length,
    for the position and for a return to the beginning, and reads in pieces; what `read` returns goes to the socket.
    """

    def __init__(self, data: Buffer, sha256: bytes, limit: RateLimit | None = None) -> None:
        """`sha256`: the digest of `data`, which the request is signed with."""
        self.sha256 = sha256
        self._data = memoryview(data).cast("B") if len(data) else memoryview(b"")
        self._limit = limit
        self._at = 0

    def __len__(self) -> int:
        return len(self._data)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._data)}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int | None = -1) -> memoryview:
        """The next piece, which may be larger than `size`, since a loop of small ones costs; all of it without one."""
        if size is None or size < 0:
            piece = self._data[self._at :]
        else:
            piece = self._data[self._at : self._at + (self._limit.portion if self._limit else _PIECE)]
        if self._limit is not None and piece:
            self._limit.wait(len(piece))
        self._at += len(piece)
        return piece


def receive(stream: Any, limit: RateLimit | None) -> bytes:
    """All that an answer's body holds."""
    if limit is None:
        content: bytes = stream.read()
        return content
    pieces = []
    while piece := stream.read(limit.portion):
        limit.wait(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


def receive_into(stream: Any, room: memoryview, limit: RateLimit | None) -> int:
    """As much of an answer's body as `room` takes; how many bytes that was."""
    if limit is None and (count := _receive_at_once(stream, room)) is not None:
        return count
    at = 0
    step = limit.portion if limit is not None else _LANDED
    while count := stream.readinto(room[at : at + step]):
        if limit is not None:
            limit.wait(count)
        at += count
    return at


def _receive_at_once(stream: Any, room: memoryview) -> int | None:
    """As `receive_into`, from the connection into the room: urllib3 would make bytes and copy them.

    None when there is no plain body of a known length beneath `stream`, of which nothing was read then.
    """
    answer: Any = getattr(stream, "_raw_stream", None)  # urllib3's, and that of the standard library beneath it
    plain = getattr(answer, "_fp", None)
    if not isinstance(plain, HTTPResponse) or plain.chunked or plain.length is None:
        return None
    if plain.getheader("Content-Encoding"):
        return None
    count = plain.readinto(room)
    if count < len(room) and plain.length:
        from botocore.exceptions import IncompleteReadError

        raise IncompleteReadError(actual_bytes=count, expected_bytes=count + plain.length)
    if plain.isclosed():
        answer.release_conn()
    else:  # there is more than was asked for
        stream.close()
    return count
