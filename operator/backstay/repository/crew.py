"""Processes for what the GIL would make one after the other: hashing, compressing, sealing, writing many small files.

They are forked by whoever starts the program, before it has a second thread: a fork copies the locks that other threads
hold at that moment, and OpenSSL has many. A program without a crew does the same work in its own process.

A crew knows nothing of the work. `begin` names a module of this package, whose `work(channel, slots, setup)` each
process calls; what goes over the channels from then on is that module's affair. Bulk goes through shared memory, cut
into slots that hold a pack each.
"""

from __future__ import annotations

import gc
import importlib
import mmap
import os
import signal
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from types import TracebackType
from typing import Self

from backstay.repository import errors
from backstay.repository.errors import RepositoryError, WorkerFailed
from backstay.repository.format.pack import BUFFER_SIZE

MOST = 4  # processes; more would only wait for the one that uploads
SLOT_BYTES = -(-BUFFER_SIZE // mmap.PAGESIZE) * mmap.PAGESIZE
_MESSAGE, _FAILURE = b"\0", b"\1"


class Channel:
    """One end of a pipe that carries whole messages."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: bytes) -> None:
        """Send a message. Raises WorkerFailed when the other end is gone."""
        try:
            self._connection.send_bytes(_MESSAGE + message)
        except OSError:
            raise _died() from None

    def receive(self) -> bytes:
        """The next message. Raises what the other end failed with, or WorkerFailed when it is gone."""
        try:
            message = self._connection.recv_bytes()
        except (EOFError, OSError):
            raise _died() from None
        if message[:1] == _FAILURE:
            name, _, text = message[1:].decode().partition("\0")
            kind = getattr(errors, name, WorkerFailed)
            raise kind(text)
        return message[1:]

    def fail(self, error: BaseException) -> None:
        """Let the other end's `receive` raise the error."""
        if isinstance(error, RepositoryError):
            name, text = type(error).__name__, str(error)
        else:
            name, text = "WorkerFailed", "".join(traceback.format_exception(error))
        self._connection.send_bytes(_FAILURE + f"{name}\0{text}".encode(errors="replace"))

    def fileno(self) -> int:
        """For `ready`."""
        return self._connection.fileno()

    def close(self) -> None:
        """The other end's `receive` raises from now on."""
        self._connection.close()


def ready(channels: list[Channel], timeout: float | None = None) -> list[Channel]:
    """Those channels on which `receive` would not wait, as soon as there is one (or `timeout` seconds are over)."""
    return wait(channels, timeout)  # type: ignore[return-value,arg-type]


class Crew:
    """Processes that live for one `with` block and work on one job after another."""

    def __init__(self, size: int | None = None, *, slots: int | None = None) -> None:
        """Fork. `size`: processes (default: one a CPU, 4 at most); `slots`: pieces of shared memory.

        `returned` is the descriptor of an eventfd that becomes readable when a slot is given back.
        """
        self.size = size or min(len(os.sched_getaffinity(0)), MOST)
        self.slots = slots or 2 * self.size + 3
        self._free = list(range(self.slots))
        self._returned: list[int] = []  # appended to by whichever thread gives a slot back
        self.returned = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._memory = mmap.mmap(-1, self.slots * SLOT_BYTES)
        self._room = memoryview(self._memory)
        self.channels: list[Channel] = []
        self._pids: list[int] = []
        for _ in range(self.size):
            ours, theirs = Pipe()
            pid = os.fork()
            if not pid:
                for channel in self.channels:
                    channel.close()
                ours.close()
                _serve(Channel(theirs), self)
            theirs.close()
            self.channels.append(Channel(ours))
            self._pids.append(pid)

    @property
    def usable(self) -> bool:
        """Whether there are processes: none are left once it was closed."""
        return bool(self.channels)

    def slot(self, number: int) -> memoryview:
        """SLOT_BYTES of memory that all processes see. Pages that were never written to take no room."""
        return self._room[number * SLOT_BYTES : (number + 1) * SLOT_BYTES]

    def take_slot(self) -> int | None:
        """A slot that nobody uses, to be given back; None when all are taken."""
        while self._returned:
            self._free.append(self._returned.pop())
        return self._free.pop() if self._free else None

    def give_back(self, number: int) -> None:
        """The slot may be used again; makes `returned` readable. Any thread may say so."""
        self._returned.append(number)
        with suppress(OSError):  # the crew was closed meanwhile
            os.eventfd_write(self.returned, 1)

    def begin(self, job: str, setup: bytes) -> None:
        """Let all processes start on a job: the module's `work(channel, crew, setup)` is called in each."""
        for channel in self.channels:
            channel.send(job.encode() + b"\0" + setup)

    def close(self) -> None:
        """End the processes, wherever they are."""
        for channel in self.channels:
            channel.close()
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if self.returned >= 0:
            os.close(self.returned)
            self.returned = -1
        self.channels, self._pids = [], []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _serve(channel: Channel, crew: Crew) -> None:
    """The life of a forked process; it never returns."""
    gc.disable()  # nothing here makes cycles, and looking for them takes a tenth of the time
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the one that forked us decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    status = 1
    try:
        while True:
            job, _, setup = channel.receive().partition(b"\0")
            try:
                importlib.import_module(f"backstay.repository.{job.decode()}").work(channel, crew, setup)
            except Exception as error:  # noqa: BLE001  (told to the process that asked for the work)
                channel.fail(error)
    except WorkerFailed:  # nobody is at the other end any more
        status = 0
    finally:
        os._exit(status)


def _died() -> WorkerFailed:
    return WorkerFailed("a worker process ended unexpectedly; it may have been killed for want of memory")
