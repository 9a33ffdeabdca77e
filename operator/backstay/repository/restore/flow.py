"""How a restore's work flows: a few threads fetch ranges of packs, and others have what is in them written.

With a crew, each writing thread speaks for one process, and ranges are fetched into memory that the processes see.
Without one, the thread does the same work itself. There is room for a few ranges; whoever fetches waits for it.
"""

from __future__ import annotations

import mmap
import os
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from backstay.repository.crew import SLOT_BYTES, Channel, Crew
from backstay.repository.errors import Corrupted, WorkerFailed
from backstay.repository.format.blob import Codec
from backstay.repository.reader import Reader
from backstay.repository.restore import orders as restore_orders
from backstay.repository.restore.mending import Mender
from backstay.repository.restore.orders import Answer, Compare, Compared, Damaged, Setup, Write, Written
from backstay.repository.restore.plan import Portion, Range
from backstay.repository.restore.worker import Worker

FETCHES = 3  # at once
_SPARE = 2  # ranges that wait to be written, while others are fetched
_WRITERS = 2  # threads that write where there is no crew
_MODULE = "restore.worker"

Result = tuple[Written, Portion]


class Flow:
    """Fetching and writing for one restore. `close` it; its futures raise what went wrong."""

    def __init__(
        self,
        reader: Reader,
        codec: Codec,
        target: bytes,
        root: int,
        crew: Crew | None,
        tell: Callable[[int, int], None],
        *,
        replace: bool,
        sparse: bool,
    ) -> None:
        """`root`: a descriptor of the target. `tell`: takes files and bytes that are done, in some thread."""
        self._reader = reader
        self._mender = Mender(reader, codec)
        self._tell = tell
        self._crew = crew
        self._stopped = threading.Event()
        self._mutex = threading.Lock()
        self.failure: BaseException | None = None  # the first; what comes after it may be its consequence only
        status = os.fstat(root)
        key = codec.key
        identity = (status.st_dev, status.st_ino)
        settings = Setup(key.encrypt, key.mac_k, key.mac_r, target, identity, replace, sparse)
        self._hands: queue.SimpleQueue[_Hand] = queue.SimpleQueue()
        self._all_hands: list[_Hand] = []
        if crew is None:
            self._all_hands += [_Hand(worker=Worker(codec, settings)) for _ in range(_WRITERS)]
        else:
            crew.begin(_MODULE, restore_orders.encode(settings))
            self._all_hands += [_Hand(channel=channel) for channel in crew.channels]
        for hand in self._all_hands:
            self._hands.put(hand)
        self._slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        count = FETCHES + _SPARE if crew is None else min(FETCHES + _SPARE, crew.slots)
        self._rooms = [memoryview(mmap.mmap(-1, SLOT_BYTES)) if crew is None else crew.slot(n) for n in range(count)]
        for number in range(count):
            self._slots.put(number)
        self._fetchers = ThreadPoolExecutor(FETCHES, thread_name_prefix="restore-fetch")
        self._writers = ThreadPoolExecutor(len(self._all_hands), thread_name_prefix="restore-write")

    def fetch(self, wanted: Range) -> Future[list[Future[Result]]]:
        """Fetch a range and carry out its orders: a future of futures."""
        return self._fetchers.submit(self._fetch, wanted)

    def write(self, portion: Portion) -> Future[Result]:
        """Carry out an order that needs no range."""
        return self._writers.submit(self._write, portion, None)

    def compare(self, orders: Iterable[Compare]) -> list[Future[Compared]]:
        """Have files compared."""
        return [self._writers.submit(self._compare, order) for order in orders]

    def close(self) -> None:
        """Stop at the next order, and wait until nobody works any more."""
        self._stopped.set()
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._writers.shutdown(wait=True, cancel_futures=True)
        for _ in range(FETCHES):
            self._slots.put(-1)  # for those who wait for room that nobody gives back
        self._fetchers.shutdown(wait=True)
        for hand in self._all_hands:
            hand.close()

    # --- in the threads -------------------------------------------------------------------------------------------

    def _fetch(self, wanted: Range) -> list[Future[Result]]:
        slot = self._slots.get()
        if slot < 0 or self._stopped.is_set():
            raise WorkerFailed("the restore was stopped")
        try:
            try:
                self._reader.fetch_into(wanted.pack, wanted.offset, self._rooms[slot][: wanted.length])
            except Corrupted as error:  # gone or cut off: who writes finds no blob whole, and each is looked for
                self._mender.failed(wanted.pack, error)
            use = _Use(len(wanted.portions), wanted.length, lambda: self._slots.put(slot))
            jobs = []
            for portion in wanted.portions:
                portion.order.slot = slot
                jobs.append(self._writers.submit(self._write, portion, use))
        except BaseException as error:
            self._fail(error)
            raise
        return jobs

    def _fail(self, error: BaseException) -> None:
        with self._mutex:
            if not self._stopped.is_set():
                self.failure = error
                self._stopped.set()

    def _write(self, portion: Portion, use: _Use | None) -> Result:
        try:
            answer = self._carry_out(portion.order, self._rooms[portion.order.slot])
            assert isinstance(answer, Written)
            if answer.damaged and use is not None:
                answer = self._mend(portion.order, answer, use)
        finally:
            if use is not None:
                use.less()
        given_up = sum(portion.order.parts[each.part].attributes is not None for each in answer.damaged)
        self._tell(portion.finishes - given_up, portion.size)
        return answer, portion

    def _mend(self, order: Write, answer: Written, use: _Use) -> Written:
        """Have damaged parts written out of what can be found of them elsewhere; what then became of the order."""
        room = self._rooms[order.slot]
        damaged = {each.part: each for each in answer.damaged}
        try:
            again, redo, faults = self._mender.mend(order, damaged, room, use.take)
        except BaseException as error:
            self._fail(error)
            raise
        second = self._carry_out(again, room) if redo else Written([], [], [])
        assert isinstance(second, Written)
        return Written(
            answer.losses + second.losses,
            answer.occupied + [redo[part] for part in second.occupied],
            [Damaged(part, damaged[part].touched, fault) for part, fault in faults.items()]
            + [Damaged(redo[each.part], each.touched, each.fault) for each in second.damaged],
        )

    def _compare(self, order: Compare) -> Compared:
        answer = self._carry_out(order, memoryview(b""))
        assert isinstance(answer, Compared)
        return answer

    def _carry_out(self, order: Write | Compare, room: memoryview) -> Answer:
        if self._stopped.is_set():
            raise WorkerFailed("the restore was stopped")
        hand = self._hands.get()
        try:
            return hand.carry_out(order, room)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._hands.put(hand)


