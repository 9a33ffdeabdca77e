"""A restore into what is there already, and into what is not: modes, differences, removal, choice, proof, dry run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backstay.repository import Node, Repository, Restoration, S3Store, TargetError
from backstay.repository.crew import Crew
from backstay.repository.format import blob, tree
from backstay.repository.format.blob import BlobType
from backstay.repository.format.tree import MODE_DIR
from backstay.repository.restore import contents as restore_contents
from backstay.repository.restore.existing import Choice
from backstay.repository.restore.flow import Flow
from backstay.repository.stores.local import LocalStore
from tests.repository.conftest import PASSWORD, Restic
from tests.repository.filesystem import MIB, allocated, describe, make_tree, noise, text

Restore = Callable[..., Restoration]


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with Crew(2) as processes:
        yield processes


@pytest.fixture
def local(tmp_path: Path) -> Repository:
    return Repository.init(LocalStore(str(tmp_path / "repository")), PASSWORD)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Small files, one of several blobs, and directories."""
    root = tmp_path / "source"
    (root / "sub" / "deeper").mkdir(parents=True)
    (root / "a").write_bytes(b"first")
    (root / "b").write_bytes(b"second")
    (root / "large").write_bytes(noise(20 * MIB, 1))
    (root / "sub" / "c").write_bytes(b"third")
    (root / "sub" / "deeper" / "d").write_bytes(b"fourth")
    for path in root.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.fixture
def restore(local: Repository, source: Path, target: Path, request: pytest.FixtureRequest) -> Restore:
    """Restores what is in `source` at the first call into `target`, with a crew where the test asks for one."""
    stored: list[str] = []

    def run(**options: object) -> Restoration:
        if not stored:
            with local.writer() as writer:
                stored.append(writer.backup(str(source)).tree)
        return local.restore(stored[0], str(target), **options)  # type: ignore[arg-type]

    return run


def stamps(root: Path) -> dict[str, tuple[int, int, int]]:
    """What tells whether anything was done to a path: inode, and the times of content and of the rest."""
    return {
        str(path.relative_to(root)): ((status := path.lstat()).st_ino, status.st_mtime_ns, status.st_ctime_ns)
        for path in [root, *root.rglob("*")]
    }


# --- with processes, as without ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [True, False])
def test_everything_comes_back(
    local: Repository, crew: Crew, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, processes: bool
) -> None:
    monkeypatch.setattr(restore_contents, "PIECES", 5)
    monkeypatch.setattr(restore_contents, "FILES", 7)
    monkeypatch.setattr(blob, "_PIECE", 700)
    make_tree(tmp_path / "everything")
    with local.writer() as writer:
        archive = writer.backup(str(tmp_path / "everything"))

    done = local.restore(archive.tree, str(target), crew=crew if processes else None)

    assert done.warnings == ()
    assert describe(target) == describe(tmp_path / "everything")
    assert allocated(target / "sparse.img") < 2 * MIB
    assert (done.files_restored, done.files) == (archive.files, archive.files)


def test_a_crew_goes_on_after_a_restore_that_failed(
    restore: Restore, source: Path, local: Repository, crew: Crew
) -> None:
    restore(dry_run=True)
    name = max((size, name) for name, size in local.store.list("data/"))[1]
    whole = local.store.get(name)
    local.store.delete(name)
    local.store.put(name, bytes(len(whole)))
    failed = restore(crew=crew)
    local.store.delete(name)
    local.store.put(name, whole)

    done = restore(crew=crew)

    assert failed.damaged
    assert all(name.rpartition("/")[2] in warning.message for warning in failed.warnings)
    assert (done.files, done.damaged) == (5, 0)


def test_a_file_that_cannot_be_finished_is_not_left_there(restore: Restore, local: Repository, target: Path) -> None:
    restore(dry_run=True)
    name = min((size, name) for name, size in local.store.list("data/") if size > MIB)[1]
    whole = local.store.get(name)
    local.store.delete(name)
    local.store.put(name, whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))

    done = restore()

    assert "/large" in [warning.path for warning in done.warnings]
    assert not (target / "large").exists()


@pytest.mark.parametrize("sparse", [True, False])
def test_zeros_become_holes_or_not(restore: Restore, source: Path, target: Path, sparse: bool) -> None:
    (source / "zeros").write_bytes(bytes(8 * MIB))

    restore(sparse=sparse)

    assert (target / "zeros").read_bytes() == bytes(8 * MIB)
    assert (allocated(target / "zeros") < MIB) is sparse


