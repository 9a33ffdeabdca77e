"""Where named paths lie in a snapshot's tree."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from backstay.repository import Repository
from backstay.repository.archive.roots import Root, Saver, plan
from backstay.repository.errors import SourceError
from tests.unit.repository.memory_store import MemoryStore


def leaves(root: Root, at: str = "") -> dict[str, str]:
    """Places in the tree, and what on the disk is there."""
    found = {at or "/": root.source.decode()} if root.source else {}
    for name, below in root.entries.items():
        found |= leaves(below, f"{at}/{name.decode()}")
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for directory in ("a/b", "a/c", "x/a"):
        (tmp_path / directory).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    return tmp_path


def test_an_absolute_path_lies_below_all_of_its_directories(here: Path) -> None:
    assert leaves(plan(["/srv/shop/"])) == {"/srv/shop": "/srv/shop"}


def test_a_directory_without_a_name_is_the_root_itself(here: Path) -> None:
    assert leaves(plan(["."])) == {"/": "."}
    assert leaves(plan(["/"])) == {"/": "/"}


def test_beside_others_its_entries_are_listed(here: Path) -> None:
    assert leaves(plan([".", "/srv"])) == {"/b": "b", "/c": "c", "/srv": "/srv"}


def test_a_path_below_another_is_there_even_on_another_file_system(here: Path) -> None:
    assert leaves(plan(["../a", "../a/b/"])) == {"/a/b": "../a/b", "/a/c": "../a/c"}


def test_equal_names_of_different_directories_get_numbers(here: Path) -> None:
    assert leaves(plan(["../a", "../x/a", "b", "../../b"])) == {
        "/a": "../a",
        "/x/a": "../x/a",
        "/b": "b",
        "/b-1": "../../b",
    }


def test_a_path_named_twice_is_there_once(here: Path) -> None:
    assert leaves(plan(["b", "./b/", "b"])) == {"/b": "b"}


def test_a_directory_that_must_be_listed_and_cannot_is_told(here: Path) -> None:
    with pytest.raises(SourceError, match="gone"):
        plan(["gone", "gone/further"])


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second file system")
def test_hard_links_of_two_file_systems_are_told_apart_and_those_of_one_are_not(tmp_path: Path) -> None:
    repository = Repository.init(MemoryStore(), "p")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        here, there = tmp_path / "here", Path(name)
        for directory in (here / "a", here / "b"):
            directory.mkdir(parents=True)
        (here / "a" / "file").write_bytes(b"h")
        os.link(here / "a" / "file", here / "b" / "file")
        (there / "file").write_bytes(b"t")
        os.link(there / "file", there / "again")

        with repository.writer() as writer:
            saver = Saver(repository, writer, writer.backup)
            archive = saver.save(plan([str(here / "a"), str(here / "b"), str(there), str(here / "a" / "file")]))

    numbers: dict[str, set[int]] = {}
    for path, node in repository.walk(archive.tree):
        if node.type == "file":
            numbers.setdefault("there" if name[1:] in path else "here", set()).add(node.device_id)
    assert len(numbers["here"]) == len(numbers["there"]) == 1
    assert numbers["here"] != numbers["there"]
