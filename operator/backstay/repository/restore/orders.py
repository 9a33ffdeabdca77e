"""What the process that walks a snapshot and the processes that write files say to each other.

Paths of directories are relative to the target and empty for the target itself; contents of files never go over the
pipe, but through memory that both sides see.
"""

from __future__ import annotations

import msgspec

from backstay.repository.restore.metadata import Attributes


class Blob(msgspec.Struct, array_like=True, gc=False):
    """A blob as it lies in a range that was fetched. Offset from the beginning of the range, all in bytes."""

    id: bytes
    offset: int
    length: int
    plain_length: int


class Part(msgspec.Struct, array_like=True):
    """What of one order's blobs goes into one file.

    `directory`: index into the order's directories. `pieces`: for each piece the index of its blob and where in the
    file it goes. `identity`: device and inode of the file to write into, None to make a new one. `attributes`: given
    when the file is finished with this part, at `size` bytes. `holes`: it reads as zeros where nothing was written.
    """

    directory: int
    name: bytes
    size: int
    pieces: list[tuple[int, int]]
    identity: tuple[int, int] | None = None
    attributes: Attributes | None = None
    holes: bool = False


class Write(msgspec.Struct, tag="write", array_like=True):
    """Open these blobs and write what is in them. `shared`: indices of blobs that go to more than one place."""

    pack: bytes
    slot: int
    directories: list[bytes]
    blobs: list[Blob]
    parts: list[Part]
    shared: list[int]


class Candidate(msgspec.Struct, array_like=True):
    """A file that may hold some blobs already: for each its id, where it would be, and its length, in bytes.

    `size`: what the file's must be to count as the same in length, -1 when that is not asked. `attributes`: what the
    file is given when it holds everything.
    """

    directory: int
    name: bytes
    size: int
    pieces: list[tuple[bytes, int, int]]
    attributes: Attributes | None = None


class Compare(msgspec.Struct, tag="compare", array_like=True):
    """Read these files and tell what of them is as it should be."""

    directories: list[bytes]
    candidates: list[Candidate]


class Loss(msgspec.Struct, array_like=True):
    """Some of what could not be put back, as `metadata.Losses` counts it."""

    kind: str
    count: int
    path: bytes
    detail: str


class Damaged(msgspec.Struct, array_like=True):
    """A part that was not written, since a blob of it is not what it should be; `touched`: some of it may have been."""

    part: int
    touched: bool
    fault: str


class Written(msgspec.Struct, tag="written", array_like=True):
    """A `Write` is done. `occupied`: indices of parts whose place was taken meanwhile, by what may not be replaced."""

    losses: list[Loss]
    occupied: list[int]
    damaged: list[Damaged]


class Compared(msgspec.Struct, tag="compared", array_like=True):
    """A `Compare` is done: for each candidate one byte a piece, 1 when it is there, and whether the size is right.

    None stands for a file that could not be read.
    """

    found: list[tuple[bytes, bool] | None]
    losses: list[Loss]


class Setup(msgspec.Struct, array_like=True):
    """What a process needs to begin: the key, and the target with its device and inode."""

    encrypt: bytes
    mac_k: bytes
    mac_r: bytes
    target: bytes
    identity: tuple[int, int]
    replace: bool
    sparse: bool


Order = Write | Compare
Answer = Written | Compared

encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(Order).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
decode_setup = msgspec.msgpack.Decoder(Setup).decode
