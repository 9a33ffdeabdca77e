"""Nothing that was changed in the bucket is believed: each damage is found on reading, and told by name."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backstay.repository import (
    Corrupted,
    Repository,
    RepositoryError,
    Restoration,
    S3Store,
    Snapshot,
    WrongPassword,
)
from tests.repository.conftest import PASSWORD
from tests.repository.filesystem import noise
from tests.repository.test_referee import backup


@pytest.fixture
def stored(repository: Repository, tmp_path: Path) -> Snapshot:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(noise(3000, 1))
    return backup(repository, source)[0]


def flip(store: S3Store, name: str, position: int) -> None:
    """Change one bit of an object, as a failing disk would."""
    content = bytearray(store.get(name))
    content[position] ^= 0x10
    store.put(name, bytes(content))


def read_everything(store: S3Store, target: Path) -> Restoration:
    """Open the repository anew and restore its one snapshot."""
    repository = Repository.open(store, PASSWORD)
    (snapshot,) = repository.snapshots()
    return repository.restore(snapshot.tree, str(target))


def names(store: S3Store, prefix: str) -> list[str]:
    return [name for name, _ in store.list(prefix)]


@pytest.mark.parametrize("kind", ["index/", "snapshots/", "keys/", "config"])
@pytest.mark.parametrize("position", [0, 20, -1])
def test_a_flipped_bit_is_found(stored: Snapshot, store: S3Store, tmp_path: Path, kind: str, position: int) -> None:
    (name,) = names(store, kind)
    flip(store, name, position)

    with pytest.raises((Corrupted, WrongPassword)) as caught:
        read_everything(store, tmp_path / "target")

    assert name in str(caught.value) or name.partition("/")[2] in str(caught.value) or kind in str(caught.value)
    assert not (tmp_path / "target" / "data" / "file").exists()


@pytest.mark.parametrize("position", [0, 17, 1000, 2990])
def test_a_flipped_bit_in_a_pack_is_found_before_a_byte_is_written(
    stored: Snapshot, store: S3Store, tmp_path: Path, position: int
) -> None:
    packs = names(store, "data/")
    data_pack = max(packs, key=lambda name: len(store.get(name)))
    flip(store, data_pack, position)

    done = read_everything(store, tmp_path / "target")

    assert [(warning.path, warning.kind) for warning in done.warnings] == [("/data/file", "error")]
    assert data_pack.rpartition("/")[2] in done.warnings[0].message
    assert not (tmp_path / "target" / "data" / "file").exists()


def test_a_flipped_bit_in_a_tree_is_found(stored: Snapshot, store: S3Store, tmp_path: Path) -> None:
    packs = names(store, "data/")
    tree_pack = min(packs, key=lambda name: len(store.get(name)))
    flip(store, tree_pack, 40)

    done = read_everything(store, tmp_path / "target")

    assert [(warning.path, warning.kind) for warning in done.warnings] == [("/data", "error")]
    assert "tree blob" in done.warnings[0].message


def test_a_missing_pack_is_named(stored: Snapshot, store: S3Store, tmp_path: Path) -> None:
    for name in names(store, "data/"):
        store.delete(name)

    with pytest.raises(Corrupted, match="is missing"):
        read_everything(store, tmp_path / "target")


def test_a_truncated_pack_is_found(stored: Snapshot, store: S3Store, tmp_path: Path) -> None:
    for name in names(store, "data/"):
        store.put(name, store.get(name)[:30])

    with pytest.raises(Corrupted):
        read_everything(store, tmp_path / "target")


def test_packs_that_were_swapped_are_found(stored: Snapshot, store: S3Store, tmp_path: Path) -> None:
    first, second = names(store, "data/")
    one, other = store.get(first), store.get(second)
    store.put(first, other)
    store.put(second, one)

    with pytest.raises(Corrupted):
        read_everything(store, tmp_path / "target")


def test_one_broken_snapshot_does_not_hide_the_others(stored: Snapshot, repository: Repository, store: S3Store) -> None:
    with repository.writer() as writer:
        other = writer.commit(Snapshot(time=datetime.now(UTC), tree=stored.tree, paths=("/other",)))
    flip(store, f"snapshots/{stored.id}", 50)
    broken: dict[str, RepositoryError] = {}

    found = list(Repository.open(store, PASSWORD).snapshots(on_error=broken.__setitem__))

    assert [snapshot.id for snapshot in found] == [other]
    assert list(broken) == [stored.id]


def test_known_snapshots_are_not_downloaded(stored: Snapshot, repository: Repository, store: S3Store) -> None:
    flip(store, f"snapshots/{stored.id}", 50)

    assert list(repository.snapshots(ids_known={stored.id})) == []


def test_a_file_is_restored_whole_or_not_at_all(stored: Snapshot, store: S3Store, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "data").mkdir(parents=True)
    (target / "data" / "file").write_bytes(b"what was there before")

    read_everything(store, target)

    assert os.path.getsize(target / "data" / "file") == 3000
