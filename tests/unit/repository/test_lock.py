"""What a holder of a lock may still do, and whose lock counts no more."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from backstay.repository import Corrupted, LockLost, RepositoryLocked, Unreachable, lock
from backstay.repository.format.blob import Codec
from backstay.repository.format.crypto import Key
from backstay.repository.format.rfc3339 import from_datetime
from backstay.repository.lock import Lock, LockInfo, read_locks, unlock
from tests.unit.repository.memory_store import MemoryStore

TIME = datetime(2026, 11, 24, tzinfo=UTC)
CODEC = Codec(Key.random())


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def held(store: MemoryStore) -> Iterator[Lock]:
    with Lock(store, CODEC, "holder", refresh_seconds=3600) as mine:
        yield mine


def sleep(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The machine sleeps: both clocks go on, and nothing of ours ran meanwhile."""
    clock, now = lock._clock, lock.now
    monkeypatch.setattr(lock, "_clock", lambda: clock() + seconds)
    monkeypatch.setattr(lock, "now", lambda: now() + timedelta(seconds=seconds))


def test_a_lock_that_was_not_renewed_for_22_minutes_commits_nothing(
    held: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep(monkeypatch, 21 * 60)
    held.ensure_held()
    sleep(monkeypatch, 2 * 60)

    with pytest.raises(LockLost, match="renewed"):
        held.ensure_held()


def test_a_lock_that_may_have_been_passed_over_is_not_brought_back(
    held: Lock, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep(monkeypatch, 35 * 60)
    held._refresh()

    with pytest.raises(LockLost):
        held.ensure_held()
    assert list(store.objects) == [f"locks/{held.id}"]


def test_a_lock_that_was_removed_is_not_brought_back(held: Lock, store: MemoryStore) -> None:
    store.objects.clear()
    held._refresh()

    assert store.objects == {}
    with pytest.raises(LockLost, match="removed"):
        held.ensure_held()


def test_a_renewed_lock_is_held_on(held: Lock, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = held.id
    sleep(monkeypatch, 20 * 60)
    held._refresh()
    sleep(monkeypatch, 20 * 60)

    held.ensure_held()
    assert held.id != before
    assert list(store.objects) == [f"locks/{held.id}"]


def test_a_lock_that_could_not_be_renewed_once_may_be_renewed_later(held: Lock, store: MemoryStore) -> None:
    store.fail_at = len(store.history)
    with pytest.raises(Unreachable):
        held._refresh()
    store.fail_at = None
    held._refresh()

    held.ensure_held()
    assert list(store.objects) == [f"locks/{held.id}"]


def test_an_exclusive_lock_that_finds_another_beside_it_withdraws(store: MemoryStore) -> None:
    class Late(MemoryStore):
        """Shows the other's lock only after ours is written, as when both come at the same moment."""

        def put(self, name: str, data: bytes | bytearray | memoryview, *, sha256: bytes | None = None) -> None:
            super().put(name, data, sha256=sha256)
            self.objects.update(others)

    Lock(store, CODEC, "other").acquire()
    others = dict(store.objects)
    late = Late()

    with pytest.raises(RepositoryLocked, match="other"), Lock(late, CODEC, "mine", exclusive=True):
        pass

    assert late.objects == others


def test_whoever_removes_data_clears_stale_locks_so_that_their_holders_notice(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = Lock(store, CODEC, "sleeper", refresh_seconds=3600)
    sleeper.acquire()
    sleep(monkeypatch, 31 * 60)

    with Lock(store, CODEC, "pruner", exclusive=True) as pruner:
        assert list(store.objects) == [f"locks/{pruner.id}"]
    with pytest.raises(LockLost):
        sleeper.ensure_held()


def test_a_lock_names_its_process_so_that_its_death_can_be_proven(held: Lock, store: MemoryStore) -> None:
    (found,) = read_locks(store, CODEC)

    assert found.pid == os.getpid()
    assert not found.stale(datetime.now(UTC))
    namespace, _, started = found.process.rpartition("/")
    assert LockInfo("", TIME, True, "", found.pid, f"{namespace}/{int(started) - 1}").stale(TIME)


@pytest.mark.parametrize(
    ("process", "stale"),
    [
        ("", False),  # restic's: it says nothing of its process
        ("another-kernel/pid:[1]/5", False),
    ],
)
def test_a_process_that_we_could_not_see_is_not_taken_for_dead(process: str, stale: bool) -> None:
    dead = 2**22 + 1  # above the greatest id that a process may have

    assert LockInfo("", TIME, True, "elsewhere", dead, process).stale(TIME) is stale
    assert LockInfo("", TIME, True, "elsewhere", dead, process).abandoned(TIME) is stale


@pytest.mark.parametrize("damage", ["content", "document"])
def test_a_damaged_lock_is_in_the_way_until_all_are_removed(store: MemoryStore, damage: str) -> None:
    stored = CODEC.seal_file(b"{}")
    store.objects["locks/" + ("0" * 64 if damage == "content" else hashlib.sha256(stored).hexdigest())] = stored

    with pytest.raises(Corrupted, match="unlock --remove-all"):
        Lock(store, CODEC, "us").acquire()

    assert unlock(store, CODEC, remove_all=True) == 1
    with Lock(store, CODEC, "us"):
        pass


def test_a_lock_of_the_future_blocks_and_says_whose_clock_is_wrong(store: MemoryStore) -> None:
    document = {"time": from_datetime(datetime.now(UTC) + timedelta(hours=3)), "exclusive": True, "hostname": "ahead"}
    stored = CODEC.seal_file(json.dumps(document).encode())
    store.objects[f"locks/{hashlib.sha256(stored).hexdigest()}"] = stored

    with pytest.raises(RepositoryLocked, match=r"ahead.*17[89] minutes ahead of ours.*--remove-all"):
        Lock(store, CODEC, "us").acquire()

    assert unlock(store, CODEC) == 0
    assert unlock(store, CODEC, remove_all=True) == 1


def test_an_unreadable_lock_goes_only_with_all(store: MemoryStore) -> None:
    store.objects["locks/" + "0" * 64] = b"not a lock"

    assert unlock(store, CODEC) == 0
    assert unlock(store, CODEC, remove_all=True) == 1
