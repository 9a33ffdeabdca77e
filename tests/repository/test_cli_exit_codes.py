"""How every command of `backstay repo` ends when the repository is not there, does not open, or is locked by restic."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from backstay.cli.main import main
from backstay.repository import Repository
from backstay.repository.format import rfc3339
from backstay.repository.format.snapshot import Snapshot
from backstay.repository.lock import read_locks
from backstay.repository.stores.local import LocalStore
from tests.repository.conftest import PASSWORD
from tests.repository.test_cli import backstay_at

EXCLUSIVELY_LOCKED = 11
READERS_AND_WRITERS = {
    "backup": ("backup", "/etc/hostname"),
    "check": ("check",),
    "copy": ("copy",),
    "diff": ("diff", "latest", "latest"),
    "dump": ("dump", "latest", "/data/file"),
    "find": ("find", "file"),
    "forget": ("forget", "latest"),
    "forget --prune": ("forget", "latest", "--prune"),
    "ls": ("ls", "latest"),
    "prune": ("prune",),
    "prune --dry-run": ("prune", "--dry-run"),
    "repair index": ("repair", "index"),
    "repair packs": ("repair", "packs", "0" * 64),
    "repair snapshots": ("repair", "snapshots"),
    "repair snapshots --dry-run": ("repair", "snapshots", "--dry-run"),
    "restore": ("restore", "latest", "--target", "/nowhere"),
    "stats": ("stats",),
}
NEED_NO_LOCK = {
    "cat": ("cat", "config"),
    "key list": ("key", "list"),
    "key add": ("key", "add"),
    "list": ("list", "packs"),
    "snapshots": ("snapshots",),
    "unlock": ("unlock",),
}
ALL = {**READERS_AND_WRITERS, **NEED_NO_LOCK}


def lock_as_restic(repository: Repository) -> None:
    """The lock of a `restic prune` on another host."""
    document = {
        "time": rfc3339.from_datetime(datetime.now(UTC)), "exclusive": True, "hostname": "elsewhere",
        "username": "somebody", "pid": 42, "uid": 0, "gid": 0,
    }  # fmt: skip
    stored = repository.codec.seal_file(json.dumps(document).encode())
    repository.store.put(f"locks/{hashlib.sha256(stored).hexdigest()}", stored)


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one snapshot."""
    place = tmp_path_factory.mktemp("codes")
    (place / "data").mkdir()
    (place / "data" / "file").write_text("content")
    repository = Repository.init(LocalStore(place / "free"), PASSWORD)
    with repository.writer() as writer:
        archive = writer.backup(str(place / "data"), name="data")
        writer.commit(Snapshot(time=datetime.now(UTC), tree=archive.tree, paths=("/data",)))
    return place / "free"


@pytest.fixture
def locked(free: Path, tmp_path: Path) -> Path:
    shutil.copytree(free, tmp_path / "locked")
    lock_as_restic(Repository.open(LocalStore(tmp_path / "locked"), PASSWORD))
    return tmp_path / "locked"


def code(repository: Path, *arguments: str, **variables: str) -> int:
    backstay = backstay_at(str(repository), repository.parent, RESTIC_FROM_PASSWORD=PASSWORD, **variables)
    done = backstay.run(*arguments, RESTIC_NEW_PASSWORD="another", RESTIC_FROM_REPOSITORY=str(repository))
    assert b"Traceback" not in done.stderr
    return done.returncode


@pytest.mark.parametrize("verb", ALL)
def test_without_a_repository_it_ends_with_10(free: Path, verb: str) -> None:
    assert code(free.with_name("nothing"), *ALL[verb]) == 10


@pytest.mark.parametrize("verb", ALL)
def test_with_a_wrong_password_it_ends_with_12(free: Path, verb: str) -> None:
    assert code(free, *ALL[verb], RESTIC_PASSWORD="wrong") == 12


@pytest.mark.parametrize("verb", READERS_AND_WRITERS)
def test_while_restic_prunes_it_ends_with_11(locked: Path, verb: str) -> None:
    before = sorted(path for path in locked.rglob("*") if path.is_file())

    assert code(locked, *ALL[verb]) == EXCLUSIVELY_LOCKED

    assert sorted(path for path in locked.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize("verb", NEED_NO_LOCK)
def test_what_needs_no_lock_goes_on_meanwhile(locked: Path, verb: str) -> None:
    assert code(locked, *ALL[verb]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("key",),
        ("key", "nonsense"),
        ("repair",),
        ("repair", "nonsense"),
        ("--nonsense", "ls"),
        ("ls",),
    ],
)
def test_a_wrong_or_missing_command_or_option_ends_with_1(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(main, ["repo", *arguments]).exit_code == 1


# --- locks -----------------------------------------------------------------------------------------------------------


def test_a_check_without_a_lock_neither_minds_nor_leaves_one(locked: Path) -> None:
    store = LocalStore(locked)
    before = list(store.list("locks/"))

    assert code(locked, "check", "--no-lock") == 0
    assert list(store.list("locks/")) == before


@pytest.mark.parametrize("verb", ["check", "repair index", "repair packs", "repair snapshots"])
def test_checks_and_repairs_wait_for_a_lock_as_long_as_told(locked: Path, verb: str) -> None:
    backstay = backstay_at(str(locked), locked.parent)

    done = backstay.run(*ALL[verb], "--retry-lock", "200ms")

    assert done.returncode == EXCLUSIVELY_LOCKED
    assert b"waiting up to 0.2 s: there is an exclusive lock of elsewhere" in done.stdout
    assert done.stdout.count(b"unlock") == 0, "what to do about it is told at the end"


def test_forgetting_and_pruning_are_under_one_lock(free: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(free, tmp_path / "repository")
    store = LocalStore(tmp_path / "repository")
    repository = Repository.open(store, PASSWORD)
    taken = []
    delete = LocalStore.delete

    def watched(self: LocalStore, name: str) -> None:
        if not name.startswith("locks/"):
            taken.append({lock.id for lock in read_locks(store, repository.codec) if lock.exclusive})
        delete(self, name)

    monkeypatch.setattr(LocalStore, "delete", watched)
    assert code(tmp_path / "repository", "forget", "latest", "--prune", "--delete-delay", "0s") == 0

    assert len(taken) > 2, "a snapshot, an index and packs went"
    assert len(taken[0]) == 1
    assert all(each == taken[0] for each in taken)
    assert list(store.list("data/")) == []
    assert list(store.list("locks/")) == []
