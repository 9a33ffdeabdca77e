"""Whatever bytes come from the bucket, parsers answer with a result or a clear error: no crash, no hang, no flood.

Bytes that are merely damaged do not get past a hash or an authentication code. What is fuzzed here comes after that:
it is what somebody sends who holds the keys, or what a program of theirs wrote wrongly; and key files, which nothing
seals.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backstay.repository import Corrupted, Repository, RepositoryError, Snapshot, keys
from backstay.repository.check.checker import check
from backstay.repository.check.pack_check import open_header
from backstay.repository.check.subset import Subset
from backstay.repository.format import config, pack, snapshot, tree
from backstay.repository.format import index as index_file
from backstay.repository.format.blob import BlobType, Codec
from backstay.repository.format.crypto import Key
from backstay.repository.format.index import Index
from backstay.repository.format.node_check import node_fault
from backstay.repository.format.tree import Node
from backstay.repository.lock import read_locks
from tests.unit.repository.memory_store import MemoryStore

TIME = datetime(2026, 11, 24, tzinfo=UTC)
ID = "ab" * 32
KEY = Key(bytes(range(32)), bytes(range(16)), bytes(range(16, 32)))
CODEC = Codec(KEY)
THOROUGH = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
BRIEF = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


# --- the parsers -----------------------------------------------------------------------------------------------------


def read_pack_header(data: bytes) -> None:
    for entry in pack.parse_header(data, "pack"):
        assert len(entry.id) == 32
        assert 0 <= entry.length < 1 << 32


def read_index(data: bytes) -> None:
    Index().load(data, "index/x")
    for pack_id, entries in index_file.decode(data, "index/x"):
        assert len(pack_id) == 32
        for entry in entries:
            assert len(entry.id) == 32
            assert all(0 <= number < 1 << 32 for number in entry[2:])


def read_tree(data: bytes) -> None:
    for raw in tree.decode_raw(data, "x"):
        node_fault(raw)
    nodes = tree.decode(data, "x")
    with suppress(ValueError):  # two of one name
        assert tree.decode(tree.encode(nodes), "x") is not None


def read_snapshot(data: bytes) -> None:
    found = snapshot.decode(data, ID)
    assert len(found.tree) == 64
    snapshot.decode(snapshot.encode(found), ID)


def read_config(data: bytes) -> None:
    found = config.decode(data)
    assert len(found.id) == 64
    assert 0 < found.polynomial < 1 << 64


def read_key(data: bytes) -> None:
    store = MemoryStore({f"keys/{hashlib.sha256(data).hexdigest()}": data})
    keys.search(store, "password")


def read_lock(data: bytes) -> None:
    sealed = CODEC.seal_file(data)
    store = MemoryStore({f"locks/{hashlib.sha256(sealed).hexdigest()}": sealed})
    for found in read_locks(store, CODEC):
        found.stale(TIME)
        found.abandoned(TIME)
        assert str(found)


def read_file(data: bytes) -> None:
    CODEC.open_file(data, f"index/{hashlib.sha256(data).hexdigest()}")


def read_sealed(data: bytes) -> None:
    read_file(KEY.seal(data))


def read_blob(data: bytes) -> None:
    sealed = KEY.seal(data)
    for plain_length in (0, 1, len(data), (1 << 32) - 1):
        with suppress(Corrupted):
            CODEC.open_blob(sealed, plain_length, bytes(32), "a blob")
        with suppress(Corrupted):
            list(CODEC.open_stream(sealed, plain_length, bytes(32), "a blob"))


def read_pack_end(data: bytes) -> None:
    list(pack.parse_header(open_header(CODEC, data), "pack"))
    list(pack.parse_header(open_header(CODEC, KEY.seal(data) + struct.pack("<I", len(data) + 32)), "pack"))


PARSERS: dict[str, Callable[[bytes], None]] = {
    "pack header": read_pack_header,
    "end of a pack": read_pack_end,
    "index": read_index,
    "tree": read_tree,
    "snapshot": read_snapshot,
    "config": read_config,
    "key": read_key,
    "lock": read_lock,
    "file": read_file,
    "sealed file": read_sealed,
    "blob": read_blob,
}

# --- valid documents to start from -----------------------------------------------------------------------------------

MOMENT = "2026-11-24T10:00:00.123456789+01:00"
DOCUMENTS: dict[str, dict[str, Any]] = {
    "index": {
        "packs": [
            {
                "id": ID,
                "blobs": [
                    {"id": ID, "type": "data", "offset": 0, "length": 99, "uncompressed_length": 500},
                    {"id": ID, "type": "tree", "offset": 99, "length": 80},
                ],
            }
        ]
    },
    "tree": {
        "nodes": [
            {
                "name": "a\\xffb", "type": "file", "mode": 420, "mtime": MOMENT, "atime": MOMENT, "ctime": MOMENT,
                "uid": 1, "gid": 1, "user": "u", "group": "g", "inode": 7, "device_id": 3, "size": 99, "links": 2,
                "extended_attributes": [{"name": "user.x", "value": "AAAA"}], "content": [ID, ID],
            },
            {"name": "d", "type": "dir", "mode": 2147484141, "mtime": MOMENT, "atime": MOMENT, "ctime": MOMENT,
             "uid": 0, "gid": 0, "content": None, "subtree": ID},
            {"name": "s", "type": "symlink", "mtime": MOMENT, "atime": MOMENT, "ctime": MOMENT, "uid": 0, "gid": 0,
             "linktarget": "x", "linktarget_raw": "/w==", "content": None},
        ]
    },
    "snapshot": {
        "time": MOMENT, "parent": ID, "tree": ID, "paths": ["/x"], "hostname": "h", "username": "u", "uid": 1, "gid": 1,
        "excludes": ["*.o"], "tags": ["a"], "original": ID, "program_version": "restic 0.19.1",
        "summary": {"backup_start": MOMENT, "backup_end": MOMENT, "files_new": 1, "total_bytes_processed": 5},
    },
    "config": {"version": 2, "id": ID, "chunker_polynomial": "3da3358b4dc173"},
    "key": {
        "created": MOMENT, "username": "u", "hostname": "h", "kdf": "scrypt", "N": 16, "r": 1, "p": 1,
        "salt": "AAAAAAAAAAA=", "data": "AAAA",
    },
    "lock": {"time": MOMENT, "exclusive": True, "hostname": "h", "username": "u", "pid": 1, "uid": 0, "gid": 0},
}  # fmt: skip

HOSTILE_VALUES: list[Any] = [
    None, True, -1, 0, 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 63), 10**30, 1.5, 1e308, "", "\0",
    "..", "/", "x" * 1000, "é\U0001f600\u2028", ID, ID.upper(), ID[:-1], ID + "0", " " * 64, "ab " * 32, "0" * 64,
    "9999-12-31T23:59:59.999999999-23:59", "0000-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z",
    "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "٢٠٢٦-01-01T00:00:00Z", "0x3da3358b4dc173", "-3da3358b4dc173",
    "1_0", "\\x", "\\400", "\\ud800", "a\\\"b", [], [[]], {}, {"a": 1}, ["x"], [None],
]  # fmt: skip


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values of a document."""
    yield path
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, (*path, key))
    elif isinstance(document, list):
        for position, value in enumerate(document):
            yield from places(value, (*path, position))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = dict(document) if isinstance(document, dict) else list(document)
    changed[path[0]] = replaced(document[path[0]], path[1:], value)
    return changed


