"""Our locks and restic's respect each other."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from backstay.repository import LockLost, Repository, RepositoryLocked, S3Store, Snapshot
from backstay.repository.rfc3339 import from_datetime
from tests.repository.conftest import Restic


def put_lock(repository: Repository, store: S3Store, *, age: timedelta, exclusive: bool) -> str:
    """A lock as another process would write it."""
    document = {
        "time": from_datetime(datetime.now(UTC) - age), "exclusive": exclusive, "hostname": "elsewhere",
        "username": "somebody", "pid": 42,
    }  # fmt: skip
    stored = repository.codec.seal_file(json.dumps(document).encode())
    name = f"locks/{hashlib.sha256(stored).hexdigest()}"
    store.put(name, stored)
    return name


def test_an_exclusive_lock_keeps_us_out(repository: Repository, store: S3Store) -> None:
    name = put_lock(repository, store, age=timedelta(minutes=5), exclusive=True)

    with pytest.raises(RepositoryLocked, match="elsewhere"), repository.writer():
        pass

    assert [found for found, _ in store.list("locks/")] == [name]


@pytest.mark.parametrize(("minutes", "exclusive"), [(31, True), (1, False)])
def test_stale_and_shared_locks_do_not(repository: Repository, store: S3Store, minutes: int, exclusive: bool) -> None:
    name = put_lock(repository, store, age=timedelta(minutes=minutes), exclusive=exclusive)

    with repository.writer():
        pass

    assert [found for found, _ in store.list("locks/")] == [name]


def test_restic_does_not_prune_while_we_write(repository: Repository, store: S3Store, referee: Restic) -> None:
    with repository.writer("pod-uid") as writer:
        told = referee.run("prune")
        tree = writer.save_files({"a": b"b"}, datetime.now(UTC))
        writer.commit(Snapshot(time=datetime.now(UTC), tree=tree, paths=("/a",)))

    assert told.returncode == 11
    assert "pod-uid" in told.stderr
    referee("prune")
    referee.check()


def test_a_lock_is_renewed_while_work_goes_on(repository: Repository, store: S3Store) -> None:
    with repository.writer(refresh_seconds=0.2):
        (before,) = [name for name, _ in store.list("locks/")]
        time.sleep(1)
        after = [name for name, _ in store.list("locks/")]

    assert len(after) == 1 or len(after) == 2
    assert before not in after
    assert list(store.list("locks/")) == []


def test_a_writer_whose_lock_was_removed_commits_nothing(repository: Repository, store: S3Store) -> None:
    def write() -> None:
        with repository.writer() as writer:
            tree = writer.save_files({"a": b"b"}, datetime.now(UTC))
            for name, _ in list(store.list("locks/")):
                store.delete(name)
            writer.commit(Snapshot(time=datetime.now(UTC), tree=tree, paths=("/a",)))

    with pytest.raises(LockLost):
        write()

    assert list(store.list("snapshots/")) == []
    assert list(store.list("index/")) == []
