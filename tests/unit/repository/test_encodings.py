"""Sealing, packs, indexes, configs, snapshots and chunks: what is written is read back, and damage never passes."""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.repository import Corrupted, Snapshot, Summary, UnsupportedRepository
from backstay.repository.format import config, pack, snapshot
from backstay.repository.format import index as index_file
from backstay.repository.format.blob import BlobType, Codec
from backstay.repository.format.chunker import MAX_SIZE, MIN_SIZE, Chunker, seed
from backstay.repository.format.crypto import OVERHEAD, Key
from backstay.repository.format.index import Index
from backstay.repository.format.pack import Entry

KEY = Key(bytes(range(32)), bytes(range(16)), bytes(range(16, 32)))
CODEC = Codec(KEY)


@given(st.binary(max_size=300))
def test_what_was_sealed_opens(data: bytes) -> None:
    room = memoryview(bytearray(len(data) + OVERHEAD))
    KEY.seal_into(data, room)

    assert KEY.open(KEY.seal(data), "x") == data
    assert KEY.open(room, "x") == data


@given(st.binary(max_size=100), st.data())
def test_a_sealed_message_with_one_changed_bit_does_not_open(data: bytes, draw: st.DataObject) -> None:
    sealed = bytearray(KEY.seal(data))
    position = draw.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[position // 8] ^= 1 << position % 8

    with pytest.raises(Corrupted, match="the message"):
        KEY.open(bytes(sealed), "the message")


@given(st.binary(max_size=OVERHEAD - 1))
def test_a_message_that_is_too_short_does_not_open(data: bytes) -> None:
    with pytest.raises(Corrupted):
        KEY.open(data, "x")


def test_a_blob_in_anothers_place_is_found() -> None:
    sealed = KEY.seal(b"other")

    with pytest.raises(Corrupted, match="another blob"):
        CODEC.open_blob(sealed, 0, hashlib.sha256(b"wanted").digest(), "x")


def test_a_blob_that_claims_a_huge_size_costs_no_memory() -> None:
    sealed = KEY.seal(CODEC.compress(bytes(50 << 20)))

    with pytest.raises(Corrupted, match="claims to hold"):
        CODEC.open_blob(sealed, 1000, bytes(32), "x")


entries = st.lists(
    st.builds(
        Entry,
        st.sampled_from(BlobType),
        st.binary(min_size=32, max_size=32),
        st.just(0),
        st.integers(32, 2**32 - 1),
        st.integers(0, 2**32 - 1),
    ),
    max_size=8,
)


def laid_out(found: list[Entry]) -> list[Entry]:
    """The entries one after the other, as in a pack."""
    offset, placed = 0, []
    for entry in found:
        placed.append(entry._replace(offset=offset))
        offset += entry.length
    return placed


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=10))
def test_a_packs_header_tells_what_is_where(blobs: list[bytes]) -> None:
    builder = pack.PackBuilder(bytearray(100_000))
    for number, blob in enumerate(blobs):
        room = builder.reserve(
            BlobType.TREE, hashlib.sha256(blob).digest(), len(blob) + OVERHEAD, len(blob) if number % 2 else 0
        )
        KEY.seal_into(blob, room)

    pack_id, body = builder.finish(KEY)

    assert hashlib.sha256(body).digest() == pack_id
    length = int.from_bytes(body[-4:], "little")
    header = KEY.open(body[-4 - length : -4], "header")
    for entry, blob in zip(pack.parse_header(header, "x"), blobs, strict=True):
        assert KEY.open(body[entry.offset : entry.offset + entry.length], "blob") == blob
        assert entry.type is BlobType.TREE


@given(st.binary(max_size=200))
def test_bytes_that_are_no_header_are_corruption_and_nothing_else(data: bytes) -> None:
    with suppress(Corrupted):
        list(pack.parse_header(data, "x"))


@given(entries)
def test_an_index_file_comes_back_as_it_was(found: list[Entry]) -> None:
    placed = laid_out([entry for entry in found if entry.length < 2**29])
    packs = [(bytes(32), placed), (b"\x01" * 32, [])]

    assert index_file.decode(index_file.encode(packs), "index/x") == packs


@given(st.binary())
def test_bytes_that_are_no_index_are_corruption_and_nothing_else(data: bytes) -> None:
    with suppress(Corrupted):
        index_file.decode(data, "index/x")


