"""What prune does with each pack: keep it, drop it, or store its used blobs again in a better one.

A pack of which nothing is used is dropped. Packs that are partly used may stay while all of them together waste no more
than `max_unused`; beyond that, those that waste the largest part of themselves are repacked first. Packs of trees are
small and read by everything, so any waste in them is repacked, as are packs that hold both kinds of blobs. Small packs
are put together once there are enough of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from backstay.repository.format.blob import BlobType

_MIN_TARGET = 4 << 20  # bytes
_SMALL_PACKS = 10  # of which there must be as many before they are put together
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,3})?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes from `10`, `5k`, `1G` or `500 MiB`. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write bytes, with the suffix k, M, G or T for multiples of 1024")
    number, unit = match.groups()
    return int(float(number) * (1 << _UNITS[unit.lower()])) if "." in number else int(number) << _UNITS[unit.lower()]


def allowed_unused(text: str, used: int) -> float:
    """Bytes that may be wasted beside `used` ones: `unlimited`, a share of all (`5%`), or a size. Raises ValueError."""
    text = text.strip()
    if text == "unlimited":
        return math.inf
    if not text.endswith("%"):
        return parse_size(text)
    try:
        share = float(text[:-1])
    except ValueError:
        share = math.nan
    if not 0 <= share < 100:
        raise ValueError(f"{text!r} is no share of a repository that may be unused; write 0% to less than 100%")
    return share / (100 - share) * used


@dataclass(frozen=True)
class PruneOptions:
    """What prune may do.

    `max_unused`: what may stay wasted, as `allowed_unused` reads it. `max_repack_size`: bytes of packs that are
    repacked in one run at most. `delete_delay`: how long a pack stays in the bucket after the last index stopped to
    name it, so that those who read meanwhile find it. `small_pack_size`: bytes below which a pack is small; None: by
    what is usual in the repository. `repack_small` False leaves small packs alone. `repack_uncompressed` compresses
    what is not. `wait`: seconds to wait for locks. `holder`: in whose name they are taken.
    """

    max_unused: str = "5%"
    max_repack_size: int | None = None
    delete_delay: timedelta = timedelta(hours=24)
    dry_run: bool = False
    repack_small: bool = True
    small_pack_size: int | None = None
    repack_uncompressed: bool = False
    wait: float = 0.0
    holder: str = ""

    def __post_init__(self) -> None:
        allowed_unused(self.max_unused, 0)
        if self.delete_delay < timedelta(0):
            raise ValueError("deleting packs with a delay: it cannot be negative; give 0 to delete at once")


@dataclass(frozen=True, slots=True)
class PackState:
    """A pack that exists and that an index names. Bytes are those of its blobs as stored.

    `kind`: what its blobs are, None when they are of both kinds. `uncompressed`: data that is not compressed.
    `plain_trees`: trees that are not compressed, which only format 1 allowed.
    """

    id: bytes
    used_bytes: int
    unused_bytes: int
    used_blobs: int
    unused_blobs: int
    kind: BlobType | None = BlobType.DATA
    uncompressed: bool = False
    plain_trees: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of all its blobs."""
        return self.used_bytes + self.unused_bytes


@dataclass(frozen=True)
class Plan:
    """What becomes of the packs: those in neither set are kept. `unused_bytes`: what stays wasted."""

    drop: frozenset[bytes]
    repack: frozenset[bytes]
    unused_bytes: int


def decide(packs: Iterable[PackState], options: PruneOptions) -> Plan:
    """Which packs to drop and which to repack."""
    packs = list(packs)
    drop = frozenset(pack.id for pack in packs if not pack.used_blobs)
    needed = [pack for pack in packs if pack.used_blobs]
    target = options.small_pack_size or _usual_size(packs)
    must = [pack for pack in needed if _must(pack, options)]
    forced = {pack.id for pack in must}
    wasteful = [pack for pack in needed if pack.unused_blobs and pack.id not in forced]
    small = [p for p in needed if p.bytes < target and not p.unused_blobs and p.id not in forced]
    if not options.repack_small or len(small) < _SMALL_PACKS:
        small = []
    wasteful.sort(key=lambda pack: pack.unused_bytes / pack.bytes if pack.bytes else 0.0, reverse=True)
    small_wasteful = [pack for pack in wasteful if pack.bytes < target]
    unused = sum(pack.unused_bytes for pack in needed)
    tolerated = allowed_unused(options.max_unused, sum(pack.used_bytes for pack in needed))
    limit = math.inf if options.max_repack_size is None else options.max_repack_size
    repack: set[bytes] = set()
    moved = 0
    for pack in (*must, *small, *small_wasteful, *wasteful):
        keeps_because_tolerated = pack.id not in forced and pack.bytes >= target and unused <= tolerated
        if pack.id in repack or keeps_because_tolerated or moved + pack.bytes > limit:
            continue
        repack.add(pack.id)
        moved += pack.bytes
        unused -= pack.unused_bytes
    return Plan(drop, frozenset(repack), unused)


def _must(pack: PackState, options: PruneOptions) -> bool:
    """Whether a pack is repacked however little it wastes."""
    if pack.kind is not BlobType.DATA and (pack.unused_blobs or pack.kind is None):
        return True
    return pack.plain_trees or (options.repack_uncompressed and pack.uncompressed)


def _usual_size(packs: list[PackState]) -> int:
    """Bytes below which a pack is small: less than all but the smallest have, so that few are repacked again."""
    sizes = sorted(pack.bytes for pack in packs)
    third_percentile = sizes[len(sizes) * 3 // 100] if sizes else 0
    return max(_MIN_TARGET, third_percentile) * 4 // 5
