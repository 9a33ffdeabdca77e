"""The work queue, run by hand with a clock that the test turns."""

from __future__ import annotations

import threading

import pytest

from backstay.kube.errors import ConflictError, UnavailableError
from backstay.kube.workqueue import CONFLICT_PAUSE, Key, WorkQueue

A = Key("Backup", "shop", "a")
B = Key("Backup", "shop", "b")


class Bench:
    """A queue whose reconcile does what the test says, in the test's own thread."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: list[Key] = []
        self.results: dict[Key, list[float | Exception | None]] = {}
        self.queue = WorkQueue(self._reconcile, clock=lambda: self.now)

    def _reconcile(self, key: Key) -> float | None:
        self.runs.append(key)
        results = self.results.get(key)
        result = results.pop(0) if results else None
        if isinstance(result, Exception):
            raise result
        return result

    def drain(self) -> list[Key]:
        self.runs.clear()
        while self.queue.run_due():
            pass
        return list(self.runs)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_key_that_is_added_many_times_runs_once(bench: Bench) -> None:
    for _ in range(5):
        bench.queue.add(A)
    bench.queue.add(B)

    assert sorted(bench.drain()) == [A, B]
    assert bench.queue.next_due() is None


def test_a_delayed_key_runs_when_its_time_has_come_or_it_is_wanted_sooner(bench: Bench) -> None:
    bench.queue.add_after(A, 10)
    bench.queue.add_after(B, 10)
    bench.queue.add_after(B, 20)
    bench.queue.add(A)

    assert bench.drain() == [A]
    bench.now = 9.9
    assert bench.drain() == []
    bench.now = 10
    assert bench.drain() == [B]
    bench.now = 100
    assert bench.drain() == []


def test_the_result_is_when_to_look_again(bench: Bench) -> None:
    bench.results[A] = [2.0, None]
    bench.queue.add(A)

    assert bench.drain() == [A]
    assert bench.queue.next_due() == 2.0
    bench.now = 2.0
    assert bench.drain() == [A]
    assert bench.queue.next_due() is None


def test_failures_are_tried_again_after_growing_pauses_until_one_success(bench: Bench) -> None:
    bench.results[A] = [ValueError("bug"), UnavailableError("get x", 503, "", ""), ValueError("bug"), None]
    bench.queue.add(A)

    pauses = []
    for _ in range(3):
        bench.drain()
        pause = bench.queue.next_due()
        assert pause is not None
        pauses.append(pause)
        bench.now += pause
    bench.drain()

    assert pauses == [1.0, 2.0, 4.0]
    bench.results[A] = [ValueError("bug")]
    bench.queue.add(A)
    bench.drain()
    assert bench.queue.next_due() == 1.0


def test_a_conflict_is_no_failure_and_soon_looked_at_again(bench: Bench) -> None:
    bench.results[A] = [ConflictError("write x", 409, "Conflict", "")]
    bench.queue.add(A)
    bench.drain()

    assert bench.queue.next_due() == CONFLICT_PAUSE


def test_a_key_never_runs_twice_at_once_and_runs_again_when_it_was_added_meanwhile() -> None:
    entered, go_on = threading.Semaphore(0), threading.Semaphore(0)
    at_work: list[int] = []
    most: list[int] = []

    def reconcile(key: Key) -> None:
        at_work.append(1)
        most.append(len(at_work))
        entered.release()
        assert go_on.acquire(timeout=5)
        at_work.pop()

    queue = WorkQueue(reconcile, workers=3)
    queue.start()
    queue.add(A)
    assert entered.acquire(timeout=5)
    for _ in range(3):
        queue.add(A)
    go_on.release()
    assert entered.acquire(timeout=5)
    go_on.release()

    assert queue.stop(5)
    assert most == [1, 1]


def test_stopping_waits_for_what_runs_and_tells_when_it_does_not_end() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def reconcile(key: Key) -> None:
        entered.set()
        go_on.wait(5)

    queue = WorkQueue(reconcile, workers=1)
    queue.start()
    queue.add(A)
    queue.add(B)
    assert entered.wait(5)

    assert not queue.stop(0.01)
    go_on.set()
    assert queue.stop(5)
    assert queue.next_due() == 0.0, "the second key is not begun any more"
