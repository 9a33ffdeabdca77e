"""What is written is read back, whatever it is: whole trees, snapshots, indexes, packs, streams, directories.

Single nodes, names, times, seals and headers have such tests beside what they are about; here are the properties of
wholes, and that the independent reader, which shares no code with the engine, understands the same.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.repository import Node, Repository, Snapshot, Summary
from backstay.repository.format import config, pack, rfc3339, snapshot, tree
from backstay.repository.format import index as index_file
from backstay.repository.format.blob import BlobType, Codec
from backstay.repository.format.chunker import MAX_SIZE, MIN_SIZE, Chunker
from backstay.repository.format.config import Config
from backstay.repository.format.crypto import OVERHEAD, Key
from backstay.repository.format.index import Index
from backstay.repository.format.pack import Entry
from tests.repository.contents import by_engine, linked, on_disk
from tests.repository.independent_reader import Reader, nanoseconds, unix_mode, unquote
from tests.unit.repository.memory_store import MemoryStore
from tests.unit.repository.test_tree import names, nodes

PASSWORD = "password"
CODEC = Codec(Key(bytes(range(32)), bytes(range(16)), bytes(range(16, 32))))

ids = st.binary(min_size=32, max_size=32)
hexadecimal = ids.map(bytes.hex)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, 2**63 - 1)
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))


# --- documents -------------------------------------------------------------------------------------------------------


@given(st.lists(nodes, max_size=6, unique_by=lambda node: node.name))
def test_a_tree_comes_back_as_it_was_in_the_order_of_bytes(found: list[Node]) -> None:
    in_order = sorted(found, key=lambda node: tree.name_bytes(node.name))

    encoded = tree.encode(found)

    assert tree.decode(encoded, "x") == in_order
    assert tree.encode(reversed(found)) == encoded


@given(names)
def test_the_independent_reader_unquotes_a_name_alike(name: str) -> None:
    assert unquote(tree.quote(name)) == tree.name_bytes(name)


@given(st.integers(0, 2**32 - 1))
def test_the_independent_reader_understands_a_mode_alike(mode: int) -> None:
    assert unix_mode(mode) == tree.unix_mode(mode)


@given(st.integers(-62135596800 * 10**9, 253402300799 * 10**9))
def test_the_independent_reader_understands_a_time_alike(ns: int) -> None:
    assert nanoseconds(rfc3339.from_ns(ns)) == ns


@given(moments, st.integers(-720, 720))
def test_a_moment_is_the_same_whatever_its_zone(moment: datetime, minutes: int) -> None:
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    local = (moment + timedelta(minutes=minutes)).replace(tzinfo=None) if 1 < moment.year < 9999 else None

    assert rfc3339.to_datetime(rfc3339.from_datetime(moment)) == moment
    if local is not None:
        text = local.isoformat() + f"{sign}{hours:02d}:{rest:02d}"
        assert rfc3339.to_datetime(text) == moment


summaries = st.builds(
    Summary, moments, moments, *[counts for name in Summary.__dataclass_fields__ if not name.startswith("backup_")]
)
snapshots = st.builds(
    Snapshot,
    time=moments,
    tree=hexadecimal,
    paths=st.lists(words, max_size=3).map(tuple),
    hostname=words,
    username=words,
    tags=st.lists(words, max_size=3).map(tuple),
    parent=st.just("") | hexadecimal,
    original=st.just("") | hexadecimal,
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    excludes=st.lists(words, max_size=2).map(tuple),
    program_version=words,
    summary=st.none() | summaries,
    utc_offset=st.integers(-720, 840).map(lambda minutes: minutes * 60),
)


@given(snapshots)
def test_a_snapshot_comes_back_as_it_was(written: Snapshot) -> None:
    assert snapshot.decode(snapshot.encode(written), "x") == replace(written, id="x")


@given(hexadecimal, st.integers(1 << 53, (1 << 54) - 1))
def test_a_config_comes_back_as_it_was(repository_id: str, polynomial: int) -> None:
    written = Config(config.VERSION, repository_id, polynomial)

    assert config.decode(config.encode(written)) == written


@given(st.binary(max_size=2000))
def test_a_sealed_file_comes_back_as_it_was(plain: bytes) -> None:
    stored = CODEC.seal_file(plain)

    assert CODEC.open_file(stored, f"index/{hashlib.sha256(stored).hexdigest()}") == plain


# --- packs and the index ---------------------------------------------------------------------------------------------

blobs = st.lists(
    st.tuples(st.sampled_from(BlobType), st.binary(min_size=1, max_size=300), st.booleans()), min_size=1, max_size=12
)


@given(blobs)
def test_every_blob_of_a_pack_is_found_by_its_header(found: list[tuple[BlobType, bytes, bool]]) -> None:
    builder = pack.PackBuilder(bytearray(100_000), lambda: None)
    for kind, content, compressed in found:
        stored = CODEC.compress(content) if compressed else content
        plain_length = len(content) if compressed else 0
        room = builder.reserve(kind, hashlib.sha256(content).digest(), len(stored) + OVERHEAD, plain_length)
        CODEC.key.seal_into(stored, room)

    pack_id, body = builder.finish(CODEC.key)

    length = int.from_bytes(body[-4:], "little")
    entries = list(pack.parse_header(CODEC.key.open(body[-4 - length : -4], "the header"), "x"))
    for entry, (kind, content, _) in zip(entries, found, strict=True):
        sealed = body[entry.offset : entry.offset + entry.length]
        assert entry.type is kind
        assert CODEC.open_blob(sealed, entry.plain_length, entry.id, "x") == content
    assert (hashlib.sha256(body).digest(), len(body)) == (pack_id, builder.size + length + 4)


# Few first bytes, so that blobs share buckets.
close_ids = st.tuples(st.sampled_from([b"\0\0", b"\0\1", b"\xff\xff"]), st.binary(min_size=30, max_size=30)).map(
    b"".join
)
places = st.builds(
    Entry,
    st.sampled_from(BlobType),
    close_ids,
    st.integers(0, 2**31),
    st.integers(32, 2**31 - 1),
    st.integers(0, 2**32 - 1),
)
packs = st.lists(st.tuples(ids, st.lists(places, max_size=10)), max_size=5, unique_by=lambda found: found[0])


@given(packs, close_ids)
def test_the_index_knows_what_a_dict_would_know(found: list[tuple[bytes, list[Entry]]], unknown: bytes) -> None:
    index, model = Index(), {}
    for pack_id, entries in found:
        index.add(pack_id, entries)
        for entry in entries:
            model.setdefault((entry.type, entry.id), (pack_id, entry.offset, entry.length, entry.plain_length))

    assert len(index) == len(model)
    assert {key: index.lookup(*key) for key in model} == model
    for kind in BlobType:
        assert index.has(kind, unknown) == ((kind, unknown) in model)


@given(packs)
def test_an_index_file_comes_back_as_it_was(found: list[tuple[bytes, list[Entry]]]) -> None:
    assert list(index_file.decode(index_file.encode(found), "index/x")) == found


# --- chunks ----------------------------------------------------------------------------------------------------------


@functools.cache
def stream(kind: str, size: int) -> bytes:
    """Noise, zeros, or noise that repeats itself: what cuts by content find hard."""
    if kind == "zeros":
        return bytes(size)
    if kind == "periodic":
        return (hashlib.shake_128(b"period").digest(4096) * (size // 4096 + 1))[:size]
    return hashlib.shake_128(b"noise").digest(size)


def cut(data: bytes, sizes: list[int] | None = None) -> list[bytes]:
    """The chunks of a stream that gives at most so many bytes at each of its reads, in turn."""
    file, turn = io.BytesIO(data), iter(range(1 << 40))

    def readinto(room: memoryview) -> int:
        return file.readinto(room[: sizes[next(turn) % len(sizes)]] if sizes else room)

    return list(Chunker(99).cut(readinto))


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["noise", "zeros", "periodic"]),
    st.sampled_from([0, 1, MIN_SIZE - 1, MIN_SIZE, MIN_SIZE + 1, MAX_SIZE - 1, MAX_SIZE, MAX_SIZE + 1, 19 << 20]),
    st.lists(st.integers(1, 3 << 20).map(lambda size: max(size, 50_000)), min_size=1, max_size=5),
)
def test_chunks_add_up_to_the_stream_and_keep_their_bounds(kind: str, size: int, sizes: list[int]) -> None:
    data = stream(kind, size)

    chunks = cut(data, sizes)

    assert b"".join(chunks) == data
    assert all(MIN_SIZE <= len(chunk) <= MAX_SIZE for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= MAX_SIZE for chunk in chunks)
    assert chunks == cut(data)


@settings(max_examples=8, deadline=None)
@given(st.binary(min_size=1, max_size=5000))
def test_what_is_inserted_at_the_front_moves_few_cuts(inserted: bytes) -> None:
    data = stream("noise", 19 << 20)

    new = set(cut(inserted + data)) - set(cut(data))

    assert sum(map(len, new)) <= 2 * MAX_SIZE
    assert len(new) <= 3


# --- directories -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """`copies`: how often the seed's 300 bytes are repeated; large files are cut into several blobs."""

    seed: bytes
    copies: int
    mode: int
    mtime: int
    xattr: bytes | None


