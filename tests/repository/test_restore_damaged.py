"""A restore from a damaged repository: all that can be had comes back, and what cannot is told, path by path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backstay.repository import Corrupted, Repository, Restoration, Snapshot, Unreachable
from backstay.repository.crew import Crew
from backstay.repository.format.blob import BlobType
from backstay.repository.format.tree import Node
from backstay.repository.repair.under_repair import UnderRepair
from tests.repository.conftest import PASSWORD
from tests.repository.filesystem import MIB, noise
from tests.repository.test_cli import backstay_at
from tests.unit.repository.memory_store import MemoryStore

FILES = ("a", "b", "c", "large")


class Stored:
    """A directory in a repository in memory; what it holds can be damaged."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.store = MemoryStore()
        self.repository = Repository.init(self.store, PASSWORD)
        with self.repository.writer() as writer:
            self.tree = writer.backup(str(source)).tree

    def blobs(self, path: str) -> list[bytes]:
        node: Node = self.repository.find(self.tree, path)
        return [bytes.fromhex(text) for text in node.content or ()]

    def flip(self, kind: BlobType, blob_id: bytes) -> None:
        location = self.repository.ready().locate(kind, blob_id)
        name = f"data/{location.pack.hex()[:2]}/{location.pack.hex()}"
        content = bytearray(self.store.objects[name])
        content[location.offset + 20] ^= 1
        self.store.objects[name] = bytes(content)

    def store_again(self, blobs: list[bytes]) -> None:
        """Put some blobs of data into another pack too, behind the first in the index."""
        contents = [self.repository.reader.blob(BlobType.DATA, blob) for blob in blobs]
        with UnderRepair(self.repository).writer() as writer:
            for content in contents:
                writer.save_blob(BlobType.DATA, content)
        self.repository.forget_index()

    def restore(self, target: Path, **options: object) -> Restoration:
        return Repository.open(self.store, PASSWORD).restore(self.tree, str(target), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def processes() -> Iterator[Crew]:
    with Crew(2) as crew:
        yield crew


@pytest.fixture(params=[False, True], ids=["threads", "processes"])
def crew(request: pytest.FixtureRequest, processes: Crew) -> Crew | None:
    return processes if request.param else None


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    for number, name in enumerate(("a", "b", "c")):
        (source / name).write_bytes(noise(3000, number))
    (source / "large").write_bytes(noise(20 * MIB, 9))
    (source / "sub" / "inner").write_bytes(b"inner")
    return Stored(source)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def whole(stored: Stored, target: Path, names: tuple[str, ...]) -> bool:
    return all((target / name).read_bytes() == (stored.source / name).read_bytes() for name in names)


def told(done: Restoration) -> list[str]:
    return [warning.path for warning in done.warnings if warning.kind == "error"]


@pytest.mark.parametrize("lost", FILES)
def test_a_damaged_blob_costs_only_the_files_that_need_it(
    stored: Stored, target: Path, crew: Crew | None, lost: str
) -> None:
    stored.flip(BlobType.DATA, stored.blobs(lost)[-1])

    done = stored.restore(target, crew=crew)

    others = tuple(name for name in (*FILES, "sub/inner") if name != lost)
    assert whole(stored, target, others)
    assert not (target / lost).exists()
    assert (done.damaged, told(done), done.files_restored) == (1, [f"/{lost}"], 4)
    assert "check --read-data" in done.warnings[0].message
    assert stored.blobs(lost)[-1].hex() in done.warnings[0].message


def test_a_pack_that_is_gone_costs_only_the_files_in_it(stored: Stored, target: Path, crew: Crew | None) -> None:
    pack = stored.repository.ready().locate(BlobType.DATA, stored.blobs("large")[-1]).pack
    del stored.store.objects[f"data/{pack.hex()[:2]}/{pack.hex()}"]
    kept = {
        name
        for name in FILES
        if all(stored.repository.reader.locate(BlobType.DATA, blob).pack != pack for blob in stored.blobs(name))
    }

    done = stored.restore(target, crew=crew)

    assert {name for name in FILES if (target / name).exists()} == kept
    assert done.damaged == len(FILES) - len(kept) + (not (target / "sub/inner").exists())
    assert all("is missing" in warning.message for warning in done.warnings)


def test_a_blob_that_no_index_knows_costs_only_the_files_that_need_it(stored: Stored, target: Path) -> None:
    lost = stored.blobs("b")[0]
    stored.repository.forget_index()
    repository = Repository.open(stored.store, PASSWORD)
    repository.ready()
    repository.index._buckets[BlobType.DATA].pop(lost[:2])

    done = repository.restore(stored.tree, str(target))

    assert told(done) == ["/b"]
    assert not (target / "b").exists()
    assert whole(stored, target, ("a", "c", "large"))


def test_what_was_there_before_stays_when_its_content_is_lost(stored: Stored, target: Path, crew: Crew | None) -> None:
    target.mkdir()
    (target / "a").write_bytes(b"what was there before")
    os.utime(target / "a", (1, 1))
    stored.flip(BlobType.DATA, stored.blobs("a")[0])

    done = stored.restore(target, crew=crew)

    assert told(done) == ["/a"]
    assert (target / "a").read_bytes() == b"what was there before"
    assert (target / "a").stat().st_mtime == 1
    assert "its old content stays:" in done.warnings[0].message


def test_a_large_file_that_could_only_be_written_in_part_is_told_so_and_restored_again_next_time(
    stored: Stored, target: Path
) -> None:
    target.mkdir()
    (target / "large").write_bytes(noise(20 * MIB, 10))
    before = dict(stored.store.objects)
    stored.flip(BlobType.DATA, stored.blobs("large")[-1])

    done = stored.restore(target)
    stored.store.objects = before
    again = stored.restore(target, overwrite="if-changed")

    assert told(done) == ["/large"]
    assert "in part overwritten" in done.warnings[0].message
    assert (again.damaged, again.files_updated) == (0, 1)
    assert whole(stored, target, FILES)


def test_a_damaged_directory_costs_what_is_in_it_and_nothing_that_was_there(stored: Stored, target: Path) -> None:
    (target / "sub").mkdir(parents=True)
    (target / "sub" / "other").write_bytes(b"nobody knows whether the snapshot has it")
    stored.flip(BlobType.TREE, bytes.fromhex(stored.repository.find(stored.tree, "sub").subtree))

    done = stored.restore(target, delete=True)

    assert (done.damaged, told(done)) == (1, ["/sub"])
    assert "its content is missing" in done.warnings[0].message
    assert whole(stored, target, FILES)
    assert os.listdir(target / "sub") == ["other"]


def test_without_the_root_there_is_nothing_to_restore(stored: Stored, target: Path) -> None:
    stored.flip(BlobType.TREE, bytes.fromhex(stored.tree))

    with pytest.raises(Corrupted, match=stored.tree):
        stored.restore(target)


def test_further_names_of_a_lost_file_are_lost_with_it(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "linked"
    source.mkdir()
    (source / "first").write_bytes(noise(3000, 1))
    os.link(source / "first", source / "second")
    stored = Stored(source)
    stored.flip(BlobType.DATA, stored.blobs("first")[0])

    done = stored.restore(target)

    assert (done.damaged, told(done)) == (2, ["/first", "/second"])
    assert os.listdir(target) == []


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_a_blob_is_taken_from_its_other_pack(stored: Stored, target: Path, crew: Crew | None, how: str) -> None:
    blobs = [*stored.blobs("a"), *stored.blobs("large")]
    stored.store_again(blobs)
    for blob in blobs:
        if how == "flipped":
            stored.flip(BlobType.DATA, blob)
    if how == "gone":
        pack = stored.repository.ready().locate(BlobType.DATA, blobs[-1]).pack
        del stored.store.objects[f"data/{pack.hex()[:2]}/{pack.hex()}"]

    done = stored.restore(target, crew=crew)

    lost = set(told(done))
    assert not lost & {"/a", "/large"}
    assert whole(stored, target, ("a", "large"))


def test_verifying_and_a_dry_run_pass_over_what_is_damaged(stored: Stored, target: Path) -> None:
    stored.flip(BlobType.DATA, stored.blobs("a")[0])

    done = stored.restore(target, verify=True)
    dry = stored.restore(target, dry_run=True)

    assert (done.damaged, done.verify_errors, done.files_verified) == (1, 0, 4)
    assert dry.damaged == 0  # nothing is fetched to find out


def test_what_is_no_damage_ends_a_restore_at_once(
    stored: Stored, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get: Callable[..., bytes] = stored.store.get
    trees = {stored.repository.ready().locate(BlobType.TREE, bytes.fromhex(stored.tree)).pack.hex()}

    def cut(name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.startswith("data/") and name.rpartition("/")[2] not in trees:
            raise Unreachable("the test has cut the connection")
        return get(name, offset, length)

    monkeypatch.setattr(stored.store, "get", cut)

    with pytest.raises(Unreachable):
        stored.restore(target)

    assert not any((target / name).exists() for name in FILES)


def test_on_the_command_line_a_restore_that_lacks_something_fails(stored: Stored, target: Path, tmp_path: Path) -> None:
    with stored.repository.writer() as writer:
        writer.commit(Snapshot(time=datetime.now(UTC), tree=stored.tree, paths=("/source",)))
    stored.flip(BlobType.DATA, stored.blobs("b")[0])
    place = tmp_path / "repository"
    for name, content in stored.store.objects.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)

    done = backstay_at(str(place), tmp_path).run("restore", "latest", "--target", str(target))

    assert done.returncode == 1
    assert b"/b: it is not restored" in done.stderr
    assert b"Error: 1 of the snapshot's entries could not be restored" in done.stderr
    assert whole(stored, target, ("a", "c", "large", "sub/inner"))
