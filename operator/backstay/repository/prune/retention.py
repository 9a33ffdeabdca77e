"""Which snapshots a policy keeps: restic's rules, word for word, so that either tool may forget in the other's place.

Days, weeks and the like are those of the wall clock. Restic takes the offset from UTC that is written with each
snapshot's time, and the machine's own zone where that has the same offset at that time; a policy that is evaluated in a
zone of its own passes that zone. See "Removing snapshots according to a policy" in restic's manual.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import NamedTuple

from backstay.repository.errors import ForgetRefused
from backstay.repository.format.snapshot import Snapshot

UNLIMITED = -1
GROUP_BY = ("host", "paths")
_DURATION = re.compile(r"(?:\d{1,9}[ymdh])*")


@dataclass(frozen=True)
class Duration:
    """A span of the calendar. Months and years are as long as those before the time from which they are counted."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    def __bool__(self) -> bool:
        return any((self.years, self.months, self.days, self.hours))

    def __str__(self) -> str:
        parts = ((self.years, "y"), (self.months, "m"), (self.days, "d"), (self.hours, "h"))
        return "".join(f"{number}{unit}" for number, unit in parts if number)


def parse_duration(text: str) -> Duration:
    """A duration such as `1y5m7d2h`. Raises ValueError."""
    text = text.strip()
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration; write numbers with the units y, m, d and h, such as 1y5m7d2h")
    found = {unit: int(number) for number, unit in re.findall(r"(\d+)([ymdh])", text)}
    return Duration(found.get("y", 0), found.get("m", 0), found.get("d", 0), found.get("h", 0))


@dataclass(frozen=True)
class KeepPolicy:
    """What to keep. All rules together: a snapshot stays when any of them keeps it.

    The counts are of snapshots, each the last of its hour, day and so on; -1 keeps all of these. The durations reach
    back from the newest snapshot. `tags`: whoever has all the tags of one of these lists stays.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Duration = field(default_factory=Duration)
    within_hourly: Duration = field(default_factory=Duration)
    within_daily: Duration = field(default_factory=Duration)
    within_weekly: Duration = field(default_factory=Duration)
    within_monthly: Duration = field(default_factory=Duration)
    within_yearly: Duration = field(default_factory=Duration)
    tags: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        for name in ("last", "hourly", "daily", "weekly", "monthly", "yearly"):
            if getattr(self, name) < UNLIMITED:
                raise ValueError(f"keeping {getattr(self, name)} {name} snapshots: give a number, or -1 for all")

    @property
    def empty(self) -> bool:
        """Whether it keeps nothing whatever the snapshots are."""
        return not any(getattr(self, rule.name) for rule in fields(self))


class Kept(NamedTuple):
    """A snapshot that stays, and by which rules, in restic's words."""

    snapshot: Snapshot
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """What becomes of a group's snapshots, newest first."""

    keep: tuple[Kept, ...]
    remove: tuple[Snapshot, ...]


class Group(NamedTuple):
    """What the snapshots of a group have in common; empty where that was not asked for."""

    host: str
    paths: tuple[str, ...]
    tags: tuple[str, ...]

    def __str__(self) -> str:
        parts = []
        if self.host:
            parts.append(f"host {self.host}")
        if self.paths:
            parts.append(f"path [{' '.join(self.paths)}]")
        if self.tags:
            parts.append(f"tags [{' '.join(self.tags)}]")
        return ", ".join(parts)


def group(snapshots: Iterable[Snapshot], by: Sequence[str] = GROUP_BY) -> dict[Group, list[Snapshot]]:
    """Snapshots in the groups to which a policy is applied, by any of `host`, `paths` and `tags`. Raises ValueError."""
    if unknown := [word for word in by if word not in ("host", "paths", "tags")]:
        raise ValueError(f"grouping snapshots by {unknown[0]!r}: only host, paths and tags can be used")
    groups: dict[Group, list[Snapshot]] = {}
    for snapshot in snapshots:
        key = Group(
            snapshot.hostname if "host" in by else "",
            tuple(sorted(snapshot.paths)) if "paths" in by else (),
            tuple(sorted(snapshot.tags)) if "tags" in by else (),
        )
        groups.setdefault(key, []).append(snapshot)
    return groups