# --- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overwrite", "restored"),
    [
        ("always", {"older", "newer", "same times, other content"}),
        ("if-changed", {"older", "newer"}),
        ("if-newer", {"older"}),
        ("never", set()),
    ],
)
def test_which_files_are_overwritten(
    restore: Restore, source: Path, target: Path, overwrite: str, restored: set[str]
) -> None:
    ages = {"older": -10, "newer": 10, "same times, other content": 0}
    target.mkdir()
    for name, age in ages.items():
        (source / name).write_bytes(b"snapshot")
        (target / name).write_bytes(b"existing")
        os.utime(source / name, (1_700_000_000, 1_700_000_000))
        os.utime(target / name, (1_700_000_000 + age, 1_700_000_000 + age))

    done = restore(overwrite=overwrite)

    assert {name for name in ages if (target / name).read_bytes() == b"snapshot"} == restored
    assert (target / "a").read_bytes() == b"first"
    assert done.files_updated == len(restored)
    assert done.files_restored == 5
    assert done.files_skipped == (3 - len(restored) if overwrite in ("never", "if-newer") else 0)
    assert done.files == 8


def test_never_leaves_links_and_files_in_the_place_of_directories(restore: Restore, target: Path) -> None:
    target.mkdir()
    (target / "sub").write_bytes(b"mine")
    (target / "a").symlink_to("nowhere")

    done = restore(overwrite="never")

    assert (target / "sub").read_bytes() == b"mine"
    assert os.readlink(target / "a") == "nowhere"
    assert [warning.path for warning in done.warnings] == ["/sub"]


def test_another_name_of_a_file_that_was_left_alone_gets_its_own_content(
    restore: Restore, source: Path, target: Path
) -> None:
    os.link(source / "a", source / "z")
    target.mkdir()
    (target / "a").write_bytes(b"mine")

    restore(overwrite="never")

    assert (target / "a").read_bytes() == b"mine"
    assert (target / "z").read_bytes() == b"first"


# --- differences ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [True, False])
def test_what_is_as_it_should_be_is_not_touched(restore: Restore, target: Path, crew: Crew, processes: bool) -> None:
    restore()
    before = stamps(target)

    done = restore(crew=crew if processes else None)

    assert stamps(target) == before
    assert (done.files_unchanged, done.bytes_restored, done.bytes_skipped) == (5, 0, done.bytes)


def test_only_blobs_that_differ_are_written(restore: Restore, source: Path, target: Path) -> None:
    restore()
    before = (target / "large").stat()
    with (target / "large").open("r+b") as file:
        file.seek(10 * MIB)
        file.write(b"changed")

    done = restore()

    assert (target / "large").read_bytes() == (source / "large").read_bytes()
    assert (target / "large").stat().st_ino == before.st_ino
    assert (target / "large").stat().st_mtime_ns == before.st_mtime_ns
    assert (done.files_updated, done.files_unchanged) == (1, 4)
    assert 0 < done.bytes_restored <= 8 * MIB


@pytest.mark.parametrize("content", [noise(20 * MIB, 1) + b"too long", noise(20 * MIB, 1)[: 3 * MIB], b"x"])
def test_a_file_of_another_length_gets_the_right_one(
    restore: Restore, source: Path, target: Path, content: bytes
) -> None:
    target.mkdir()
    (target / "large").write_bytes(content)
    inode = (target / "large").stat().st_ino

    done = restore()

    assert (target / "large").read_bytes() == (source / "large").read_bytes()
    assert (target / "large").stat().st_ino == inode
    assert done.files_updated == 1


def test_an_existing_file_with_data_where_zeros_belong_gets_zeros(restore: Restore, source: Path, target: Path) -> None:
    (source / "zeros").write_bytes(bytes(8 * MIB))
    target.mkdir()
    (target / "zeros").write_bytes(noise(8 * MIB, 5))

    restore()

    assert (target / "zeros").read_bytes() == bytes(8 * MIB)


def test_a_file_with_another_name_elsewhere_is_replaced(restore: Restore, target: Path, tmp_path: Path) -> None:
    target.mkdir()
    (tmp_path / "precious").write_bytes(b"other")
    os.link(tmp_path / "precious", target / "a")

    restore()

    assert (tmp_path / "precious").read_bytes() == b"other"
    assert (target / "a").read_bytes() == b"first"


def test_metadata_alone_is_corrected_without_writing(restore: Restore, target: Path) -> None:
    restore()
    (target / "a").chmod(0o600)
    os.utime(target / "b", (5, 5))
    if hasattr(os, "setxattr"):
        os.setxattr(target / "b", "user.surplus", b"1")

    done = restore()

    assert (target / "a").stat().st_mode & 0o777 == 0o644
    assert (target / "b").stat().st_mtime == 1_700_000_000
    assert os.listxattr(target / "b") == []
    assert done.bytes_restored == 0


