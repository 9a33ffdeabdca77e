"""A backup that several processes share is the same backup, and tells what happens to them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import pytest

from backstay.repository import Progress, Repository, RepositoryError, Snapshot, StoreRefused
from backstay.repository.crew import Crew
from backstay.repository.errors import WorkerFailed
from backstay.repository.format.blob import BlobType
from backstay.repository.stores.store import Buffer
from tests.unit.repository.memory_store import MemoryStore

LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def crew() -> Iterator[Crew]:
    with Crew(2) as crew:
        yield crew


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    for number in range(40):
        directory = root / f"{number // 10}" / f"{number:02d}"
        directory.mkdir(parents=True)
        for file in range(15):
            (directory / f"{file}.txt").write_bytes(b"%d of %d" % (file, number % 7))
    (root / "large").write_bytes(os.urandom(20 << 20))
    os.link(root / "large", root / "3" / "same")
    (root / "0" / "link").symlink_to("../large")
    return root


def test_the_tree_is_the_one_that_a_single_process_makes(crew: Crew, source: Path) -> None:
    shared, alone = Repository.init(MemoryStore(), "p"), Repository.init(MemoryStore(), "p")

    with shared.writer() as writer:
        by_crew = writer.backup(str(source), name="data", crew=crew)
    alone._seed = shared._seed
    with alone.writer() as writer:
        by_itself = writer.backup(str(source), name="data")

    assert by_crew.tree == by_itself.tree
    assert (by_crew.files, by_crew.dirs, by_crew.bytes) == (by_itself.files, by_itself.dirs, by_itself.bytes)
    assert by_crew.data_blobs == by_itself.data_blobs  # what two processes find at once is stored once


def test_one_crew_works_on_one_backup_after_the_other(crew: Crew, source: Path) -> None:
    repository = Repository.init(MemoryStore(), "p")

    with repository.writer() as writer:
        first = writer.backup(str(source), crew=crew)
        writer.flush()
        parent = Snapshot(time=LATER, tree=first.tree, paths=("/x",))
        second = writer.backup(str(source), parent=parent, crew=crew)
        (source / "2" / "20" / "3.txt").write_bytes(b"new")
        os.utime(source / "2" / "20" / "4.txt", ns=(1, 1))
        third = writer.backup(str(source), parent=parent, crew=crew)

    assert second.tree == first.tree
    assert (second.files_unmodified, second.dirs_unmodified) == (602, 45)
    assert (third.files_changed, third.files_unmodified) == (2, 600)
    assert third.tree != first.tree


def test_progress_adds_up(crew: Crew, source: Path) -> None:
    repository = Repository.init(MemoryStore(), "p")
    told: list[Progress] = []

    with repository.writer() as writer:
        archive = writer.backup(str(source), crew=crew, progress=told.append)

    assert (told[-1].files, told[-1].bytes) == (archive.files, archive.bytes)


def test_a_process_that_is_killed_fails_the_backup(crew: Crew, source: Path) -> None:
    repository = Repository.init(MemoryStore(), "p")
    os.kill(crew._pids[0], signal.SIGKILL)

    with pytest.raises(WorkerFailed, match="want of memory"), repository.writer() as writer:
        writer.backup(str(source), crew=crew)

    assert not crew.usable


class FullStore(MemoryStore):
    """Takes no packs, and takes its time to say so."""

    seconds = 0.0

    def put(self, name: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        if name.startswith("data/"):
            time.sleep(self.seconds)
            raise StoreRefused("writing: the bucket's quota is reached")
        super().put(name, data, sha256=sha256)


@pytest.fixture
def impatient() -> Iterator[None]:
    """What waits for ever fails."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("seconds", [0.0, 3.0], ids=["at once", "when all memory is taken"])
@pytest.mark.usefixtures("impatient")
def test_an_upload_that_fails_ends_the_walk(crew: Crew, tmp_path: Path, seconds: float) -> None:
    store = FullStore()
    store.seconds = seconds
    repository = Repository.init(store, "p")
    for number in range(20):
        (tmp_path / str(number)).write_bytes(os.urandom(17 << 20))

    with pytest.raises(RepositoryError, match="quota"), repository.writer() as writer:
        writer.backup(str(tmp_path), crew=crew)

    assert repository.snapshot_ids() == []


@pytest.mark.usefixtures("impatient")
def test_directories_with_trees_larger_than_a_pipe_do_not_block_each_other(crew: Crew, tmp_path: Path) -> None:
    for directory in range(5):
        (tmp_path / str(directory)).mkdir()
        for number in range(8000):
            (tmp_path / str(directory) / f"{number}-{directory}").write_bytes(b"%d %d" % (number, directory))
    repository = Repository.init(MemoryStore(), "p")
    with repository.writer() as writer:
        first = writer.backup(str(tmp_path), crew=crew)
        writer.flush()
        for directory in range(5):
            os.utime(tmp_path / str(directory) / f"7-{directory}", ns=(1, 1))

        parent = Snapshot(time=LATER, tree=first.tree, paths=("/x",))
        second = writer.backup(str(tmp_path), parent=parent, crew=crew)

    assert second.files_changed == 5
    assert second.files_unmodified == 5 * 7999


def test_files_whose_blobs_were_lost_are_read_again(crew: Crew, source: Path) -> None:
    repository = Repository.init(MemoryStore(), "p")
    with repository.writer() as writer:
        first = writer.backup(str(source), crew=crew)
    parent = Snapshot(time=LATER, tree=first.tree, paths=("/x",))

    with repository.writer() as writer:
        repository.index._buckets[BlobType.DATA].clear()
        again = writer.backup(str(source), parent=parent, crew=crew)

    assert again.tree == first.tree
    assert again.files_changed >= 106  # of files with the same content one is enough
    assert again.data_blobs == first.data_blobs
