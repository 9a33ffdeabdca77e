"""What one run of a command costs: wall and CPU seconds, and the memory that all of its processes hold together.

Both contenders are measured in the same way. CPU is what the kernel charges to the process and to the children that it
waited for. Memory is the largest sum of the proportional set sizes (PSS) of all processes, looked at every few
hundredths of a second: pages that processes share, such as a crew's shared memory, count once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_SECONDS = 0.03
_SAMPLE_SHARE = 25  # a look takes at most one part in so many of one CPU
_TICK = os.sysconf("SC_CLK_TCK")
_UNSEEN_SECONDS = 0.25  # of CPU by which samples may exceed the kernel's bill: its clock ticks


@dataclass(frozen=True)
class Cost:
    """Of one command: seconds of wall and of CPU, MiB of peak memory over all of its processes."""

    wall: float
    cpu: float
    peak: float


@dataclass
class Sampler:
    """Looks at a process and all that descend from it until it ends."""

    pid: int
    deadline: float
    peak: int = 0
    ticks: dict[int, int] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        pause = 0.0
        while not self.ended.wait(pause):
            started = time.monotonic()
            self.peak = max(self.peak, sum(self._look(pid) for pid in processes(self.pid)))
            if started > self.deadline:
                for pid in processes(self.pid):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            pause = max(SAMPLE_SECONDS, _SAMPLE_SHARE * (time.monotonic() - started))

    def _look(self, pid: int) -> int:
        """Bytes of PSS of one process, 0 when it has gone."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            self.ticks[pid] = int(fields[11]) + int(fields[12])
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            return 0
        return sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))

    @property
    def cpu(self) -> float:
        """Seconds that were seen to be used, in all processes; a little less than what was used."""
        return sum(self.ticks.values()) / _TICK


def processes(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                children = Path(f"/proc/{parent}/task/{task}/children").read_text()
                found += [int(child) for child in children.split()]
    return found


def measure(command: list[str], environment: dict[str, str], cwd: Path | None = None, *, limit: float = 900) -> Cost:
    """Run a command to its end. `limit`: seconds after which it is killed. Raises RuntimeError when it fails."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=cwd
    )
    sampler = Sampler(process.pid, started + limit)
    watcher = threading.Thread(target=sampler.run, daemon=True)
    watcher.start()
    assert process.stderr is not None
    told = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    sampler.ended.set()
    watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}: {told.decode(errors='replace')}")
    cpu = usage.ru_utime + usage.ru_stime
    if sampler.cpu > cpu + _UNSEEN_SECONDS:
        raise RuntimeError(
            f"{' '.join(command)} used {sampler.cpu:.2f} s of CPU of which the kernel charges {cpu:.2f} s to it:"
            " it does not wait for its processes"
        )
    return Cost(wall, cpu, sampler.peak / (1 << 20))
