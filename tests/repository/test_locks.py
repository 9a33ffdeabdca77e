"""Our locks and restic's respect each other."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from backstay.repository import LockLost, Repository, RepositoryLocked, S3Store, Snapshot
from backstay.repository.format.rfc3339 import from_datetime
from backstay.repository.lock import unlock
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


@contextmanager
def running(referee: Restic, store: S3Store, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A restic that is under way, from the moment its lock is there; it waits for its standard input, or is stopped."""
    process = subprocess.Popen(
        [str(referee.binary), *arguments],
        env=referee.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(store.list("locks/")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_we_write_but_do_not_remove_while_restic_backs_up(
    repository: Repository, store: S3Store, referee: Restic
) -> None:
    with running(referee, store, "backup", "--stdin") as process:
        with pytest.raises(RepositoryLocked, match="a shared lock"), repository.lock(exclusive=True):
            pass
        with repository.writer() as writer:
            tree = writer.save_files({"a": b"b"}, datetime.now(UTC))
            writer.commit(Snapshot(time=datetime.now(UTC), tree=tree, paths=("/a",)))
        told, _ = process.communicate("content", timeout=60)

    assert process.returncode == 0, told
    with repository.lock(exclusive=True):
        pass
    referee.check()


def test_we_do_nothing_while_restic_prunes(repository: Repository, store: S3Store, referee: Restic) -> None:
    with running(referee, store, "prune") as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        with pytest.raises(RepositoryLocked, match="an exclusive lock"), repository.writer():
            pass
        with pytest.raises(RepositoryLocked, match="an exclusive lock"), repository.lock(exclusive=True):
            pass
        process.send_signal(signal.SIGCONT)
        told, _ = process.communicate(timeout=60)

    assert process.returncode == 0, told
    with repository.lock(exclusive=True) as lock:
        lock.ensure_held()


@pytest.mark.parametrize("arguments", [("backup", "--stdin"), ("prune",), ("snapshots",)])
def test_restic_does_nothing_while_we_remove(repository: Repository, referee: Restic, arguments: tuple[str]) -> None:
    with repository.lock(exclusive=True, holder="pod-uid") as lock:
        told = referee.run(*arguments)
        lock.ensure_held()

    assert told.returncode == 11
    assert "pod-uid" in told.stderr


def test_unlocking_removes_what_a_killed_restic_left_and_nothing_of_the_living(
    repository: Repository, store: S3Store, referee: Restic
) -> None:
    with running(referee, store, "backup", "--stdin"):
        assert unlock(store, repository.codec) == 0
        with repository.lock():
            assert unlock(store, repository.codec) == 0

    assert len(list(store.list("locks/"))) == 1
    assert unlock(store, repository.codec) == 1
    with repository.lock(exclusive=True):
        assert unlock(store, repository.codec, remove_all=True) == 1


def test_restic_removes_our_stale_locks_and_leaves_the_living_ones_and_their_holders_alone(
    repository: Repository, store: S3Store, referee: Restic
) -> None:
    name = put_lock(repository, store, age=timedelta(minutes=31), exclusive=True)
    living = repository.lock()
    living.acquire()

    referee("unlock")

    assert [found for found, _ in store.list("locks/")] == [f"locks/{living.id}"]
    assert name != f"locks/{living.id}"
    living.release()


def test_a_lock_whose_holder_was_killed_blocks_nobody(repository: Repository, store: S3Store) -> None:
    child = os.fork()
    if not child:
        try:
            repository.lock(exclusive=True).acquire()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(store.list("locks/"))) == 1

    with repository.lock(exclusive=True) as lock:
        assert [name for name, _ in store.list("locks/")] == [f"locks/{lock.id}"]


def test_one_waits_for_a_lock_as_long_as_one_was_told(repository: Repository) -> None:
    other = repository.lock(exclusive=True, holder="first")
    other.acquire()
    told: list[str] = []

    with pytest.raises(RepositoryLocked, match="first"), repository.lock(wait=0.3, on_wait=told.append):
        pass
    threading.Timer(0.5, other.release).start()
    with repository.lock(exclusive=True, wait=60) as lock:
        lock.ensure_held()

    assert len(told) == 1
    assert "first" in told[0]
