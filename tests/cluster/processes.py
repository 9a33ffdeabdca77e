"""The cluster's long-running programs: started so that they outlive the shell, recorded, and stopped again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.commands import until
from tests.cluster.errors import ClusterError
from tests.cluster.network import inside
from tests.cluster.places import Places
from tests.cluster.toolchain import SYSTEM_PATH


@dataclass(frozen=True)
class Process:
    """A process as recorded; its start time tells it from a later one with the same id.

    Attributes:
        name: the program's name in the cluster, and its log's.
        pid: process id.
        started: clock ticks between boot and its start.
    """

    name: str
    pid: int
    started: int

    @property
    def alive(self) -> bool:
        return _start_time(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Signal the process, unless it ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):  # it may end between the look and the signal
                os.kill(self.pid, number)


class Processes:
    """All recorded processes of the cluster."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def start(self, name: str, command: Sequence[str | Path], *, folder: Path | None = None) -> None:
        """Start a program in the cluster's network namespace.

        Args:
            name: what to call it; `<state>/log/<name>.log` gets its output.
            command: the program and its arguments.
            folder: where it starts; the state folder where None.
        """
        self._places.logs.mkdir(parents=True, exist_ok=True)
        self._places.records.mkdir(parents=True, exist_ok=True)
        # Nothing of the caller's environment: a proxy or GODEBUG set there would make clusters differ.
        env = {"PATH": f"{self._places.bin}:{SYSTEM_PATH}", "HOME": str(self._places.state)}
        with (self._places.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                inside(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder or self._places.state,
                env=env,
                start_new_session=True,
            )
        child.returncode = 0  # disown: it is to outlive us, and Popen would warn about that
        started = _start_time(child.pid)
        if started is not None:
            record = self._places.records / f"{name}.json"
            record.write_text(json.dumps({"pid": child.pid, "started": started}))

    def all(self) -> list[Process]:
        """Every process ever started by this cluster, alive or not."""
        found = []
        for record in sorted(self._places.records.glob("*.json")):
            try:
                fields = json.loads(record.read_text())
            except ValueError:  # we were killed while writing it
                continue
            found.append(Process(record.stem, fields["pid"], fields["started"]))
        return found

    def require_alive(self) -> None:
        """Raise ClusterError, with the end of its log, for a program that ended by itself."""
        for process in self.all():
            if not process.alive:
                raise ClusterError(f"{process.name} ended by itself; its last words:\n{self.last_words(process.name)}")

    def last_words(self, name: str, lines: int = 15) -> str:
        """The end of a program's log."""
        log = self._places.logs / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"


def stop(processes: Iterable[Process], *, seconds: float) -> None:
    """Ask processes to end, all at once, and kill those that have not within `seconds`."""
    asked = list(processes)
    for process in asked:
        process.send(signal.SIGTERM)
    try:
        until("programs to end", lambda: not any(process.alive for process in asked), seconds=seconds)
    except ClusterError:
        for process in asked:
            process.send(signal.SIGKILL)
        until("killed programs to end", lambda: not any(process.alive for process in asked), seconds=10)


def kill(pids: Iterable[int]) -> None:
    """Kill processes of which nothing but the id is known, right after finding them."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def ancestors() -> set[int]:
    """Our own process id and those of our parents, which a sweep must spare."""
    found, pid = set(), os.getpid()
    while pid > 1 and pid not in found:
        found.add(pid)
        stat = _stat(pid)
        if stat is None:
            break
        pid = int(stat[1])
    return found


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the third on; the second, a name, may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _start_time(pid: int) -> int | None:
    """Clock ticks between boot and a process's start; None for a process that is gone or a zombie."""
    stat = _stat(pid)
    return None if stat is None or stat[0] in "ZX" else int(stat[19])
