"""Work on many things by a few threads, with the answers in order and only so many of them under way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def ordered(
    work: Callable[[Item], Answer], items: Iterable[Item], *, threads: int, ahead: int, name: str
) -> Iterator[Answer]:
    """`work` of each item, in the items' order; at most `ahead` are begun or waiting to be taken.

    The first error is raised where its answer would have come; what was not begun by then never is.
    """
    remaining = iter(items)
    under_way: deque[Future[Answer]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
    try:
        while True:
            while len(under_way) < ahead:
                try:
                    item = next(remaining)
                except StopIteration:
                    break
                under_way.append(executor.submit(work, item))
            if not under_way:
                return
            yield under_way.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class Budget:
    """Bytes that threads may hold at once. What is larger than all of it waits until it is alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size
        self._condition = threading.Condition()

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Wait until `count` bytes are left, and have them for the block."""
        count = min(count, self._size)
        with self._condition:
            self._condition.wait_for(lambda: self._left >= count)
            self._left -= count
        try:
            yield
        finally:
            with self._condition:
                self._left += count
                self._condition.notify_all()
