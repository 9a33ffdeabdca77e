"""Whatever fails, and wherever: what a snapshot needs is in the repository before the snapshot is."""

from __future__ import annotations

import hashlib
import itertools
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backstay.repository import (
    LockLost,
    Repository,
    RepositoryError,
    RepositoryExists,
    Snapshot,
    Subtree,
    Unreachable,
    UnsafeName,
)
from backstay.repository.format.pack import name as pack_name
from tests.unit.repository.memory_store import MemoryStore

TIME = datetime(2026, 11, 24, tzinfo=UTC)


def noise(size: int, seed: int) -> bytes:
    return hashlib.shake_128(b"%d" % seed).digest(size)


@pytest.fixture(scope="module")
def empty() -> dict[str, bytes]:
    """The objects of a repository without content."""
    store = MemoryStore()
    Repository.init(store, "password")
    return store.objects


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(2):
        (tmp_path / f"file-{number}").write_bytes(noise(9 << 20, number))
    return tmp_path


def back_up(store: MemoryStore, source: Path) -> str:
    repository = Repository.open(store, "password")
    with repository.writer("holder", index_blobs=10) as writer:
        archive = writer.backup(str(source))
        return writer.commit(Snapshot(time=TIME, tree=archive.tree, paths=("/x",)))


def test_who_prunes_while_a_writer_begins_ends_the_writing(source: Path) -> None:
    store = MemoryStore()
    Repository.init(store, "password")
    back_up(store, source)
    repository = Repository.open(store, "password")
    index = next(name for name, _ in store.list("index/"))

    def write() -> None:
        with repository.writer("holder") as writer:
            store.objects["index/" + "0" * 64] = store.objects.pop(index)  # by one who saw no lock of ours yet
            archive = writer.backup(str(source))
            writer.commit(Snapshot(time=TIME, tree=archive.tree, paths=("/x",)))

    with pytest.raises(LockLost, match="pruned"):
        write()

    assert len(list(store.list("snapshots/"))) == 1
    assert not list(store.list("locks/"))


def read_all(store: MemoryStore) -> int:
    """Read every file of every snapshot; the number of files."""
    repository = Repository.open(store, "password")
    count = 0
    for found in repository.snapshots():
        for _, node in repository.walk(found.tree):
            for _ in repository.read_file(node):
                pass
            count += 1
    return count


def test_packs_come_before_the_index_that_names_them_and_the_snapshot_comes_last(
    empty: dict[str, bytes], source: Path
) -> None:
    store = MemoryStore(empty)

    back_up(store, source)

    kinds = [name.partition("/")[0] for verb, name in store.history if verb == "put"]
    assert kinds[0] == "locks"
    assert kinds[-2:] == ["index", "snapshots"]
    assert kinds.count("data") >= 2
    assert store.history[-1][0] == "delete"
    assert store.history[-1][1].startswith("locks/")


@pytest.mark.exhaustive
def test_a_store_that_fails_at_any_change_leaves_a_good_repository(empty: dict[str, bytes], source: Path) -> None:
    for fail_at in itertools.count():
        store = MemoryStore(empty, fail_at=fail_at)
        with suppress(Unreachable):
            back_up(store, source)
        finished = any(name.startswith("snapshots/") for name in store.objects)
        store.fail_at = None

        assert read_all(store) == (2 if finished else 0)
        assert packs_named_in_indexes(store) <= packs_stored(store)
        if finished:
            break
        back_up(store, source)
        assert read_all(store) == 2
    assert fail_at > 4


def packs_named_in_indexes(store: MemoryStore) -> set[str]:
    repository = Repository.open(store, "password")
    repository.load_index()
    return {pack_name(pack_id) for pack_id in repository.index.packs()}


def packs_stored(store: MemoryStore) -> set[str]:
    return {name for name in store.objects if name.startswith("data/")}


def test_a_second_backup_uploads_nothing_but_its_snapshot(empty: dict[str, bytes], source: Path) -> None:
    store = MemoryStore(empty)
    back_up(store, source)
    store.history.clear()

    back_up(store, source)

    assert [name.partition("/")[0] for verb, name in store.history] == ["locks", "snapshots", "locks"]


def test_a_removed_lock_stops_the_writer_before_the_index(empty: dict[str, bytes]) -> None:
    store = MemoryStore(empty)
    repository = Repository.open(store, "password")

    def write() -> None:
        with repository.writer() as writer:
            writer.save_files({"a": b"b"}, TIME)
            for name in [name for name in store.objects if name.startswith("locks/")]:
                del store.objects[name]

    with pytest.raises(LockLost):
        write()

    assert not [name for name in store.objects if name.startswith(("index/", "snapshots/"))]


def test_what_no_index_names_is_stored_again_by_the_next_writer_of_an_open_repository(empty: dict[str, bytes]) -> None:
    store = MemoryStore(empty, fail_at=None)
    repository = Repository.open(store, "password")
    with suppress(Unreachable), repository.writer() as writer:
        writer.save_files({"a": b"b"}, TIME)
        store.fail_at = len(store.history) + 2  # two packs go through, their index does not
        writer.flush()
    store.fail_at = None
    assert packs_stored(store)
    assert not packs_named_in_indexes(store)

    with repository.writer() as writer:
        tree = writer.save_files({"a": b"b"}, TIME)

    fresh = Repository.open(store, "password")
    assert [b"".join(fresh.read_file(node)) for _, node in fresh.walk(tree)] == [b"b"]


def test_a_repository_is_not_made_over_another(empty: dict[str, bytes]) -> None:
    with pytest.raises(RepositoryExists):
        Repository.init(MemoryStore(empty), "password")


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "a/../b", ".", "x/..", "a\0b", "n" * 256])
def test_paths_that_no_directory_could_hold_are_refused(empty: dict[str, bytes], path: str) -> None:
    with Repository.open(MemoryStore(empty), "password").writer() as writer, pytest.raises(UnsafeName):
        writer.save_files({path: b""}, TIME)


@pytest.mark.parametrize(
    "files", [{"a": b"", "a/b": b""}, {"a/b": b"", "a": b""}, {"a": Subtree("0" * 64), "a/b": b""}]
)
def test_a_path_cannot_be_a_file_and_a_directory(empty: dict[str, bytes], files: dict[str, bytes | Subtree]) -> None:
    with Repository.open(MemoryStore(empty), "password").writer() as writer, pytest.raises(UnsafeName):
        writer.save_files(files, TIME)


def test_the_same_files_give_the_same_tree(empty: dict[str, bytes]) -> None:
    store = MemoryStore(empty)
    with Repository.open(store, "password").writer() as writer:
        first = writer.save_files({"a/b": b"1", "c": b"2"}, TIME)
        second = writer.save_files({"c": b"2", "a/b": b"1"}, TIME)

    assert first == second


def test_known_snapshots_are_not_read(empty: dict[str, bytes], source: Path) -> None:
    store = MemoryStore(empty)
    snapshot_id = back_up(store, source)
    repository = Repository.open(store, "password")
    store.reads.clear()

    assert list(repository.snapshots(ids_known={snapshot_id})) == []
    assert store.reads == []


def test_errors_have_a_reason_fit_for_a_condition() -> None:
    def all_below(kind: type[RepositoryError]) -> set[type[RepositoryError]]:
        return {kind}.union(*(all_below(below) for below in kind.__subclasses__()))

    for kind in all_below(RepositoryError):
        assert kind.reason.isalpha()
        assert kind.reason[0].isupper()
