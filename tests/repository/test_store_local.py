"""A repository in a directory: restic's own layout, whole files only, and errors that say what to do."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backstay.repository import (
    AccessDenied,
    Corrupted,
    ObjectNotFound,
    Repository,
    RepositoryNotFound,
    Snapshot,
    StoreRefused,
)
from backstay.repository.errors import StoreFull
from backstay.repository.stores.local import LocalStore
from tests.repository.conftest import PASSWORD

ID = "ab" * 32
NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
PACK = f"data/ab/{ID}"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def local(directory: Path) -> LocalStore:
    """A store in which a repository has begun."""
    store = LocalStore(directory)
    store.put(f"keys/{ID}", b"key")
    return store


def restic(binary: Path, directory: Path, cache: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(binary), "-r", str(directory), "--cache-dir", str(cache), *arguments],
        env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"restic {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_bytes(os.urandom(100_000))
    (tmp_path / "source/text").write_text("content\n")
    return tmp_path / "source"


def test_restic_reads_and_writes_what_we_began(
    directory: Path, source: Path, tmp_path: Path, restic_binary: Path
) -> None:
    repository = Repository.init(LocalStore(directory), PASSWORD)
    with repository.writer() as writer:
        archive = writer.backup(str(source), name="source")
        writer.commit(Snapshot(tree=archive.tree, time=NOW, paths=("/source",), hostname="here"))

    restic(restic_binary, directory, tmp_path / "cache", "restore", "latest", "--target", str(tmp_path / "restored"))
    restic(restic_binary, directory, tmp_path / "cache", "backup", str(source))

    assert (tmp_path / "restored/source/file").read_bytes() == (source / "file").read_bytes()
    assert "no errors were found" in restic(restic_binary, directory, tmp_path / "cache", "check", "--read-data")
    assert len(list(Repository.open(LocalStore(directory), PASSWORD).snapshots())) == 2


def test_we_read_and_write_what_restic_began(
    directory: Path, source: Path, tmp_path: Path, restic_binary: Path
) -> None:
    restic(restic_binary, directory, tmp_path / "cache", "init")
    restic(restic_binary, directory, tmp_path / "cache", "backup", str(source))
    repository = Repository.open(LocalStore(directory), PASSWORD)
    (snapshot,) = repository.snapshots()

    text = b"".join(repository.read_file(repository.find(snapshot.tree, f"{source}/text")))
    with repository.writer() as writer:
        archive = writer.backup(str(source), name="source")
        writer.commit(Snapshot(tree=archive.tree, time=NOW, paths=("/source",), hostname="here"))

    assert text == b"content\n"
    assert "no errors were found" in restic(restic_binary, directory, tmp_path / "cache", "check", "--read-data")


def test_files_and_directories_have_the_modes_that_restic_gives_them(
    directory: Path, tmp_path: Path, restic_binary: Path
) -> None:
    restic(restic_binary, tmp_path / "theirs", tmp_path / "cache", "init")
    Repository.init(LocalStore(directory), PASSWORD)

    def modes(root: Path) -> set[tuple[str, int]]:
        found = [root / "config", root / "keys", next((root / "keys").iterdir())]
        return {(path.relative_to(root).parts[0], stat.S_IMODE(path.stat().st_mode)) for path in found}

    assert modes(directory) == modes(tmp_path / "theirs")


def test_a_repository_that_a_group_shares_stays_shared(local: LocalStore, directory: Path) -> None:
    local.put("config", b"settings")
    (directory / "config").chmod(0o440)

    local.put(PACK, b"content")

    assert stat.S_IMODE((directory / PACK).stat().st_mode) == 0o440
    assert stat.S_IMODE((directory / "data").stat().st_mode) & 0o070 == 0o070 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def test_ranges_are_read_and_what_is_missing_is_told(local: LocalStore) -> None:
    local.put(PACK, memoryview(b"0123456789"))

    assert local.get(PACK) == b"0123456789"
    assert local.get(PACK, 3, 4) == b"3456"
    assert local.get(PACK, 8) == b"89"
    assert local.get(PACK, 3, 0) == b""
    with pytest.raises(Corrupted, match="4 bytes wanted at 8, only 2 there"):
        local.get(PACK, 8, 4)
    with pytest.raises(Corrupted, match="shorter than"):
        local.get(PACK, 10)
    with pytest.raises(Corrupted):
        local.get(PACK, 0, 1 << 60)


def test_objects_are_listed_by_the_beginnings_of_their_names(local: LocalStore) -> None:
    local.put(PACK, b"content")
    local.put(f"data/ac/{ID}", b"")

    assert dict(local.list("data/")) == {PACK: 7, f"data/ac/{ID}": 0}
    assert dict(local.list("data/ab")) == {PACK: 7}
    assert dict(local.list("")) == {PACK: 7, f"data/ac/{ID}": 0, f"keys/{ID}": 3}
    assert dict(local.list("index/")) == {}
    assert dict(local.list("dat")) == {PACK: 7, f"data/ac/{ID}": 0}


def test_what_is_deleted_is_gone_and_may_be_deleted_again(local: LocalStore) -> None:
    local.put(PACK, b"content")

    local.delete(PACK)
    local.delete(PACK)

    assert not local.exists(PACK)
    with pytest.raises(ObjectNotFound):
        local.get(PACK)


def test_an_object_is_replaced_whole(local: LocalStore) -> None:
    local.put("config", b"first")
    local.put("config", b"second")

    assert local.get("config") == b"second"


def test_many_threads_make_the_same_directories(local: LocalStore) -> None:
    with ThreadPoolExecutor(16) as executor:
        list(executor.map(lambda number: local.put(f"data/{number % 4:02x}/{number}", b"x"), range(64)))

    assert len(list(local.list("data/"))) == 64


def test_a_missing_directory_is_no_empty_repository(directory: Path) -> None:
    store = LocalStore(directory)

    for attempt in (
        lambda: list(store.list("data/")),
        lambda: store.get("config"),
        lambda: store.put(PACK, b""),
        lambda: Repository.open(store, PASSWORD),
    ):
        with pytest.raises(RepositoryNotFound, match="mount the disk"):
            attempt()
    assert not directory.exists()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "data//x", "data/../../x", "", "keys/.", "a\0b"])
def test_no_name_leads_out_of_the_directory(local: LocalStore, name: str) -> None:
    with pytest.raises(StoreRefused, match="no name of an object"):
        local.get(name)
    with pytest.raises(StoreRefused):
        local.put(name, b"")


@pytest.mark.parametrize(
    ("number", "error", "told"),
    [
        (errno.ENOSPC, StoreFull, "make room"),
        (errno.EDQUOT, StoreFull, "make room"),
        (errno.EACCES, AccessDenied, "right to read and write"),
        (errno.EROFS, AccessDenied, "right to read and write"),
    ],
)
def test_a_write_that_fails_leaves_nothing_and_says_why(
    local: LocalStore,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Exception],
    told: str,
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(error, match=told):
        local.put(PACK, b"content")
    monkeypatch.undo()

    assert [path for path in directory.rglob("*") if path.is_file()] == [directory / "keys" / ID]


def test_a_process_that_is_killed_leaves_only_whole_objects(local: LocalStore, directory: Path) -> None:
    script = """
import sys
from backstay.repository.stores.local import LocalStore
store = LocalStore(sys.argv[1])
for number in range(100000):
    store.put(f"data/{number % 256:02x}/{number}", bytes([number % 256]) * 300000)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", script, str(directory)], env=environment)
    while len(list(local.list("data/"))) < 20:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()

    found = dict(local.list("data/"))

    assert set(found.values()) == {300000}
    for name in found:
        assert local.get(name) == bytes([int(name.rpartition("/")[2]) % 256]) * 300000