class _Hand:
    """One who writes: a process at the other end of a channel, or this one."""

    def __init__(self, channel: Channel | None = None, worker: Worker | None = None) -> None:
        self._channel = channel
        self._worker = worker

    def carry_out(self, order: Write | Compare, room: memoryview) -> Answer:
        if self._worker is not None:
            return self._worker.carry_out(order, room)
        if self._channel is None:
            raise WorkerFailed("a worker process failed before")
        try:
            self._channel.send(restore_orders.encode(order))
            answer: Answer = restore_orders.decode_answer(self._channel.receive())
            return answer
        except BaseException:
            self._channel = None  # it is not at this job any more, or we do not know what it would say next
            raise

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
        if self._channel is not None:
            with suppress(WorkerFailed):  # whoever begins the next job will hear of it
                self._channel.send(b"")


class _Use:
    """How many orders still need a slot, and how much of it is in use, in bytes."""

    def __init__(self, count: int, size: int, free: Callable[[], None]) -> None:
        self._count = count
        self._size = size
        self._free = free
        self._mutex = threading.Lock()

    def take(self, size: int) -> int | None:
        """Where in the slot there are so many bytes that nobody uses."""
        with self._mutex:
            start = self._size
            if start + size > SLOT_BYTES:
                return None
            self._size += size
        return start

    def less(self) -> None:
        with self._mutex:
            self._count -= 1
            last = not self._count
        if last:
            self._free()
