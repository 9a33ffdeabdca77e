"""Whatever a file system can hold comes back, ours through restic and restic's through us, and what cannot is told."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyfastcdc  # noqa: F401  (a process without rights could not import it)
import pytest

from backstay.repository import Archive, Node, Repository, Snapshot, SourceError
from tests.repository.conftest import Restic
from tests.repository.filesystem import MIB, allocated, describe, make_odd_tree, noise
from tests.unit.repository.memory_store import MemoryStore

NOBODY = 65534
LATER = timedelta(hours=1)  # a parent from later on: no file's time is too close to it

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes devices, owners and mounts")


@pytest.fixture
def small_repository() -> Repository:
    return Repository.init(MemoryStore(), "password")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def store(repository: Repository, path: Path, **options: Any) -> tuple[Snapshot, Archive]:
    with repository.writer() as writer:
        archive = writer.backup(str(path), **options)
        snapshot = Snapshot(time=datetime.now(UTC), tree=archive.tree, paths=(str(path),), hostname="test")
        snapshot = replace(snapshot, id=writer.commit(snapshot))
    return snapshot, archive


def told(archive: Archive) -> dict[str, str]:
    """The first words of each warning, by path."""
    return {warning.path: warning.message for warning in archive.warnings}


def stored_by_restic(repository: Repository, referee: Restic, path: Path, *options: str) -> str:
    """The tree of a directory that restic has just backed up."""
    known = set(repository.snapshot_ids())
    referee("backup", *options, str(path))
    repository.load_index()
    (snapshot,) = repository.snapshots(known)
    return repository.find(snapshot.tree, str(path)).subtree


def paths(repository: Repository, tree_id: str) -> list[str]:
    return [path for path, _ in repository.walk(tree_id)]


# --- everything, all ways --------------------------------------------------------------------------------------------


@dataclass
class Odd:
    """A tree of oddities, stored by us and by restic in one repository."""

    source: Path
    snapshot: Snapshot
    archive: Archive
    theirs: str


@pytest.fixture
def odd(repository: Repository, referee: Restic, source: Path) -> Odd:
    make_odd_tree(source)
    snapshot, archive = store(repository, source)
    return Odd(source, snapshot, archive, stored_by_restic(repository, referee, source))


@needs_root
def test_everything_odd_comes_back_whoever_stored_and_whoever_restores(
    repository: Repository, referee: Restic, odd: Odd, tmp_path: Path
) -> None:
    repository.restore(odd.snapshot.tree, str(tmp_path / "ours by us"))
    repository.restore(odd.theirs, str(tmp_path / "theirs by us"))
    referee(
        "restore", odd.snapshot.id, "--target", str(tmp_path / "ours by restic"), "--sparse", "--include-xattr", "*"
    )

    referee.check()
    assert odd.archive.warnings == ()
    wanted = describe(odd.source)
    assert len(wanted) > 100
    for restored in ("ours by us", "ours by restic", "theirs by us"):
        assert describe(tmp_path / restored) == wanted, restored
        # restic leaves holes only for zeros at a blob's ends.
        assert allocated(tmp_path / restored / "sparse") < (8 if restored == "ours by restic" else 1) * MIB
    assert different_nodes(repository, odd.snapshot.tree, odd.theirs) == []


def different_nodes(repository: Repository, ours: str, theirs: str) -> list[tuple[str, str, Any, Any]]:
    """What restic would have said otherwise, but for what we choose: names of owners, access times, device numbers."""
    chosen = {"user", "group", "atime", "device_id", "subtree", "content"}
    differences = []
    other = dict(repository.walk(theirs))
    for path, node in repository.walk(ours):
        mine, yours = msgspec.structs.asdict(node), msgspec.structs.asdict(other.pop(path))
        differences += [(path, key, mine[key], yours[key]) for key in mine.keys() - chosen if mine[key] != yours[key]]
    return differences + [(path, "", None, node) for path, node in other.items()]


@needs_root
def test_everything_odd_is_known_again_by_the_next_backup(small_repository: Repository, source: Path) -> None:
    make_odd_tree(source)
    parent, first = store(small_repository, source)

    _, second = store(small_repository, source, parent=replace(parent, time=parent.time + LATER))

    assert second.tree == first.tree
    assert (second.warnings, second.files_new, second.data_blobs, second.tree_blobs) == ((), 0, 0, 0)
    assert second.files_changed == 3  # with times that lie ahead: a write at such a time would not be seen
    assert second.files_unmodified == first.files - 3


@needs_root
def test_a_parent_of_restic_s_is_as_good(repository: Repository, referee: Restic, source: Path) -> None:
    make_odd_tree(source)
    referee("backup", str(source), "--time", "2100-01-01 00:00:00")
    (theirs,) = repository.snapshots()
    tree = repository.find(theirs.tree, str(source)).subtree

    _, archive = store(repository, source, parent=replace(theirs, tree=tree))

    assert (archive.files_new, archive.data_blobs) == (0, 0)
    assert archive.files_changed == 2 + 3  # times that lie ahead; hard links, whose devices restic numbers otherwise
    assert different_nodes(repository, archive.tree, tree) == []


def test_times_that_restic_cannot_set_are_stored_and_set_by_us(
    small_repository: Repository, source: Path, tmp_path: Path
) -> None:
    second = 13_000_000_000  # in 2381; restic counts nanoseconds in 64 bits, which end in 2262
    (source / "file").touch()
    os.utime(source / "file", ns=(second * 10**9, second * 10**9 + 7))
    if os.stat(source / "file").st_mtime_ns != second * 10**9 + 7:
        pytest.skip("this file system does not hold such a time either")
    _, archive = store(small_repository, source)

    small_repository.restore(archive.tree, str(tmp_path / "target"))

    assert os.stat(tmp_path / "target" / "file").st_mtime_ns == second * 10**9 + 7


def test_an_attribute_s_name_that_is_no_utf8_is_stored_as_restic_stores_it(
    repository: Repository, referee: Restic, source: Path
) -> None:
    (source / "file").touch()
    os.setxattr(source / "file", b"user.\xff\xfe", b"value")

    _, archive = store(repository, source)

    theirs = repository.find(stored_by_restic(repository, referee, source), "file")
    assert repository.find(archive.tree, "file").xattrs == theirs.xattrs == (("user.\ufffd\ufffd", b"value"),)


# --- deep, wide ------------------------------------------------------------------------------------------------------


@pytest.fixture
def deep(source: Path) -> Iterator[Path]:
    """1,200 directories, each in the one before: more than twice as long a path as the kernel takes."""
    descriptor = os.open(source, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("the-next", dir_fd=descriptor)
        below = os.open("the-next", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    with os.fdopen(os.open("bottom", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor), "wb") as file:
        file.write(b"of the sea")
    os.link("bottom", "linked", src_dir_fd=descriptor, dst_dir_fd=descriptor)
    os.close(descriptor)
    yield source
    subprocess.run(["rm", "-rf", source, source.parent / "target"], check=True)  # what pytest cannot


def at_the_bottom(top: Path) -> tuple[int, bytes]:
    descriptor = os.open(top, os.O_RDONLY)
    depth = 0
    while "the-next" in os.listdir(descriptor):
        below = os.open("the-next", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
        depth += 1
    try:
        with os.fdopen(os.open("linked", os.O_RDONLY, dir_fd=descriptor), "rb") as file:
            return depth, file.read()
    finally:
        os.close(descriptor)


def test_a_tree_deeper_than_the_longest_path_is_stored_and_restored(
    repository: Repository, referee: Restic, deep: Path, tmp_path: Path
) -> None:
    parent, archive = store(repository, deep)
    _, again = store(repository, deep, parent=replace(parent, time=parent.time + LATER))
    restoration = repository.restore(archive.tree, str(tmp_path / "target"))

    assert (archive.warnings, again.warnings, restoration.warnings) == ((), (), ())
    assert archive.dirs == 1201
    assert (again.tree, again.tree_blobs) == (archive.tree, 0)
    assert at_the_bottom(tmp_path / "target") == (1200, b"of the sea")
    referee("check")


def test_a_directory_of_very_many_entries_is_one_tree(
    repository: Repository, referee: Restic, source: Path, tmp_path: Path
) -> None:
    for number in range(20_000):
        (source / f"{number * 7919 % 20_000}").touch()
    parent, archive = store(repository, source)
    _, again = store(repository, source, parent=replace(parent, time=parent.time + LATER))

    repository.restore(archive.tree, str(tmp_path / "target"))

    assert archive.files == 20_000
    assert (again.files_unmodified, again.tree) == (20_000, archive.tree)
    assert sorted(os.listdir(tmp_path / "target")) == sorted(os.listdir(source))
    listed = referee("ls", parent.id).splitlines()
    assert len([line for line in listed if line.startswith("/")]) == 20_000
    assert [node.name for node in repository.read_tree(archive.tree)] == sorted(os.listdir(source))


# --- what changes meanwhile ------------------------------------------------------------------------------------------


def when_asked_for(name: str, change: Callable[[], None]) -> Callable[[bytes, bool], bool]:
    """An `exclude` that leaves nothing out, but lets something happen while the directory of `name` is listed."""

    def exclude(path: bytes, is_dir: bool) -> bool:
        if path.endswith(name.encode()):
            change()
        return False

    return exclude


def test_a_file_that_vanishes_once_it_is_listed_is_told(small_repository: Repository, source: Path) -> None:
    for name in ("a", "b", "c"):
        (source / name).write_bytes(b"x")

    _, archive = store(
        small_repository, source, exclude=when_asked_for("c", lambda: (source / "b").unlink(missing_ok=True))
    )

    assert paths(small_repository, archive.tree) == ["a", "c"]
    assert told(archive) == {"/b": "vanished while the backup ran"}


def test_a_directory_that_vanishes_once_it_is_listed_is_told(small_repository: Repository, source: Path) -> None:
    (source / "a" / "below").mkdir(parents=True)
    (source / "b").write_bytes(b"x")

    _, archive = store(
        small_repository, source, exclude=when_asked_for("b", lambda: shutil.rmtree(source / "a", ignore_errors=True))
    )

    assert paths(small_repository, archive.tree) == ["b"]
    assert set(told(archive).values()) == {"vanished while the backup ran"}


def test_a_file_that_becomes_a_fifo_is_stored_as_one_and_never_waited_for(
    small_repository: Repository, source: Path
) -> None:
    (source / "a").write_bytes(b"x")
    (source / "b").write_bytes(b"x")

    def swap() -> None:
        (source / "a").unlink()
        os.mkfifo(source / "a")

    _, archive = store(small_repository, source, exclude=when_asked_for("b", swap))

    assert [(path, node.type) for path, node in small_repository.walk(archive.tree)] == [("a", "fifo"), ("b", "file")]


def test_a_directory_that_becomes_a_link_is_not_followed(
    small_repository: Repository, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_bytes(b"s")
    (source / "a").mkdir()
    (source / "b").write_bytes(b"x")

    def swap() -> None:
        if not (source / "a").is_symlink():
            (source / "a").rmdir()
            (source / "a").symlink_to(tmp_path / "elsewhere")

    _, archive = store(small_repository, source, exclude=when_asked_for("b", swap))

    assert "a/secret" not in paths(small_repository, archive.tree)
    assert archive.warning_count >= 1 or small_repository.find(archive.tree, "a").type == "symlink"


def test_a_file_that_grows_between_its_listing_and_its_reading_has_one_size(
    small_repository: Repository, source: Path
) -> None:
    (source / "a").write_bytes(noise(MIB, 1))
    (source / "b").write_bytes(b"x")

    _, archive = store(
        small_repository, source, exclude=when_asked_for("b", lambda: os.truncate(source / "a", 3 * MIB))
    )

    node = small_repository.find(archive.tree, "a")
    assert (node.size, archive.warnings) == (3 * MIB, ())
    assert sum(map(len, small_repository.read_file(node))) == node.size


# --- what cannot be stored -------------------------------------------------------------------------------------------


def test_a_socket_is_left_out_and_told(
    repository: Repository, referee: Restic, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        (source / "file").write_bytes(b"x")

        _, archive = store(repository, source)

    assert paths(repository, archive.tree) == ["file"]
    assert [note.path for note in archive.notes] == ["/socket"]
    assert told(archive) == {}
    assert paths(repository, stored_by_restic(repository, referee, source)) == ["file"]


def as_nobody(repository: Repository, path: Path) -> tuple[Archive | str, list[tuple[str, Node]]]:
    """A backup by a process without rights; what came of it, or its error, and what was stored."""
    here, there = multiprocessing.get_context("fork").Pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            try:
                _, archive = store(repository, path)
                there.send((archive, list(repository.walk(archive.tree))))
            except SourceError as error:
                there.send((str(error), []))
        finally:
            os._exit(0)
    there.close()
    try:
        answer: tuple[Archive | str, list[tuple[str, Node]]] = here.recv()
    finally:
        os.waitpid(child, 0)
    return answer


@pytest.fixture
def open_to_all(tmp_path: Path) -> Iterator[Path]:
    """A directory that others may reach."""
    with ExitStack() as undo:
        above = tmp_path
        while above != above.parent and not above.stat().st_mode & stat.S_IXOTH:
            mode = stat.S_IMODE(above.stat().st_mode)
            above.chmod(mode | stat.S_IXOTH)
            undo.callback(above.chmod, mode)
            above = above.parent
        (tmp_path / "open").mkdir(mode=0o755)
        yield tmp_path / "open"


@needs_root
def test_what_may_not_be_read_is_told_and_the_rest_is_stored(small_repository: Repository, open_to_all: Path) -> None:
    for name in ("closed", "unlisted", "untraversed", "fine"):
        (open_to_all / name).mkdir()
        (open_to_all / name / "inside").write_bytes(b"x")
    (open_to_all / "secret").write_bytes(b"s")
    (open_to_all / "secret").chmod(0o600)
    (open_to_all / "closed").chmod(0o700)
    (open_to_all / "unlisted").chmod(0o711)
    (open_to_all / "untraversed").chmod(0o744)

    archive, stored = as_nobody(small_repository, open_to_all)

    assert isinstance(archive, Archive)
    assert told(archive) == {
        "/closed": "cannot be listed, so what is in it is missing: Permission denied",
        "/unlisted": "cannot be listed, so what is in it is missing: Permission denied",
        "/untraversed/inside": "cannot be read: Permission denied",
        "/secret": "cannot be read: Permission denied",
    }
    assert [path for path, _ in stored] == ["closed", "fine", "fine/inside", "unlisted", "untraversed"]


@needs_root
def test_a_root_that_may_not_be_listed_is_an_error_and_not_an_empty_backup(
    small_repository: Repository, open_to_all: Path
) -> None:
    (open_to_all / "file").write_bytes(b"x")
    open_to_all.chmod(0o711)

    answer, _ = as_nobody(small_repository, open_to_all)

    assert isinstance(answer, str)
    assert f"reading {open_to_all}: Permission denied" in answer


# --- mounts ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Mounts an empty file system in memory; a test that asks for it is skipped where that cannot be."""
    mounted: list[Path] = []

    def mount_at(path: Path) -> None:
        path.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16m", "backstay-test", path],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"mounting is not possible: {done.stderr.strip()}")
        mounted.append(path)

    yield mount_at
    for path in reversed(mounted):
        subprocess.run(["umount", path], check=True)


