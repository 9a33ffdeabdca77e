"""restic reads what we write and we read what restic writes."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from backstay.repository import Archive, Repository, S3Store, Snapshot, Subtree
from tests.repository.conftest import PASSWORD, Restic
from tests.repository.filesystem import MIB, allocated, describe, make_tree, noise, text


def backup(repository: Repository, source: Path, parent: Snapshot | None = None) -> tuple[Snapshot, Archive]:
    """Store a directory as a snapshot, as a mover does."""
    started = datetime.now(UTC)
    with repository.writer("test") as writer:
        archive = writer.backup(str(source), name="data", parent=parent)
        snapshot = Snapshot(
            time=started,
            tree=archive.tree,
            paths=("/data",),
            hostname="cluster/namespace",
            tags=("a=b", "c"),
            parent=parent.id if parent else "",
        )
        snapshot_id = writer.commit(snapshot)
    return repository.snapshot(snapshot_id), archive


def test_restic_finds_no_fault_and_restores_the_same_tree(
    repository: Repository, referee: Restic, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    make_tree(source)

    snapshot, archive = backup(repository, source)

    assert archive.warnings == ()
    referee.check()
    referee("restore", f"{snapshot.id}:/data", "--target", str(tmp_path / "restored"), "--sparse")
    assert describe(tmp_path / "restored") == describe(source)


def test_we_restore_our_own_tree_the_same(repository: Repository, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make_tree(source)
    snapshot, archive = backup(repository, source)
    target.mkdir()
    (target / "lost+found").mkdir(mode=0o700)
    root = repository.find(snapshot.tree, "data")

    restoration = repository.restore(root.subtree, str(target), root=root)

    assert restoration.warnings == ()
    (target / "lost+found").rmdir()
    os.utime(target, ns=(0, root.mtime))
    assert describe(target) == describe(source)
    assert target.stat().st_mode == source.stat().st_mode
    assert (restoration.files, restoration.bytes) == (archive.files, archive.bytes - sum_of_links(source))
    assert allocated(target / "sparse.img") < 2 * MIB
    assert allocated(target / "only-a-hole") < MIB


def sum_of_links(source: Path) -> int:
    """Bytes of files that are names of a file restored already: a backup counts them, a restore does not write them."""
    return (source / "large.bin").stat().st_size + (source / "small.txt").stat().st_size


def test_we_restore_what_restic_wrote(store: S3Store, referee: Restic, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make_tree(source)
    referee("init", "--repository-version", "2")
    referee("backup", ".", "--with-atime", cwd=source)
    repository = Repository.open(store, PASSWORD)
    (snapshot,) = repository.snapshots()

    restoration = repository.restore(snapshot.tree, str(target))

    assert restoration.warnings == ()
    assert describe(target) == describe(source)


def test_restic_lists_and_dumps_a_virtual_tree(repository: Repository, referee: Restic, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "row").write_bytes(b"1")
    time = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
    large = text(3 * MIB, 5)
    with repository.writer() as writer:
        volume = writer.backup(str(tmp_path / "volume"))
        resources = writer.save_files({"core/ConfigMap/x/object.json": b'{"a":1}', "core/ConfigMap/x.y/o": b""}, time)
        tree = writer.save_files(
            {
                "resources": Subtree(resources),
                "volumes/data": Subtree(volume.tree),
                "backstay/restore-point.json": b'{"version":1}',
                "backstay/large": large,
            },
            time,
        )
        writer.commit(Snapshot(time=time, tree=tree, paths=("/resources",), hostname="c/n", tags=("x=y",)))

    referee.check()
    assert referee("dump", "latest", "backstay/restore-point.json") == '{"version":1}'
    assert referee("dump", "latest", "/volumes/data/row") == "1"
    listed = [entry["path"] for entry in map(__import__("json").loads, referee("--json", "ls", "latest").splitlines())
              if entry.get("struct_type") == "node"]  # fmt: skip
    assert "/resources/core/ConfigMap/x/object.json" in listed
    (shown,) = referee.json("snapshots")
    assert (shown["hostname"], shown["paths"], shown["tags"], shown["time"]) == (
        "c/n", ["/resources"], ["x=y"], "2026-11-24T02:00:00Z",
    )  # fmt: skip
    assert b"".join(repository.read_file(repository.find(tree, "backstay/large"))) == large
    assert [path for path, _ in repository.walk(resources)] == [
        "core", "core/ConfigMap", "core/ConfigMap/x", "core/ConfigMap/x/object.json", "core/ConfigMap/x.y",
        "core/ConfigMap/x.y/o",
    ]  # fmt: skip


def test_restic_writes_into_our_repository_with_our_snapshot_as_parent(
    repository: Repository, store: S3Store, referee: Restic, tmp_path: Path
) -> None:
    source = tmp_path / "data"
    make_tree(source)
    ours, _ = backup(repository, source)

    told = referee("backup", "data", "--parent", ours.id, cwd=tmp_path)

    assert "using parent snapshot" in told
    referee.check()
    reopened = Repository.open(store, PASSWORD)
    theirs = max(reopened.snapshots(), key=lambda s: s.time)
    reopened.restore(theirs.tree, str(tmp_path / "target"))
    assert describe(tmp_path / "target" / "data") == describe(source)


def test_restic_encodes_our_trees_to_the_same_bytes(repository: Repository, referee: Restic, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    snapshot, _ = backup(repository, source)

    told = referee("rewrite", snapshot.id, "--exclude", "/data/small.txt", "--forget")

    assert "saved new snapshot" in told
    referee.check()
    referee("prune", "--max-unused", "0")
    referee.check()


def test_restic_forgets_and_prunes_in_our_repository(repository: Repository, referee: Restic, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / "file").write_bytes(noise(2 * MIB, number))
        (source / "stays").write_bytes(noise(2 * MIB, 99))
        backup(repository, source)

    referee("forget", "--keep-last", "1", "--group-by", "host", "--prune", "--max-unused", "0")

    referee.check()
    assert len(referee.json("snapshots")) == 1


def test_an_unchanged_backup_reads_no_file_and_adds_no_tree(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    long_before_the_parent(source)
    first, _ = backup(repository, source)
    late = Snapshot(time=datetime(2100, 1, 1, tzinfo=UTC), tree=first.tree, paths=first.paths, id=first.id)
    accessed = (source / "log").stat().st_atime_ns

    second, archive = backup(repository, source, late)

    assert second.tree == first.tree
    assert archive.added_bytes == 0
    assert archive.files_unmodified == archive.files
    assert (source / "log").stat().st_atime_ns == accessed


def long_before_the_parent(source: Path) -> None:
    """Put the access time before the others, so that reading a file would move it even on a relatime mount."""
    status = (source / "log").stat()
    os.utime(source / "log", ns=(status.st_mtime_ns - 10**9, status.st_mtime_ns))


def test_a_file_that_changed_within_the_clocks_tick_of_the_parent_is_read_again(
    repository: Repository, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"one")
    first, _ = backup(repository, source)

    _, archive = backup(repository, source, first)

    assert archive.files_unmodified == 0


def test_a_parent_whose_blob_is_in_no_index_is_not_trusted(
    repository: Repository, store: S3Store, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"content")
    first, _ = backup(repository, source)
    late = Snapshot(time=datetime(2100, 1, 1, tzinfo=UTC), tree=first.tree, paths=first.paths, id=first.id)
    for name, _ in list(store.list("index/")):
        store.delete(name)
    reopened = Repository.open(store, PASSWORD)

    _, archive = backup(reopened, source, late)

    assert archive.files_unmodified == 0
    assert archive.added_bytes > 0


def test_the_file_systems_own_directory_is_left_out_when_it_holds_nothing(
    repository: Repository, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (source / "lost+found").mkdir(parents=True)
    (source / "sub" / "lost+found").mkdir(parents=True)

    snapshot, archive = backup(repository, source)

    assert archive.warning_count == 0
    assert [path for path, _ in repository.walk(snapshot.tree)] == ["data", "data/sub", "data/sub/lost+found"]


def test_a_socket_is_noted_and_no_reason_to_worry(repository: Repository, tmp_path: Path) -> None:
    import socket

    source = tmp_path / "source"
    source.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(source / "socket"))
        _, archive = backup(repository, source)

    assert archive.warning_count == 0
    assert archive.notes[0].path == "/socket"
    assert "socket" in archive.notes[0].message