def survives(parser: Callable[[bytes], None], data: bytes) -> bool:
    """Whether the parser took the data; any error but a clear one fails the test."""
    try:
        parser(data)
    except RepositoryError as error:
        told = str(error)
    else:
        return True
    assert told
    assert len(told) < 1000  # it names what is wrong, and does not repeat it
    return False


# --- any bytes, and documents that were changed ----------------------------------------------------------------------


@pytest.mark.parametrize("name", PARSERS)
@THOROUGH
@given(data=st.binary(max_size=300))
def test_any_bytes_are_taken_or_refused(name: str, data: bytes) -> None:
    survives(PARSERS[name], data)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_documents_are_valid_to_begin_with(name: str) -> None:
    data = json.dumps(DOCUMENTS[name]).encode()

    if name == "key":  # it is another password's
        with pytest.raises(RepositoryError, match="no key opens"):
            read_key(data)
    else:
        PARSERS[name](data)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_any_value_in_any_place_is_taken_or_refused(name: str) -> None:
    document = DOCUMENTS[name]
    for path in places(document):
        for value in HOSTILE_VALUES:
            survives(PARSERS[name], json.dumps(replaced(document, path, value)).encode())


@pytest.mark.parametrize("name", DOCUMENTS)
@THOROUGH
@given(st.data())
def test_documents_with_some_bytes_changed_are_taken_or_refused(name: str, data: st.DataObject) -> None:
    document = bytearray(json.dumps(DOCUMENTS[name]).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(document) - 1))
        kind = data.draw(st.sampled_from(["set", "insert", "cut", "repeat"]))
        if kind == "set":
            document[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            document[at:at] = data.draw(st.binary(max_size=8))
        elif kind == "cut":
            del document[at : at + data.draw(st.integers(1, 20))]
        else:
            document[at:at] = document[at : at + data.draw(st.integers(1, 60))]
        document = document or bytearray(b"{")

    survives(PARSERS[name], bytes(document))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_keys_that_come_twice_are_taken_or_refused(name: str) -> None:
    text = json.dumps(DOCUMENTS[name])
    survives(PARSERS[name], (text[:-1] + "," + text[1:]).encode())
    survives(PARSERS[name], (text[:-1] + ',"time":1,"nodes":[],"packs":null}').encode())


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"packs":[', b'{"nodes":[', b'{"summary":', b'{"tree":'])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_nesting_without_end_is_refused(name: str, opening: bytes) -> None:
    assert not survives(PARSERS[name], opening * 100_000)
    known = json.dumps(DOCUMENTS[name]).encode()
    survives(PARSERS[name], known[:-1] + b',"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_texts_and_numbers_of_a_megabyte_are_taken_or_refused(name: str) -> None:
    for path in places(DOCUMENTS[name]):
        for value in ("A" * (1 << 20), "\\x41" * (1 << 16), '"' * (1 << 16)):
            survives(PARSERS[name], json.dumps(replaced(DOCUMENTS[name], path, value)).encode())
        number = json.dumps(replaced(DOCUMENTS[name], path, 12345678)).replace("12345678", "9" * (1 << 20))
        survives(PARSERS[name], number.encode())


# --- what would take all time or memory ------------------------------------------------------------------------------


def peak(work: Callable[[], object]) -> int:
    """Bytes that the work held at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def frame(size: int, *, told: bool) -> bytes:
    """A zstandard frame of so many zeros, which says so or not."""
    out = io.BytesIO()
    compressor = zstandard.ZstdCompressor(write_content_size=told)
    with compressor.stream_writer(out, size=size if told else -1, closefd=False) as writer:
        for _ in range(size >> 20):
            writer.write(bytes(1 << 20))
    return out.getvalue()


def lying_frame(claimed: int) -> bytes:
    """A frame of a few bytes that says it holds very many."""
    return struct.pack("<IBQ", 0xFD2FB528, 0xE0, claimed) + b"\x01\x00\x00"


@pytest.mark.parametrize("claimed", [1 << 29, 1 << 31, (1 << 32) - 1, 1 << 62])
def test_a_frame_that_claims_more_than_it_can_hold_takes_no_memory(claimed: int) -> None:
    data = lying_frame(claimed)

    def work() -> None:
        assert not survives(read_sealed, b"\x02" + data)
        with pytest.raises(Corrupted):
            CODEC.open_blob(KEY.seal(data), min(claimed, (1 << 32) - 1), bytes(32), "a blob")

    assert peak(work) < 8 << 20


@pytest.mark.parametrize("told", [True, False])
def test_a_blob_that_holds_more_than_the_index_says_takes_no_memory(told: bool) -> None:
    sealed = KEY.seal(frame(64 << 20, told=told))

    def work() -> None:
        with pytest.raises(Corrupted):
            CODEC.open_blob(sealed, 1000, bytes(32), "a blob")

    assert peak(work) < 8 << 20


def test_a_file_that_is_a_bomb_is_refused() -> None:
    data = frame(160 << 20, told=False)

    def work() -> None:
        assert not survives(read_sealed, b"\x02" + data)

    assert peak(work) < 300 << 20


def test_a_small_file_takes_little_memory_though_it_does_not_tell_its_size() -> None:
    data = frame(1 << 20, told=False)

    assert peak(lambda: read_sealed(b"\x02" + data)) < 16 << 20


@pytest.mark.parametrize("form", [(1 << 24, 1, 64), (1 << 20, 4, 64), (65536, 64, 64), (1 << 22, 1, 64), (2, 64, 64)])
def test_a_key_file_cannot_keep_us_busy(form: tuple[int, int, int]) -> None:
    n, r, p = form
    document = {**DOCUMENTS["key"], "N": n, "r": r, "p": p}
    asked = []

    original = keys._derive

    def derive(password: str, salt: bytes, n: int, r: int, p: int) -> Key:
        asked.append(n * r * p)
        return original(password, salt, 2, 1, 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "_derive", derive)
        survives(read_key, json.dumps(document).encode())

    assert all(cost <= 1 << 23 for cost in asked)  # some 32 times of what restic asks for


# --- whole repositories ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base() -> MemoryStore:
    store = MemoryStore()
    repository = Repository.init(store, "password")
    with repository.writer() as writer:
        blob = writer.save_blob(BlobType.DATA, b"content")
        node = Node(name="f", type="file", size=7, content=(blob.hex(),))
        root = writer.save_blob(BlobType.TREE, tree.encode([node]))
        writer.commit(Snapshot(time=TIME, tree=root.hex(), paths=("/x",)))
    return store


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just(ID) | st.just(MOMENT),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@BRIEF
@given(st.data())
def test_a_check_gets_through_whatever_is_sealed(base: MemoryStore, data: st.DataObject) -> None:
    store = MemoryStore(base.objects)
    repository = Repository.open(store, "password")
    codec = repository.codec
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["index", "snapshot"]))
        document = DOCUMENTS[kind]
        path = data.draw(st.sampled_from(list(places(document))))
        value = data.draw(st.sampled_from(HOSTILE_VALUES) | JSON)
        sealed = codec.seal_file(json.dumps(replaced(document, path, value)).encode())
        directory = {"index": "index", "snapshot": "snapshots"}[kind]
        store.objects[f"{directory}/{hashlib.sha256(sealed).hexdigest()}"] = sealed

    check(repository, read_data=Subset())


@BRIEF
@given(path=st.sampled_from(list(places(DOCUMENTS["tree"]))), value=st.sampled_from(HOSTILE_VALUES) | JSON)
def test_a_check_gets_through_whatever_tree(base: MemoryStore, path: tuple[Any, ...], value: Any) -> None:
    store = MemoryStore(base.objects)
    repository = Repository.open(store, "password")
    with repository.writer() as writer:
        document = json.dumps(replaced(DOCUMENTS["tree"], path, value)).encode()
        root = writer.save_blob(BlobType.TREE, document)
        writer.commit(Snapshot(time=TIME, tree=root.hex(), paths=("/y",)))

    check(repository, read_data=Subset())