def test_the_index_finds_what_was_added_and_tells_types_apart() -> None:
    index = Index()
    ids = [hashlib.sha256(b"%d" % number).digest() for number in range(5000)]
    for number, blob_id in enumerate(ids):
        index.add(bytes((number % 7,)) * 32, [Entry(BlobType(number % 2), blob_id, number, 100, number)])

    assert len(index) == 5000
    for number, blob_id in enumerate(ids):
        assert index.lookup(BlobType(number % 2), blob_id) == (bytes((number % 7,)) * 32, number, 100, number)
        assert not index.has(BlobType(1 - number % 2), blob_id)


def test_the_index_is_not_fooled_by_an_id_that_straddles_two_records() -> None:
    index = Index()
    first = b"\x01\x02" + b"a" * 14 + b"\x01\x02" + b"b" * 14
    index.add(b"\x03" * 32, [Entry(BlobType.DATA, first, 0x62626262, 0x62626262, 0x62626262)])
    straddling = first[16:] + b"\0\0\0\0" + b"bbbbbbbbbbbb"

    assert index.lookup(BlobType.DATA, straddling) is None


def test_an_index_of_50000_blobs_takes_little_memory() -> None:
    import tracemalloc

    tracemalloc.start()
    index = Index()
    for start in range(0, 50_000, 1000):
        ids = [hashlib.sha256(b"%d" % number).digest() for number in range(start, start + 1000)]
        index.add(ids[0], [Entry(BlobType.DATA, blob_id, 0, 100, 0) for blob_id in ids])
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(index) == 50_000
    assert taken < 50_000 * 300


def test_polynomials_are_irreducible() -> None:
    assert config.irreducible(0x3DA3358B4DC173)
    assert not config.irreducible(0x3DA3358B4DC173 ^ 2)
    assert not config.irreducible(0b101)  # (x + 1) squared
    found = config.random_polynomial()
    assert found.bit_length() == 54
    assert config.irreducible(found)


def test_a_config_comes_back_as_it_was() -> None:
    created = config.create()

    assert config.decode(config.encode(created)) == created
    with pytest.raises(UnsupportedRepository, match="version 1"):
        config.decode(b'{"version":1,"id":"x","chunker_polynomial":"3DA3358B4DC173"}')
    with pytest.raises(Corrupted):
        config.decode(b'{"version":2}')


def test_a_snapshot_comes_back_as_it_was() -> None:
    time = datetime(2026, 11, 24, 2, 0, 0, 123456, tzinfo=UTC)
    written = Snapshot(
        time=time,
        tree="cd" * 32,
        paths=("/ümläut",),
        hostname="c/n",
        username="u",
        tags=("a=b", 'q"'),
        parent="ef" * 32,
        original="01" * 32,
        uid=1,
        gid=2,
        program_version="p",
        summary=Summary(time, time, files_new=3, data_added=4),
    )

    assert snapshot.decode(snapshot.encode(written), "x") == replace(written, id="x")


@given(st.binary())
def test_bytes_that_are_no_snapshot_are_corruption_and_nothing_else(data: bytes) -> None:
    with suppress(Corrupted):
        snapshot.decode(data, "the-id")


def pseudo_random(size: int) -> bytes:
    return hashlib.shake_128(b"chunks").digest(size)


@settings(max_examples=5, deadline=None)
@given(st.integers(4096, 5 << 20))
def test_chunks_add_up_to_the_file_however_it_is_read(read_size: int) -> None:
    data = pseudo_random(17 << 20)
    stream = io.BytesIO(data)

    chunks = list(Chunker(1234).cut(lambda room: stream.readinto(room[:read_size])))

    assert b"".join(chunks) == data
    assert all(MIN_SIZE <= len(chunk) <= MAX_SIZE for chunk in chunks[:-1])
    assert len(chunks) > 6
    whole = list(Chunker(1234).cut(io.BytesIO(data).readinto))
    assert chunks == whole


def test_an_insertion_at_the_front_moves_few_cuts() -> None:
    data = pseudo_random(20 << 20)
    cut = Chunker(1234).cut

    before = set(cut(io.BytesIO(data).readinto))
    after = set(cut(io.BytesIO(b"inserted" + data).readinto))

    assert len(after - before) <= 2


def test_the_seed_depends_on_the_key_and_moves_the_cuts() -> None:
    data = pseudo_random(8 << 20)

    assert seed(KEY) == seed(Key(KEY.encrypt, KEY.mac_k, KEY.mac_r))
    assert seed(KEY) != seed(Key.random())
    assert list(Chunker(1).cut(io.BytesIO(data).readinto)) != list(Chunker(2).cut(io.BytesIO(data).readinto))