@needs_root
def test_another_file_system_is_entered_unless_told_otherwise_as_by_restic(
    repository: Repository, referee: Restic, source: Path, mount: Callable[[Path], None]
) -> None:
    (source / "sub").mkdir()
    mount(source / "sub" / "mounted")
    (source / "sub" / "mounted" / "inside").write_bytes(b"x")
    (source / "sub" / "mounted" / "directory").mkdir()
    (source / "file").write_bytes(b"x")

    _, all_of_it = store(repository, source)
    _, one = store(repository, source, one_file_system=True)

    assert paths(repository, all_of_it.tree) == [
        "file", "sub", "sub/mounted", "sub/mounted/directory", "sub/mounted/inside",
    ]  # fmt: skip
    assert paths(repository, one.tree) == ["file", "sub", "sub/mounted"]
    assert (all_of_it.warnings, one.warnings) == ((), ())
    theirs = stored_by_restic(repository, referee, source, "--one-file-system")
    assert paths(repository, theirs) == paths(repository, one.tree)


@needs_root
def test_files_of_the_same_number_on_two_file_systems_are_not_links_of_each_other(
    repository: Repository, referee: Restic, source: Path, mount: Callable[[Path], None], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        mount(source / name)
        (source / name / "file").write_bytes(name.encode())
        os.link(source / name / "file", source / name / "link")
    numbers = {(source / name / "file").stat().st_ino for name in ("one", "two")}
    assert len(numbers) == 1, "the test needs two file systems that count alike"

    snapshot, archive = store(repository, source)
    repository.restore(archive.tree, str(tmp_path / "target"))
    referee("restore", snapshot.id, "--target", str(tmp_path / "theirs"))

    for restored in ("target", "theirs"):
        for name in ("one", "two"):
            assert (tmp_path / restored / name / "link").read_bytes() == name.encode()
            assert (tmp_path / restored / name / "file").stat().st_nlink == 2
