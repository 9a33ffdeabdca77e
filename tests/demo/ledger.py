"""What the writer's record says about a cut: the orders that must be in the backup, and those that cannot be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MARGIN = 1.0
"""Seconds on either side of the cut's second about which nothing is claimed: a VolumeSnapshot's creationTime is cut
to whole seconds, and the driver may take it shortly before it freezes the file system."""


@dataclass(frozen=True)
class Order:
    """A confirmed order: its number, and when it was sent and confirmed (seconds since the epoch)."""

    number: int
    sent: float
    confirmed: float


@dataclass(frozen=True)
class Verdict:
    """Numbers of confirmed orders, ascending."""

    must_be_there: tuple[int, ...]
    cannot_be_there: tuple[int, ...]

    @property
    def last(self) -> int:
        """The last order that must be there."""
        return self.must_be_there[-1]


def read(lines: Iterable[str]) -> list[Order]:
    """The record's complete lines; the last one may be torn, because its writer was killed."""
    orders = []
    for line in lines:
        words = line.split()
        if line.endswith("\n") and len(words) == 3:
            orders.append(Order(int(words[0]), float(words[1]), float(words[2])))
    return orders


def load(record: Path) -> list[Order]:
    """The record as it stands in its file."""
    return read(record.read_text().splitlines(keepends=True))


def judge(orders: Iterable[Order], cut: float) -> Verdict:
    """Sort the orders by the cut, given as the start of its second (seconds since the epoch)."""
    orders = sorted(orders, key=lambda order: order.number)
    return Verdict(
        must_be_there=tuple(o.number for o in orders if o.confirmed <= cut - MARGIN),
        cannot_be_there=tuple(o.number for o in orders if o.sent >= cut + 1 + MARGIN),
    )
