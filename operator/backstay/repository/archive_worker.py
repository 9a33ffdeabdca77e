"""What a process of the crew does for a backup: directories, from the first read to packs that are ready to go.

It asks the process that knows the repository which blobs are new, in batches, and fills packs in memory that both see.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence

import msgspec

from backstay.repository.blob import BlobType, Codec
from backstay.repository.chunker import Chunker
from backstay.repository.crew import Channel, Crew
from backstay.repository.crypto import OVERHEAD, Key
from backstay.repository.pack import PackBuilder
from backstay.repository.scanner import Below, Done, Scanner, Task


class Ask(msgspec.Struct, tag=True, array_like=True):
    """Which of these ids are known? `claim`: those that are not will be stored by who asks."""

    kind: BlobType
    ids: bytes
    claim: bool


class SlotWanted(msgspec.Struct, tag=True, array_like=True):
    """Memory for one more pack is needed."""


class Filled(msgspec.Struct, tag=True, array_like=True):
    """A slot holds the blobs of a pack. `size`: their bytes; `plain`: those of their content."""

    slot: int
    header: bytes
    size: int
    plain: int


class Tree(msgspec.Struct, tag=True, array_like=True):
    """A tree blob, compressed."""

    id: bytes
    content: bytes
    plain_length: int


class Told(msgspec.Struct, tag=True, array_like=True):
    """Files and bytes that were done since the last time."""

    files: int
    size: int


class Finish(msgspec.Struct, tag=True, array_like=True):
    """To a process: hand over what you have, there is no more work."""


class Finished(msgspec.Struct, tag=True, array_like=True):
    """From a process: all is handed over."""


FromWorker = Ask | SlotWanted | Filled | Tree | Told | Finished | Below | Done

_encode = msgspec.msgpack.Encoder().encode


def work(channel: Channel, crew: Crew, setup: bytes) -> None:
    """Take directories from the channel until there are no more."""
    settings, encrypt, mac_k, mac_r, seed = pickle.loads(setup)
    codec = Codec(Key(encrypt, mac_k, mac_r))
    sink = _RemoteSink(channel, crew.slot, codec)
    scanner = Scanner(settings, sink, codec, lambda: Chunker(seed), sink.tell)
    decode = msgspec.msgpack.Decoder(Task | Finish).decode
    try:
        while isinstance(task := decode(channel.receive()), Task):
            channel.send(_encode(scanner.run(task)))
        scanner.tell()
        sink.finish()
    finally:
        scanner.close()


class _RemoteSink:
    """Where a scanner's blobs go when another process knows what is there already."""

    def __init__(self, channel: Channel, slot: Callable[[int], memoryview], codec: Codec) -> None:
        self._channel = channel
        self._slot = slot
        self._codec = codec
        self._number = -1
        self._builder: PackBuilder | None = None
        self._plain = 0

    def known(self, kind: BlobType, ids: bytes) -> bytes:
        """See scanner.Sink."""
        self._channel.send(_encode(Ask(kind, ids, False)))
        return self._channel.receive()

    def save(self, kind: BlobType, contents: Sequence[bytes]) -> list[bytes]:
        """See scanner.Sink."""
        ids = [hashlib.sha256(content).digest() for content in contents]
        if kind is BlobType.TREE:
            for blob_id, content in zip(ids, contents, strict=True):
                self.save_compressed(kind, blob_id, self._codec.compress(content), len(content))
            return ids
        self._channel.send(_encode(Ask(kind, b"".join(ids), True)))
        flags = self._channel.receive()
        for known, blob_id, content in zip(flags, ids, contents, strict=True):
            if not known:
                self._store(kind, blob_id, content)
        return ids

    def save_compressed(self, kind: BlobType, blob_id: bytes, content: bytes, plain_length: int) -> None:
        """See scanner.Sink."""
        self._channel.send(_encode(Tree(blob_id, content, plain_length)))

    def tell(self, files: int, size: int) -> None:
        """Progress."""
        self._channel.send(_encode(Told(files, size)))

    def _store(self, kind: BlobType, blob_id: bytes, content: bytes) -> None:
        compressed = self._codec.compress(content)
        plain_length = len(content)
        if len(compressed) >= plain_length:
            compressed, plain_length = content, 0
        stored_length = len(compressed) + OVERHEAD
        builder = self._builder
        if builder is None:
            self._channel.send(_encode(SlotWanted()))
            self._number = msgspec.msgpack.decode(self._channel.receive(), type=int)
            builder = self._builder = PackBuilder(self._slot(self._number))
        self._codec.key.seal_into(compressed, builder.reserve(kind, blob_id, stored_length, plain_length))
        self._plain += len(content)
        if builder.closed:
            self._hand_over(builder)

    def _hand_over(self, builder: PackBuilder) -> None:
        self._channel.send(_encode(Filled(self._number, bytes(builder.header), builder.size, self._plain)))
        self._builder, self._plain = None, 0

    def finish(self) -> None:
        """Hand over the pack that is not full."""
        if self._builder is not None:
            self._hand_over(self._builder)
        self._channel.send(_encode(Finished()))
