"""The engine against stock restic: the same data, the same machine, the same S3 server, one after the other.

usage: python -m tests.bench.engine [--rounds N] [--scale S] [--only GROUP]

Each run is a process of its own through the real command line, so start-up, key derivation and index loading count. Who
comes first alternates from round to round, and nothing of ours is set differently from row to row. Prints a table of
medians beside what is aimed at, and writes build/bench-engine.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench.contenders import OURS, RESTIC, Bench, Contender
from tests.bench.measure import Cost
from tests.bench.sources import Files, Large, settle, warm
from tests.bench.table import Table, Target
from tests.repository.restic_binary import restic
from tests.repository.seaweed import Seaweed

ROOT = Path(__file__).parents[2]
SNAPSHOTS = 20  # of which half go before the prune
INSERTED = 1000  # bytes that are put before a file's first
UNCHANGED = Target(0.25, 0.30)
STORED = 1.03  # bytes, ours / restic
GROUPS = ("large", "20k", "200k", "prune", "insert")


@dataclass(frozen=True)
class Work:
    """The data of each group of rows, and where it lies."""

    root: Path
    large: Large
    few: Files
    many: Files
    aged: Files
    inserted: Large

    @classmethod
    def of(cls, root: Path, scale: float) -> Work:
        """All of it, made smaller by `scale`."""

        def scaled(number: int) -> int:
            return max(1, int(number * scale))

        return cls(
            root,
            Large(scaled(1024)),
            Files(scaled(20_000), 5_000, 15_000),
            Files(scaled(200_000), 750, 2_250),
            Files(scaled(4_000), 20_000, 80_000),
            Large(scaled(256), 32),
        )

    def make(self, group: str) -> None:
        """Write a group's files."""
        sources: dict[str, Files | Large] = {
            "large": self.large,
            "20k": self.few,
            "200k": self.many,
            "prune": self.aged,
            "insert": self.inserted,
        }
        sources[group].make(self.root / group)


class Rounds:
    """The measuring of each group of rows, one round at a time."""

    def __init__(self, bench: Bench, work: Work, table: Table) -> None:
        self._bench, self._work, self._table = bench, work, table
        self._aged: dict[str, Contender] = {}

    def run(self, group: str, number: int) -> None:
        """One round: both contenders, in the order that the round's number says."""
        path = self._work.root / group
        warm(path)
        order = (RESTIC, OURS) if number % 2 else (OURS, RESTIC)
        {
            "large": self._large,
            "20k": self._few,
            "200k": self._many,
            "prune": self._prune,
            "insert": self._insert,
        }[group](path, [Contender(self._bench, who) for who in order], number)

    def _cost(self, row: str, target: Target, contender: Contender, run: Callable[[], Cost]) -> None:
        os.sync()  # what another left to be written shall not slow this one down
        try:
            cost = run()
        except RuntimeError as error:  # told at the end; the other rows are worth their time
            self._table.failure(row, contender.who, str(error))
            return
        self._table.cost(row, target, contender.who, cost)
        sys.stderr.write(f"{contender.who:7}{row:34}{cost.wall:8.2f} s{cost.cpu:8.2f} s CPU{cost.peak:7.0f} MiB\n")

    def _first(self, name: str, target: Target, path: Path, contender: Contender) -> None:
        contender.init()
        self._cost(f"{name}: first backup", target, contender, partial(contender.backup, path))
        self._table.size(f"{name}: stored", STORED, contender.who, contender.stored())
        self._cost(f"{name}: unchanged backup", UNCHANGED, contender, partial(contender.backup, path))

    def _large(self, path: Path, contenders: list[Contender], number: int) -> None:
        for contender in contenders:
            self._first("1 GiB", Target(0.50, 0.40), path, contender)
            self._cost("1 GiB: restore", Target(0.60, 0.60), contender, contender.restore)
            self._cost("1 GiB: check --read-data", Target(0.70, 0.70), contender, contender.check)
            contender.drop()

    def _few(self, path: Path, contenders: list[Contender], number: int) -> None:
        for contender in contenders:
            self._first("20,000 files", Target(0.45, 0.50), path, contender)
            self._cost("20,000 files: restore", Target(0.60, 0.60), contender, contender.restore)
            contender.drop()

    def _many(self, path: Path, contenders: list[Contender], number: int) -> None:
        for contender in contenders:
            self._first("200,000 files", Target(0.50, 0.60), path, contender)
        self._work.many.change(path, 0.02, number + 1)
        settle()
        warm(path)
        for contender in contenders:
            self._cost("200,000 files: 2% changed", Target(0.40, 0.45), contender, partial(contender.backup, path))
            contender.drop()

    def _prune(self, path: Path, contenders: list[Contender], number: int) -> None:
        if not self._aged:
            self._age(path)
        for contender in contenders:
            with self._aged[contender.who].copied() as copy:
                self._cost("forget + prune", Target(0.70, 0.70), copy, partial(copy.forget_and_prune, SNAPSHOTS // 2))
                self._table.size("forget + prune: left", STORED, copy.who, copy.stored())

    def _age(self, path: Path) -> None:
        """Snapshots of a source of which a twentieth changes from each to the next; made once, and copied."""
        self._aged = {who: Contender(self._bench, who) for who in (OURS, RESTIC)}
        for contender in self._aged.values():
            contender.init()
        for generation in range(1, SNAPSHOTS + 1):
            for contender in self._aged.values():
                contender.backup(path)
            self._work.aged.change(path, 0.05, generation)

    def _insert(self, path: Path, contenders: list[Contender], number: int) -> None:
        before = {}
        for contender in contenders:
            contender.init()
            contender.backup(path)
            before[contender.who] = contender.stored()
        self._work.inserted.insert(path, INSERTED)
        settle()
        for contender in contenders:
            contender.backup(path)
            grown = contender.stored() - before[contender.who]
            self._table.size(f"{INSERTED} bytes at the front: growth", 1.0, contender.who, grown)
            contender.drop()


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="sizes and numbers of files, relative to the table's")
    parser.add_argument("--only", action="append", choices=GROUPS, help="this group of rows (may be repeated)")
    options = parser.parse_args()
    groups = options.only or GROUPS
    table = Table()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        work = Work.of(directory / "sources", options.scale)
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            pool.map(work.make, groups)
        settle()
        bench = Bench(stack.enter_context(Seaweed()), directory)
        rounds = Rounds(bench, work, table)
        for group in groups:
            for number in range(options.rounds):
                rounds.run(group, number)
    _report(table, options)


def _report(table: Table, options: argparse.Namespace) -> None:
    version = subprocess.run([str(restic()), "version"], capture_output=True, text=True, check=True).stdout.strip()
    where = f"{len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}, {version}"
    print(f"medians of {options.rounds} rounds at scale {options.scale:g}; {where}")
    for line in table.lines():
        print(line)
    document = {"rounds": options.rounds, "scale": options.scale, "where": where, **table.json()}
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "bench-engine.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
