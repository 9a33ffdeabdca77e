"""Every verb of stock restic works on what we wrote, and we read what it made of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backstay.repository import Repository, S3Store, Snapshot, Summary
from backstay.repository.stores.local import LocalStore
from tests.repository import fusermount
from tests.repository.conftest import PASSWORD, Restic
from tests.repository.contents import Contents, by_engine, on_disk
from tests.repository.golden.make import change, make_directory

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with everything a file system has."""
    path = tmp_path / "data"
    make_directory(path)
    return path


def back_up(repository: Repository, source: Path) -> Snapshot:
    """Store a directory under its own name, as a mover does."""
    started = datetime.now(UTC)
    with repository.writer("test") as writer:
        archive = writer.backup(str(source), name="data")
        summary = Summary(started, started, total_files_processed=archive.files, total_bytes_processed=archive.bytes)
        root = Snapshot(time=started, tree=archive.tree, paths=(str(source),), hostname="test", summary=summary)
        return replace(root, id=writer.commit(root))


def newest(store: S3Store) -> tuple[Repository, Snapshot]:
    """The repository as one finds it that comes later, and its newest snapshot."""
    repository = Repository.open(store, PASSWORD)
    return repository, max(repository.snapshots(), key=lambda found: found.time)


def below_data(source: Path) -> Contents:
    """What the directory holds, as it stands under its name in a snapshot."""
    found = {b"data/" + path: entry for path, entry in on_disk(source).items()}
    for entry in found.values():
        if "same file as" in entry:
            entry["same file as"] = b"data/" + entry["same file as"]
    return found


def read(store: S3Store) -> Contents:
    """What the engine finds in the newest snapshot, but for the node of the directory itself."""
    repository, snapshot = newest(store)
    found = by_engine(repository, snapshot.tree)
    del found[b"data"]
    return found


def test_restic_dumps_files_and_whole_directories(
    repository: Repository, referee: Restic, source: Path, tmp_path: Path
) -> None:
    snapshot = back_up(repository, source)

    referee("dump", snapshot.id, "/data/large", "--target", str(tmp_path / "large"))
    referee("dump", snapshot.id, "/data", "--archive", "tar", "--target", str(tmp_path / "all.tar"))

    assert (tmp_path / "large").read_bytes() == (source / "large").read_bytes()
    with tarfile.open(tmp_path / "all.tar") as tar:
        dumped = {os.fsencode(name.strip("/")) for name in tar.getnames()}
    assert {b"data/" + path for path in on_disk(source)} <= {b"data/" + path.removeprefix(b"data/") for path in dumped}