on_disk_names = st.binary(min_size=1, max_size=40).filter(
    lambda raw: not {0, 47} & set(raw) and raw not in (b".", b"..", b"lost+found")
)
files = st.builds(
    File,
    st.binary(max_size=8),
    st.integers(0, 5) | st.sampled_from([2000, 40_000]),
    st.integers(0, 0o777).map(lambda mode: mode | 0o400),
    st.integers(-(2**31) * 10**9, 2**33 * 10**9),
    st.none() | st.binary(max_size=20),
)
links = st.binary(min_size=1, max_size=60).filter(lambda raw: 0 not in raw)
directories = st.recursive(
    st.dictionaries(on_disk_names, files | links, max_size=4),
    lambda inner: st.dictionaries(on_disk_names, files | links | inner, max_size=4),
    max_leaves=5,
)


def build(path: bytes, entries: dict[bytes, object]) -> None:
    """Write a generated directory to disk."""
    os.mkdir(path)
    for name, entry in entries.items():
        below = os.path.join(path, name)
        if isinstance(entry, dict):
            build(below, entry)
        elif isinstance(entry, bytes):
            os.symlink(entry, below)
        elif isinstance(entry, File):
            with open(below, "wb") as file:
                file.write(hashlib.shake_128(entry.seed).digest(300) * entry.copies)
            if entry.xattr is not None:
                with suppress(OSError):  # a file system that has none
                    os.setxattr(below, "user.x", entry.xattr)
            os.chmod(below, entry.mode)
            os.utime(below, ns=(0, entry.mtime))


@pytest.fixture(scope="module")
def repository() -> Repository:
    return Repository.init(MemoryStore(), PASSWORD)


def independent(repository: Repository) -> Reader:
    """The independent reader on the same objects."""
    store = repository.store
    get: Callable[[str], bytes] = store.get
    return Reader(get, lambda prefix: [name for name, _ in store.list(prefix)], PASSWORD)


@settings(max_examples=25, deadline=None)
@given(directories)
def test_a_directory_comes_back_as_it_was(repository: Repository, entries: dict[bytes, object]) -> None:
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "source", Path(name) / "target"
        build(os.fsencode(source), entries)

        with repository.writer() as writer:
            archive = writer.backup(str(source))
        restoration = repository.restore(archive.tree, str(target))

        wanted = on_disk(source)
        assert (archive.warnings, restoration.warnings) == ((), ())
        assert on_disk(target) == wanted
        assert by_engine(repository, archive.tree) == wanted
        assert linked(independent(repository).restore(archive.tree)) == wanted
