"""Which packs a check reads: all of them, every n-th by id, or a random share."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

_MOST_GROUPS = 256  # a pack's group is told by the first byte of its id
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True)
class Subset:
    """A share of the packs: `group` (from 1) of `groups`, `percent`, or `size` in bytes; none of them means all."""

    group: int = 0
    groups: int = 0
    percent: float = 0.0
    size: int = 0

    @classmethod
    def parse(cls, text: str) -> Subset:
        """`all`, `1/10` (a group that is the same each time), `5%` or `500M` (random). Raises ValueError."""
        text = text.strip()
        if text == "all":
            return cls()
        if match := re.fullmatch(r"([0-9]{1,3})/([0-9]{1,3})", text):
            group, groups = int(match[1]), int(match[2])
            if not 1 <= group <= groups <= _MOST_GROUPS:
                raise ValueError(f"{text!r} is no group of packs: write n/t with 1 <= n <= t <= {_MOST_GROUPS}")
            return cls(group=group, groups=groups)
        if match := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)%", text):
            percent = float(match[1])
            if not 0 < percent <= 100:
                raise ValueError(f"{text!r} is no share of the packs: write more than 0% and at most 100%")
            return cls(percent=percent)
        if match := re.fullmatch(r"([0-9]{1,18})([kmgt]?)b?", text.lower()):
            size = int(match[1]) * _UNITS[match[2]]
            if size:
                return cls(size=size)
        raise ValueError(f"{text!r} is no share of the packs: write for example all, 1/10, 5% or 500M")

    def choose(self, sizes: Mapping[bytes, int], source: random.Random) -> list[bytes]:
        """The ids of the packs to read, of those in `sizes` (bytes by id)."""
        ids = sorted(sizes)
        if self.groups:
            return [pack_id for pack_id in ids if pack_id[0] % self.groups == self.group - 1]
        percent = self.percent or 100.0
        if self.size:
            percent = min(100.0, 100.0 * self.size / max(1, sum(sizes.values())))
        if not ids or percent >= 100:
            return ids
        return sorted(source.sample(ids, max(1, int(len(ids) * percent / 100))))