def test_restic_and_we_find_nothing_to_do_after_each_other(
    repository: Repository, store: S3Store, referee: Restic, source: Path, target: Path
) -> None:
    referee("backup", ".", cwd=source)
    (snapshot,) = repository.snapshots()
    referee("restore", "latest", "--target", str(target))

    done = repository.restore(snapshot.tree, str(target))

    assert (done.files_unchanged, done.files_updated, done.files_restored) == (5, 0, 0)
    shutil.rmtree(target)
    repository.restore(snapshot.tree, str(target))
    told = referee.json("restore", "latest", "--target", str(target), "--dry-run")
    assert told["files_skipped"] == 5
    assert describe(target) == describe(source)


# --- removal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [4 * MIB, 1])
def test_what_the_snapshot_lacks_is_removed_when_asked(
    restore: Restore, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(blob, "_PIECE", piece)
    restore()
    wanted = describe(target)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_bytes(b"precious")
    (target / "extra" / "more").mkdir(parents=True)
    (target / "extra" / "more" / "file").write_bytes(b"x")
    (target / "extra" / "link").symlink_to(tmp_path / "outside")
    (target / "sub" / "extra").write_bytes(b"x")
    (target / "sub" / "link").symlink_to(tmp_path / "outside")

    kept = restore()
    assert (target / "extra").exists()
    done = restore(delete=True)

    assert kept.deleted == 0
    assert done.deleted == 6
    assert describe(target) == wanted
    assert os.listdir(tmp_path / "outside") == ["precious"]


def test_removal_spares_what_is_not_selected(restore: Restore, target: Path) -> None:
    restore()
    (target / "extra").mkdir()
    for name in ("go", "stay.keep"):
        (target / "extra" / name).write_bytes(b"x")
        (target / name).write_bytes(b"x")

    def select(path: bytes, is_dir: bool) -> Choice:
        return Choice(not path.endswith(b".keep"), True)

    done = restore(delete=True, select=select)

    assert done.deleted == 2
    assert sorted(os.listdir(target / "extra")) == ["stay.keep"]
    assert (target / "stay.keep").exists()


def test_nothing_is_removed_outside_what_is_restored(restore: Restore, target: Path) -> None:
    restore()
    (target / "extra").write_bytes(b"x")
    (target / "sub" / "extra").write_bytes(b"x")

    restore(delete=True, select=lambda path, is_dir: Choice(path.startswith(b"/sub"), True))

    assert (target / "extra").exists()
    assert not (target / "sub" / "extra").exists()


# --- choice -----------------------------------------------------------------------------------------------------------


def test_only_what_is_selected_comes_back_with_its_parents(restore: Restore, source: Path, target: Path) -> None:
    asked: list[tuple[bytes, bool]] = []

    def select(path: bytes, is_dir: bool) -> Choice:
        asked.append((path, is_dir))
        return Choice(path == b"/sub/deeper/d", True)

    done = restore(select=select)

    assert set(describe(target)) == {"sub", "sub/deeper", "sub/deeper/d"}
    assert describe(target)["sub"] == describe(source)["sub"]
    assert done.files == 1
    assert (b"/sub", True) in asked
    assert (b"/sub/c", False) in asked


def test_nothing_is_made_where_nothing_is_selected(restore: Restore, target: Path) -> None:
    done = restore(select=lambda path, is_dir: Choice(False, True))

    assert os.listdir(target) == []
    assert (done.files, done.dirs) == (0, 0)


def test_a_directory_that_is_not_descended_into_is_not_asked_about(restore: Restore, target: Path) -> None:
    asked = []

    def select(path: bytes, is_dir: bool) -> Choice:
        asked.append(path)
        return Choice(path != b"/sub", path != b"/sub")

    restore(select=select)

    assert sorted(os.listdir(target)) == ["a", "b", "large"]
    assert not any(path.startswith(b"/sub/") for path in asked)


# --- proof ------------------------------------------------------------------------------------------------------------


def test_verifying_finds_nothing_wrong_with_a_good_restore(restore: Restore, crew: Crew) -> None:
    done = restore(verify=True, crew=crew)

    assert (done.files_verified, done.verify_errors) == (5, 0)


def test_verifying_finds_what_the_disk_did_not_keep(
    restore: Restore, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target is changed when all is written, as a failing disk would."""
    read_back = restore_contents.Contents._read_back

    def spoil(contents: restore_contents.Contents, batch: restore_contents._Batch) -> None:
        with (target / "large").open("r+b") as file:
            file.seek(7 * MIB)
            file.write(b"rot")
        (target / "b").unlink()
        read_back(contents, batch)

    monkeypatch.setattr(restore_contents.Contents, "_read_back", spoil)

    done = restore(verify=True)

    assert (done.files_verified, done.verify_errors) == (5, 2)
    assert {warning.path for warning in done.warnings} == {"/large", "/b"}


# --- dry run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", ["always", "if-changed", "if-newer", "never"])
def test_a_dry_run_changes_nothing_and_counts_what_would_be_done(
    restore: Restore, target: Path, overwrite: str
) -> None:
    restore()
    with (target / "large").open("r+b") as file:
        file.write(b"changed")
    (target / "sub" / "c").unlink()
    shutil.rmtree(target / "sub" / "deeper")
    (target / "extra").mkdir()
    (target / "extra" / "file").write_bytes(b"x")
    (target / "a").chmod(0o600)
    before = stamps(target)

    would = restore(dry_run=True, delete=True, overwrite=overwrite)

    assert stamps(target) == before
    assert would == restore(delete=True, overwrite=overwrite)
    assert would.deleted == 2
    assert would.files_restored == 2


def test_a_dry_run_does_not_make_the_target(restore: Restore, target: Path) -> None:
    would = restore(dry_run=True)

    assert not target.exists()
    assert would == restore()


# --- nothing leads outside --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [True, False])
def test_a_link_planted_while_the_restore_runs_is_not_followed(
    restore: Restore, target: Path, tmp_path: Path, crew: Crew, monkeypatch: pytest.MonkeyPatch, processes: bool
) -> None:
    (tmp_path / "outside").mkdir()
    fetch = Flow.fetch

    def plant(flow: Flow, wanted: object) -> object:
        if not (target / "sub").is_symlink():
            (target / "sub").rename(target / "moved")
            (target / "sub").symlink_to(tmp_path / "outside")
        return fetch(flow, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(Flow, "fetch", plant)

    with pytest.raises(TargetError, match="a link or a file stands where a directory was"):
        restore(crew=crew if processes else None)

    assert os.listdir(tmp_path / "outside") == []


def nest(repository: Repository, depth: int) -> str:
    """A tree of directories within directories, whose path is longer than any system call takes."""
    with repository.writer() as writer:
        blob = writer.save_blob(BlobType.DATA, b"deep").hex()
        node = Node(name="file", type="file", mode=0o644, size=4, content=(blob,), links=1)
        for number in range(depth):
            below = writer.save_blob(BlobType.TREE, tree.encode([node])).hex()
            node = Node(name=f"{number:03d}" + "d" * 200, type="dir", mode=MODE_DIR | 0o755, subtree=below)
        return writer.save_blob(BlobType.TREE, tree.encode([node])).hex()


def test_a_tree_deeper_than_any_path_comes_back_and_goes_again(local: Repository, target: Path) -> None:
    deep = nest(local, 200)
    with local.writer() as writer:
        empty = writer.save_blob(BlobType.TREE, tree.encode([])).hex()

    done = local.restore(deep, str(target), verify=True)
    again = local.restore(deep, str(target))
    gone = local.restore(empty, str(target), delete=True)

    assert (done.files_restored, done.dirs, done.verify_errors, done.warnings) == (1, 200, 0, ())
    assert again.files_unchanged == 1
    assert gone.deleted == 201
    assert os.listdir(target) == []


def test_a_directory_with_something_in_it_is_not_removed_for_a_file(restore: Restore, target: Path) -> None:
    (target / "a").mkdir(parents=True)
    (target / "a" / "precious").write_bytes(b"x")

    with pytest.raises(TargetError, match="a directory with something in it"):
        restore()

    assert (target / "a" / "precious").exists()


def test_the_same_blob_in_many_places_is_fetched_once(
    local: Repository, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        (source / f"copy-{number}").write_bytes(text(300_000, 1))
    with local.writer() as writer:
        archive = writer.backup(str(source))
    asked: list[tuple[str, int, int]] = []
    get = local.store.get

    def count(name: str, offset: int = 0, length: int | None = None) -> bytes:
        asked.append((name, offset, length or 0))
        return get(name, offset, length)

    monkeypatch.setattr(local.store, "get", count)

    local.restore(archive.tree, str(target))

    data = [length for name, _, length in asked if name.startswith("data/")]
    assert sum(data) < 22 * MIB
    assert describe(target) == describe(source)