@contextmanager
def mounted(referee: Restic, target: Path, tools: Path) -> Iterator[Path]:
    """A repository as a file system."""
    for path in (target, tools):
        path.mkdir()
    fusermount.install(tools)
    environment = {**referee.environment(), "PATH": f"{tools}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        [str(referee.binary), "mount", str(target)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + 30
        while not os.path.ismount(target) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if not os.path.ismount(target):
            process.kill()
            pytest.fail(f"restic mount: {process.communicate()[0].decode()}")
        yield target
    finally:
        fusermount.unmount(str(target))
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


@pytest.mark.skipif(not fusermount.available(), reason="FUSE is not to be had here")
def test_restic_mounts_a_snapshot(repository: Repository, referee: Restic, source: Path, tmp_path: Path) -> None:
    os.utime(source / "block", ns=(0, 0))  # of a time before 1970 it drops the fraction on the wrong side
    snapshot = back_up(repository, source)

    with mounted(referee, tmp_path / "mounted", tmp_path / "tools") as root:
        found = on_disk(root / "ids" / snapshot.id[:8] / "data")

    wanted = on_disk(source)
    for entry in (*found.values(), *wanted.values()):
        for told_otherwise in ("same file as", "device"):  # no links, and the numbers of devices in another encoding
            entry.pop(told_otherwise, None)
    assert found == wanted


def test_restic_rewrites_without_what_is_excluded(
    repository: Repository, store: S3Store, referee: Restic, source: Path
) -> None:
    snapshot = back_up(repository, source)

    referee("rewrite", snapshot.id, "--exclude", "/data/large", "--forget")

    referee.check()
    wanted = below_data(source)
    del wanted[b"data/large"]
    assert read(store) == wanted
    assert newest(store)[1].original == snapshot.id


def test_restic_finds_nothing_to_rewrite_where_nothing_is_excluded(
    repository: Repository, referee: Restic, source: Path
) -> None:
    snapshot = back_up(repository, source)

    told = referee("rewrite", snapshot.id, "--exclude", "/nothing/like/this", "--forget")

    assert "no snapshots were modified" in told


def test_restic_copies_into_another_repository_and_back(
    repository: Repository, store: S3Store, referee: Restic, source: Path, tmp_path: Path
) -> None:
    snapshot = back_up(repository, source)
    ours, place = referee.environment()["RESTIC_REPOSITORY"], str(tmp_path / "copy")
    (tmp_path / "password").write_text(PASSWORD)
    from_ours = ("--from-repo", ours, "--from-password-file", str(tmp_path / "password"))
    from_copy = ("--from-repo", place, "--from-password-file", str(tmp_path / "password"))

    referee("-r", place, "init", *from_ours, "--copy-chunker-params")
    referee("-r", place, "copy", *from_ours)
    referee("forget", snapshot.id, "--prune")
    referee("copy", *from_copy)

    referee.check()
    assert "no errors were found" in referee("-r", place, "check", "--read-data")
    copied = Repository.open(LocalStore(place), PASSWORD)
    (only,) = copied.snapshots()
    assert (only.tree, copied.config.polynomial) == (snapshot.tree, repository.config.polynomial)
    assert read(store) == below_data(source)


def test_restic_reads_no_file_again_that_our_snapshot_has(
    repository: Repository, store: S3Store, referee: Restic, source: Path
) -> None:
    snapshot = back_up(repository, source)

    told = referee("--json", "backup", "data", "--parent", snapshot.id, cwd=source.parent)

    summary = json.loads(told.splitlines()[-1])
    files = sum(entry["type"] == "file" for entry in on_disk(source).values())
    assert (summary["files_unmodified"], summary["files_changed"], summary["files_new"]) == (files, 0, 0)
    assert summary["data_blobs"] == 0
    referee.check()
    assert read(store) == below_data(source)


def test_restic_makes_the_same_tree_of_the_same_directory(
    repository: Repository, referee: Restic, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte, where it stores no more than we do: no names of users, and no device ids."""
    for name in ("same-as-notes", "fifo"):  # of which it stores the kernel's device ids all the same
        (source / name).unlink()
    for path in (source, *source.rglob("*")):
        os.chown(path, 424242, 434343, follow_symlinks=False)
    snapshot = back_up(repository, source)
    monkeypatch.setenv("RESTIC_FEATURES", "device-id-for-hardlinks=true")

    told = referee("--json", "backup", "data", "--parent", snapshot.id, cwd=source.parent)

    summary = json.loads(told.splitlines()[-1])
    (theirs,) = referee.json("snapshots", summary["snapshot_id"])
    assert theirs["tree"] == snapshot.tree
    assert (summary["tree_blobs"], summary["dirs_changed"]) == (0, 0)


def test_restic_sees_what_differs_between_two_snapshots(repository: Repository, referee: Restic, source: Path) -> None:
    first = back_up(repository, source)
    change(source)
    (source / "new").write_bytes(b"new")
    second = back_up(repository, source)

    told = [json.loads(line) for line in referee("--json", "diff", first.id, second.id).splitlines()]

    changes = {(entry["path"], entry["modifier"]) for entry in told if entry["message_type"] == "change"}
    assert changes == {("/data/empty", "M"), ("/data/new", "+"), ("/data/sticky/", "-")}


def test_restic_lists_finds_and_counts_what_we_stored(repository: Repository, referee: Restic, source: Path) -> None:
    snapshot = back_up(repository, source)
    wanted = on_disk(source)

    listed = [json.loads(line) for line in referee("--json", "ls", snapshot.id).splitlines()]
    (found,) = referee.json("find", "notes.txt", "--snapshot", snapshot.id)
    stats = referee.json("stats", snapshot.id, "--mode", "restore-size")

    types = {entry["path"]: entry["type"] for entry in listed if entry["message_type"] == "node"}
    shown = {"/data/" + path.decode("utf-8", "replace"): entry["type"] for path, entry in wanted.items()}
    assert types == {**shown, "/data": "dir"}
    assert [match["path"] for match in found["matches"]] == ["/data/notes.txt"]
    contents = [entry for entry in wanted.values() if entry["type"] == "file"]
    assert stats["total_size"] == sum(len(entry["content"]) for entry in contents) - len(
        wanted[b"notes.txt"]["content"]
    )
    assert stats["total_file_count"] == len(wanted) + 1


def test_restic_tags_our_snapshot(repository: Repository, store: S3Store, referee: Restic, source: Path) -> None:
    snapshot = back_up(repository, source)

    referee("tag", "--add", "kept", snapshot.id)

    referee.check()
    tagged = newest(store)[1]
    assert (tagged.tags, tagged.original, tagged.tree) == (("kept",), snapshot.id, snapshot.tree)
    assert tagged.summary == snapshot.summary


def test_restic_makes_the_index_anew_from_our_packs(
    repository: Repository, store: S3Store, referee: Restic, source: Path
) -> None:
    back_up(repository, source)
    for name, _ in list(store.list("index/")):
        store.delete(name)

    referee("repair", "index", "--read-all-packs")

    referee.check()
    assert read(store) == below_data(source)


def test_restic_finds_no_snapshot_to_repair(repository: Repository, referee: Restic, source: Path) -> None:
    back_up(repository, source)

    assert "no snapshots were modified" in referee("repair", "snapshots", "--forget")


def test_restic_prunes_down_to_the_last_byte(
    repository: Repository, store: S3Store, referee: Restic, source: Path
) -> None:
    first = back_up(repository, source)
    change(source)
    (source / "large").unlink()
    back_up(repository, source)

    referee("forget", first.id, "--prune", "--max-unused", "0")

    referee.check()
    assert read(store) == below_data(source)
    needed = referee.json("stats", "--mode", "raw-data")["total_blob_count"]
    assert len(referee("list", "blobs").splitlines()) == needed


def test_we_go_on_where_restic_was(repository: Repository, store: S3Store, referee: Restic, source: Path) -> None:
    """Turn by turn: what one stored, the other neither stores again nor takes for damaged."""
    time.sleep(2.1)  # what changed later than that before its parent is read again
    referee("backup", "data", cwd=source.parent)
    repository, theirs = newest(store)

    with repository.writer("test") as writer:
        archive = writer.backup(str(source), name="data", parent=theirs)
        writer.commit(replace(theirs, time=datetime.now(UTC), tree=archive.tree, parent=theirs.id))

    linked = sum("same file as" in entry for entry in on_disk(source).values())
    assert (archive.files_unmodified, archive.data_blobs) == (archive.files - linked, 0)  # links get numbers of ours
    referee.check()
    assert read(store) == below_data(source)
