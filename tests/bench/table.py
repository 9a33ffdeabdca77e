"""The table: what was measured, the ratio of ours to restic's, and what was aimed at."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.bench.contenders import OURS, RESTIC
from tests.bench.measure import Cost


@dataclass(frozen=True)
class Target:
    """At most these: ours / restic of wall and CPU seconds, and MiB of ours. None: nothing is aimed at."""

    wall: float | None = None
    cpu: float | None = None
    peak: float | None = 300.0


@dataclass
class Row:
    """One piece of work, as often as it was measured."""

    target: Target
    costs: dict[str, list[Cost]] = field(default_factory=lambda: {OURS: [], RESTIC: []})


@dataclass
class Size:
    """Bytes that were stored for one piece of work, as often as it was done; `target`: ours / restic at most."""

    target: float
    stored: dict[str, list[int]] = field(default_factory=lambda: {OURS: [], RESTIC: []})


class Table:
    """Rows in the order in which they were first measured."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._sizes: dict[str, Size] = {}
        self._failures: dict[tuple[str, str], str] = {}

    def cost(self, row: str, target: Target, who: str, cost: Cost) -> None:
        """Take in one measurement."""
        if any(failed == row for failed, _ in self._failures):
            return
        self._rows.setdefault(row, Row(target)).costs[who].append(cost)

    def size(self, row: str, target: float, who: str, stored: int) -> None:
        """Take in one number of stored bytes."""
        self._sizes.setdefault(row, Size(target)).stored[who].append(stored)

    def failure(self, row: str, who: str, message: str) -> None:
        """Take in that a measurement did not come about; such a row is not told, but the failure is."""
        self._rows.pop(row, None)
        self._failures[row, who] = message

    def lines(self) -> Iterable[str]:
        """The table as text."""
        yield f"{'':34}{'wall, s':>30}{'CPU, s':>30}{'peak, MiB':>28}"
        yield f"{'work':34}" + f"{'ours/restic':>15}{'ratio':>7}{'target':>8}" * 2 + f"{'ours/restic':>15}{'target':>9}"
        for name, row in self._rows.items():
            cells = []
            for key in ("wall", "cpu", "peak"):
                ours, theirs = (_median(row.costs[who], key) for who in (OURS, RESTIC))
                aim = getattr(row.target, key)
                pair = f"{ours:.2f}/{theirs:.2f}" if key != "peak" else f"{ours:.0f}/{theirs:.0f}"
                reached = ours / theirs if key != "peak" else ours
                ratio = f"{reached:7.2f}" if key != "peak" else ""
                cells.append(f"{pair:>15}{ratio}{_aim(aim, reached):>{8 if ratio else 9}}")
            yield f"{name:34}{''.join(cells)}"
        for name, size in self._sizes.items():
            ours, theirs = (statistics.median(size.stored[who]) for who in (OURS, RESTIC))
            pair = f"{ours / 1e6:.2f}/{theirs / 1e6:.2f}"
            yield f"{name:34}{pair:>15} MB{ours / theirs:7.3f}{_aim(size.target, ours / theirs):>8}"
        for (name, who), message in self._failures.items():
            yield f"FAILED {name} ({who}): {message}"
        missed = self.missed()
        yield f"{len(missed)} targets are missed (!)" if missed else "no target is missed"

    def missed(self) -> list[str]:
        """What did not reach its target."""
        found = []
        for name, row in self._rows.items():
            for key in ("wall", "cpu", "peak"):
                aim = getattr(row.target, key)
                if aim is not None and _reached(row, key) > aim:
                    found.append(f"{name}: {key}")
        for name, size in self._sizes.items():
            ours, theirs = (statistics.median(size.stored[who]) for who in (OURS, RESTIC))
            if ours > theirs * size.target:
                found.append(name)
        return found

    def json(self) -> dict[str, Any]:
        """All of it: medians, targets and each run."""
        rows = {
            name: {
                "target": asdict(row.target),
                "median": {who: {key: _median(costs, key) for key in ("wall", "cpu", "peak")}
                           for who, costs in row.costs.items()},
                "ratio": {key: round(_median(row.costs[OURS], key) / _median(row.costs[RESTIC], key), 3)
                          for key in ("wall", "cpu", "peak")},
                "runs": {who: [asdict(cost) for cost in costs] for who, costs in row.costs.items()},
            }
            for name, row in self._rows.items()
        }  # fmt: skip
        sizes = {name: asdict(size) for name, size in self._sizes.items()}
        return {"rows": rows, "sizes": sizes, "missed": self.missed(), "failures": [*self._failures.values()]}


def _median(costs: list[Cost], key: str) -> float:
    return statistics.median([float(getattr(cost, key)) for cost in costs])


def _reached(row: Row, key: str) -> float:
    ours = _median(row.costs[OURS], key)
    return ours if key == "peak" else ours / _median(row.costs[RESTIC], key)


def _aim(target: float | None, reached: float) -> str:
    if target is None:
        return "-"
    return f"{target:g}{'!' if reached > target else ' '}"
