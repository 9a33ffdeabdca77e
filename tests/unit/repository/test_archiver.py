"""What happens to files while they are backed up is seen and told."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backstay.repository import Archive, Progress, Repository, Snapshot, SourceError
from tests.unit.repository.memory_store import MemoryStore


@pytest.fixture
def repository() -> Repository:
    return Repository.init(MemoryStore(), "password")


def names(repository: Repository, archive: Archive) -> list[str]:
    return [path for path, _ in repository.walk(archive.tree)]


def test_a_file_that_grows_while_it_is_read_is_told(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (9 << 20))

    def grow(at: Progress) -> None:
        with (tmp_path / "file").open("ab") as file:
            file.write(b"more")

    with repository.writer() as writer:
        archive = writer.backup(str(tmp_path), progress=grow)

    assert archive.changed_while_read == 1
    assert archive.warnings[0].path == "/file"
    assert "changed while it was read" in archive.warnings[0].message


def test_a_file_that_is_truncated_while_it_is_read_is_told(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(40 << 20))

    def truncate(at: Progress) -> None:
        os.truncate(tmp_path / "file", 1)

    with repository.writer() as writer:
        archive = writer.backup(str(tmp_path), progress=truncate)

    assert archive.changed_while_read == 1
    content = b"".join(repository.read_file(repository.find(archive.tree, "file")))
    assert len(content) == repository.find(archive.tree, "file").size < 40 << 20


def test_a_file_that_vanishes_is_told(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")

    with repository.writer() as writer:
        archive = writer.backup(str(tmp_path), progress=lambda at: (tmp_path / "b").unlink(missing_ok=True))

    assert names(repository, archive) == ["a"]
    assert [(warning.path, warning.message) for warning in archive.warnings] == [
        ("/b", "vanished while the backup ran")
    ]


def test_files_and_directories_that_cannot_be_read_are_told(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").write_bytes(b"c")
    (tmp_path / "directory").mkdir()
    (tmp_path / "open").write_bytes(b"o")
    real_open = os.open

    def denied_open(path: str | bytes, *rest: int, **place: int) -> int:
        if os.fsencode(path) in (b"closed", b"directory"):
            raise PermissionError(13, "Permission denied")
        return real_open(path, *rest, **place)

    monkeypatch.setattr(os, "open", denied_open)  # the tests may run as root, whom no mode keeps out
    with repository.writer() as writer:
        archive = writer.backup(str(tmp_path))

    assert names(repository, archive) == ["directory", "open"]
    assert {warning.path for warning in archive.warnings} == {"/closed", "/directory"}
    assert archive.warning_count == 2


@pytest.mark.parametrize("path", ["missing", "file"])
def test_a_root_that_is_no_directory_is_an_error(repository: Repository, tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(SourceError), repository.writer() as writer:
        writer.backup(str(tmp_path / path))


def test_a_hundred_warnings_are_kept_and_all_are_counted(repository: Repository, tmp_path: Path) -> None:
    for number in range(150):
        (tmp_path / f"{number:03d}").write_bytes(b"")

    def remove(at: Progress) -> None:
        for number in range(1, 150):
            (tmp_path / f"{number:03d}").unlink(missing_ok=True)

    with repository.writer() as writer:
        archive = writer.backup(str(tmp_path), progress=remove)

    assert archive.warning_count == 149
    assert len(archive.warnings) == 100


def test_a_tree_deeper_than_pythons_stack_is_stored_and_restored(repository: Repository, tmp_path: Path) -> None:
    source, target = tmp_path / "s", tmp_path / "t"
    path = os.fspath(source)
    for _ in range(1501):
        os.mkdir(path)
        path += "/d"

    try:
        with repository.writer() as writer:
            archive = writer.backup(str(source))
        restored = repository.restore(archive.tree, str(target))
    finally:
        subprocess.run(["rm", "-rf", str(source), str(target)], check=True)  # shutil's way of doing it recurses

    assert archive.dirs == 1501
    assert restored.dirs == 1500


def test_the_parent_saves_reading(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with repository.writer() as writer:
        first = writer.backup(str(tmp_path))
    parent = Snapshot(time=datetime(2100, 1, 1, tzinfo=UTC), tree=first.tree, paths=("/x",))

    real_open = os.open

    def no_file(path: str | bytes, flags: int, *rest: int, **place: int) -> int:
        assert flags & os.O_DIRECTORY, f"{path!r} was opened"
        return real_open(path, flags, *rest, **place)

    monkeypatch.setattr(os, "open", no_file)
    with repository.writer() as writer:
        second = writer.backup(str(tmp_path), parent=parent)

    assert second.tree == first.tree
    assert second.files_unmodified == 1
