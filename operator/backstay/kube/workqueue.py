"""The queue between watches and reconciles: one key at a time, no key twice, and patience with what fails.

kopf's own handlers would keep progress in annotations and hold objects by finalizers; both are unwanted on objects that
must be deletable without us. So its events only name a key here, and a reconcile reads the live state.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from backstay.kube.errors import ConflictError, UnavailableError
from backstay.kube.lease import LostLeaseError

logger = logging.getLogger(__name__)

#: Seconds before the first repetition after a failure; doubled each time.
FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 60.0
#: A conflict means only that the object was written meanwhile: look again soon.
CONFLICT_PAUSE = 0.2


class Key(NamedTuple):
    """The object to look at."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class WorkQueue:
    """Runs ``reconcile`` for added keys in threads of its own.

    Its result is the seconds until the next look, or None to wait for an event. A key is never run twice at once; a
    key added while it runs, runs again afterwards. After an exception it runs again after a growing pause.
    """

    def __init__(
        self,
        reconcile: Callable[[Key], float | None],
        workers: int = 8,
        clock: Callable[[], float] = time.monotonic,
        name: str = "worker",
    ) -> None:
        self._reconcile = reconcile
        self._clock = clock
        self._changed = threading.Condition()
        # `_due` is the truth; heap entries that do not agree with it are stale and skipped.
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._running: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._stopping = False
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(workers)]

    def add(self, key: Key) -> None:
        """Look at the object as soon as possible."""
        self.add_after(key, 0.0)

    def add_after(self, key: Key, seconds: float) -> None:
        """Look at the object in so many seconds, unless it is due earlier."""
        with self._changed:
            self._schedule(key, self._clock() + seconds)

    def start(self) -> None:
        """Start the worker threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> bool:
        """Start no further run and wait for the present ones; False when some still run after so many seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = time.monotonic() + seconds
        started = [thread for thread in self._threads if thread.ident is not None]
        for thread in started:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in started)

    def run_due(self) -> bool:
        """Run one key that is due now, in the caller's thread; False when none is."""
        with self._changed:
            key = self._take()
        if key is None:
            return False
        self._run(key)
        return True

    def next_due(self) -> float | None:
        """Seconds until some key that does not run is due; None when none is scheduled."""
        with self._changed:
            waiting = [due for key, due in self._due.items() if key not in self._running]
            return max(0.0, min(waiting) - self._clock()) if waiting else None

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and (key := self._take()) is None:
                    self._changed.wait(max(0.0, self._heap[0][0] - self._clock()) if self._heap else None)
                if self._stopping:
                    return
            assert key is not None
            self._run(key)

    def _take(self) -> Key | None:
        while self._heap and self._heap[0][0] <= self._clock():
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due and key not in self._running:
                del self._due[key]
                self._running.add(key)
                return key
        return None

    def _run(self, key: Key) -> None:
        again: float | None
        failed = True
        try:
            again = self._reconcile(key)
            failed = False
        except ConflictError as error:
            logger.debug("%s: %s", key, error)
            again = CONFLICT_PAUSE
        except LostLeaseError as error:
            logger.warning("%s: put off: %s", key, error)
            again = FIRST_BACKOFF
        except UnavailableError as error:
            again = self._backoff(key)
            logger.warning("%s: %s; next try in %.0f s", key, error, again)
        except Exception:
            again = self._backoff(key)
            logger.exception("%s: reconcile failed; next try in %.0f s", key, again)
        with self._changed:
            self._running.discard(key)
            if not failed:
                self._failures.pop(key, None)
            if key in self._due:  # was added while it ran; its heap entry may have been skipped
                heapq.heappush(self._heap, (self._due[key], key))
                self._changed.notify()
            if again is not None:
                self._schedule(key, self._clock() + again)

    def _backoff(self, key: Key) -> float:
        with self._changed:
            count = self._failures.get(key, 0)
            self._failures[key] = count + 1
        return min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(count, 10))

    def _schedule(self, key: Key, due: float) -> None:
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        if key not in self._running:
            heapq.heappush(self._heap, (due, key))
            self._changed.notify()
