"""What a process of the crew does for a backup: directories, from the first read to packs that are ready to go.

It asks the process that knows the repository which blobs are new, in batches, and fills packs in memory that both see.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from backstay.repository.archive.orders import Below, Done, Task
from backstay.repository.archive.scanner import Scanner
from backstay.repository.crew import Channel, Crew
from backstay.repository.format.blob import BlobType, Codec
from backstay.repository.format.chunker import Chunker
from backstay.repository.format.crypto import OVERHEAD, Key
from backstay.repository.format.pack import PackBuilder


class Ask(msgspec.Struct, tag=True, array_like=True):
    """Which of these ids are known? `claim`: those that are not will be stored by who asks."""

    kind: BlobType
    ids: bytes
    claim: bool


class SlotWanted(msgspec.Struct, tag=True, array_like=True):
    """Memory for one more pack is needed."""


class Filled(msgspec.Struct, tag=True, array_like=True):
    """A slot holds `count` blobs of a pack. `size`: their bytes; `plain`: those of their content."""

    slot: int
    header: bytes
    count: int
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


class Flags(msgspec.Struct, tag=True, array_like=True):
    """The answer to Ask: for each id 1 when it is known, else 0."""

    flags: bytes


class Slot(msgspec.Struct, tag=True, array_like=True):
    """The answer to SlotWanted."""

    number: int


class Finish(msgspec.Struct, tag=True, array_like=True):
    """To a process: hand over what you have, there is no more work."""


class Finished(msgspec.Struct, tag=True, array_like=True):
    """From a process: all is handed over."""


ToWorker = Task | Finish | Flags | Slot
FromWorker = Ask | SlotWanted | Filled | Tree | Told | Finished | Below | Done


def work(channel: Channel, crew: Crew, setup: bytes) -> None:
    """Take directories from the channel until there are no more."""
    settings, encrypt, mac_k, mac_r, seed = pickle.loads(setup)
    codec = Codec(Key(encrypt, mac_k, mac_r))
    mail = _Mail(channel)
    sink = _RemoteSink(mail, crew.slot, codec)
    scanner = Scanner(settings, sink, codec, lambda: Chunker(seed), sink.tell)
    try:
        while isinstance(order := mail.order(), Task):
            mail.send(scanner.run(order))
        scanner.tell()
        sink.finish()
    finally:
        scanner.close()


class _Mail:
    """Messages to and fro. The next order may come before the answer that is waited for."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._decode = msgspec.msgpack.Decoder(ToWorker).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._orders: deque[Task | Finish] = deque()

    def send(self, message: FromWorker) -> None:
        self._channel.send(self._encode(message))

    def order(self) -> Task | Finish:
        """What to do next."""
        while not self._orders:
            self._receive()
        return self._orders.popleft()

    def ask(self, question: Ask | SlotWanted) -> Flags | Slot:
        """The answer to a question."""
        self.send(question)
        while (answer := self._receive()) is None:
            continue
        return answer

    def _receive(self) -> Flags | Slot | None:
        message: ToWorker = self._decode(self._channel.receive())
        if isinstance(message, Task | Finish):
            self._orders.append(message)
            return None
        return message


class _RemoteSink:
    """Where a scanner's blobs go when another process knows what is there already."""

    def __init__(self, mail: _Mail, slot: Callable[[int], memoryview], codec: Codec) -> None:
        self._mail = mail
        self._slot = slot
        self._codec = codec
        self._number = -1
        self._builder: PackBuilder | None = None
        self._plain = 0

    def _ask(self, kind: BlobType, ids: bytes, *, claim: bool) -> bytes:
        answer = self._mail.ask(Ask(kind, ids, claim))
        assert isinstance(answer, Flags)
        return answer.flags

    def known(self, kind: BlobType, ids: bytes) -> bytes:
        """See scanner.Sink."""
        return self._ask(kind, ids, claim=False)

    def save(self, kind: BlobType, contents: Sequence[bytes]) -> list[bytes]:
        """See scanner.Sink."""
        ids = [hashlib.sha256(content).digest() for content in contents]
        if kind is BlobType.TREE:
            for blob_id, content in zip(ids, contents, strict=True):
                self.save_compressed(kind, blob_id, self._codec.compress(content), len(content))
            return ids
        for known, blob_id, content in zip(self._ask(kind, b"".join(ids), claim=True), ids, contents, strict=True):
            if not known:
                self._store(kind, blob_id, content)
        return ids

    def save_compressed(self, kind: BlobType, blob_id: bytes, content: bytes, plain_length: int) -> None:
        """See scanner.Sink."""
        self._mail.send(Tree(blob_id, content, plain_length))

    def tell(self, files: int, size: int) -> None:
        """Progress."""
        self._mail.send(Told(files, size))

    def _store(self, kind: BlobType, blob_id: bytes, content: bytes) -> None:
        compressed = self._codec.compress(content)
        plain_length = len(content)
        if len(compressed) >= plain_length:
            compressed, plain_length = content, 0
        stored_length = len(compressed) + OVERHEAD
        builder = self._builder
        if builder is None:
            slot = self._mail.ask(SlotWanted())
            assert isinstance(slot, Slot)
            self._number = slot.number
            builder = self._builder = PackBuilder(self._slot(self._number))
        self._codec.key.seal_into(compressed, builder.reserve(kind, blob_id, stored_length, plain_length))
        self._plain += len(content)
        if builder.closed:
            self._hand_over(builder)

    def _hand_over(self, builder: PackBuilder) -> None:
        self._mail.send(Filled(self._number, bytes(builder.header), builder.count, builder.size, self._plain))
        self._builder, self._plain = None, 0

    def finish(self) -> None:
        """Hand over the pack that is not full."""
        if self._builder is not None:
            self._hand_over(self._builder)
        self._mail.send(Finished())