def apply(
    policy: KeepPolicy,
    snapshots: Iterable[Snapshot],
    *,
    now: datetime | None = None,
    zone: tzinfo | None = None,
    local: tzinfo = UTC,
    allow_remove_all: bool = False,
) -> Decision:
    """What a policy keeps of one group's snapshots.

    `now`: snapshots from the future are not the newest from which durations count. `zone`: whose days and weeks count;
    None: those of the zone in which each snapshot's time is written, and `local` where that is the same.
    Raises ForgetRefused when nothing would be kept, which only an empty policy with `allow_remove_all` may ask for.
    """
    ordered = sorted(snapshots, key=lambda snapshot: (snapshot.time, snapshot.id), reverse=True)
    if policy.empty:
        if not allow_remove_all:
            raise ForgetRefused("applying a policy: it has no rules and would remove all snapshots; say what to keep")
        return Decision((), tuple(ordered))
    if not ordered:
        return Decision((), ())
    times = [_wall(snapshot, zone, local) for snapshot in ordered]
    newest = next((time for time in times if now is None or time < now), None)
    rules = _rules(policy, newest)
    keep: list[Kept] = []
    remove: list[Snapshot] = []
    for number, (snapshot, time) in enumerate(zip(ordered, times, strict=True)):
        reasons = [f"has tags [{', '.join(tags)}]" for tags in policy.tags if _has_tags(snapshot, tags)]
        oldest = number == len(ordered) - 1
        for rule in rules:
            reason = rule.reason(time, number, oldest)
            if reason:
                reasons.append(reason)
        if reasons:
            keep.append(Kept(snapshot, tuple(reasons)))
        else:
            remove.append(snapshot)
    if not keep:
        raise ForgetRefused(
            f"applying a policy: it would remove all {len(ordered)} snapshots of a group; keep at least one of them"
        )
    return Decision(tuple(keep), tuple(remove))


class _Rule:
    """One rule while it goes over the snapshots from the newest to the oldest."""

    def __init__(
        self,
        word: str,
        bucket: Callable[[datetime, int], object] | None,
        *,
        count: int = UNLIMITED,
        after: datetime | None = None,
        suffix: str = "",
    ) -> None:
        self._word = word
        self._bucket = bucket
        self._count = count
        self._after = after
        self._suffix = suffix
        self._last: object = None

    def reason(self, time: datetime, number: int, oldest: bool) -> str:
        """Why the rule keeps the snapshot; empty when it does not."""
        if not self._count or (self._after is not None and time <= self._after):
            return ""
        if self._bucket is None:
            return self._word + self._suffix
        bucket = self._bucket(time, number)
        seen = bucket == self._last
        if seen and not oldest:
            return ""
        # The oldest of all is kept while a count is left: with it, the history reaches back as far as it can.
        self._last = bucket
        if self._count > 0:
            self._count -= 1
        return f"{'oldest ' if seen else ''}{self._word}{self._suffix}"


_BUCKETS: dict[str, Callable[[datetime, int], object]] = {
    "last": lambda time, number: number,
    "hourly": lambda time, number: (time.year, time.month, time.day, time.hour),
    "daily": lambda time, number: (time.year, time.month, time.day),
    "weekly": lambda time, number: time.isocalendar()[:2],
    "monthly": lambda time, number: (time.year, time.month),
    "yearly": lambda time, number: time.year,
}


def _rules(policy: KeepPolicy, newest: datetime | None) -> list[_Rule]:
    """The rules in the order in which restic names their reasons."""
    rules = []
    if policy.within:
        rules.append(_Rule("within ", None, after=_before(newest, policy.within), suffix=str(policy.within)))
    for word, bucket in _BUCKETS.items():
        rules.append(_Rule(f"{word} snapshot", bucket, count=getattr(policy, word)))
    for word, bucket in _BUCKETS.items():
        within = getattr(policy, f"within_{word}", None)
        if within:
            rules.append(_Rule(f"{word} within", bucket, after=_before(newest, within), suffix=f" {within}"))
    return rules


def _has_tags(snapshot: Snapshot, tags: Iterable[str]) -> bool:
    """Whether it has them all; an empty one stands for having none."""
    for tag in tags:
        if not tag and not snapshot.tags:
            return True
        if tag not in snapshot.tags:
            return False
    return True


# --- the calendar ----------------------------------------------------------------------------------------------------


def _wall(snapshot: Snapshot, zone: tzinfo | None, local: tzinfo) -> datetime:
    if zone is not None:
        return snapshot.time.astimezone(zone)
    if not snapshot.utc_offset:  # written as Z, which is UTC wherever it is read
        return snapshot.time.astimezone(UTC)
    time = snapshot.time.astimezone(local)
    offset = timedelta(seconds=snapshot.utc_offset)
    return time if time.utcoffset() == offset else snapshot.time.astimezone(timezone(offset))


def _before(newest: datetime | None, duration: Duration) -> datetime | None:
    """The time so long before `newest`, None when it is before all times.

    As Go's AddDate counts: a day that its month does not have, such as the 31st of February, runs over into the next.
    """
    if newest is None:
        return None
    months = newest.year * 12 + newest.month - 1 - duration.years * 12 - duration.months
    year, month = divmod(months, 12)
    try:
        naive = datetime(year, month + 1, 1, newest.hour, newest.minute, newest.second, newest.microsecond)
        naive += timedelta(days=newest.day - 1 - duration.days)
        zone = newest.tzinfo or UTC
        return (_instant(naive, zone) - timedelta(hours=duration.hours)).astimezone(zone)
    except (ValueError, OverflowError):
        return None


def _instant(naive: datetime, zone: tzinfo) -> datetime:
    """When the wall clock shows `naive`, in UTC; as Go decides it where clocks are changed."""
    as_utc = naive.replace(tzinfo=UTC)
    offset = as_utc.astimezone(zone).utcoffset() or timedelta()
    there = (as_utc - offset).astimezone(zone).utcoffset() or timedelta()
    return as_utc - there
