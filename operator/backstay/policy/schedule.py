"""A schedule's slots: from cron fields and a time zone to moments in UTC, right at daylight-saving changes too.

As Debian's cron does it: a time that the clocks skip runs right after the skip, and a time that comes twice runs once.
Schedules that run every hour or more often follow real time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from backstay.api.policy import Schedule

MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = ("minute", "hour", "day of month", "month", "day of week")


class InvalidScheduleError(ValueError):
    """A schedule that can never be followed; the text names the field and what is wrong."""


@dataclass(frozen=True)
class Slots:
    """The moments of one schedule."""

    cron: str
    zone: ZoneInfo

    @classmethod
    def of(cls, schedule: Schedule) -> Slots:
        """Raises InvalidScheduleError."""
        slots = cls(_expand(schedule.cron), _zone(schedule.time_zone))
        slots.after(datetime(2024, 1, 1, tzinfo=UTC))
        return slots

    def after(self, time: datetime) -> datetime:
        """The first slot later than `time`. Raises InvalidScheduleError when there is none in the next 50 years."""
        try:
            return _first(CronSim(self.cron, time.astimezone(self.zone)))
        except CronSimError as error:
            raise InvalidScheduleError(_explain(self.cron, str(error))) from error

    def newest(self, time: datetime) -> datetime:
        """The last slot at or before `time`."""
        # The fraction of a second makes the walk backwards begin with the full second itself.
        walk = CronSim(self.cron, time.astimezone(self.zone).replace(microsecond=1), reverse=True)
        slot = _first(walk)
        while slot > time:  # a skipped time of day is moved forward, past the place where the walk found it
            slot = _first(walk)
        return slot


def _expand(cron: str) -> str:
    text = cron.strip()
    if text.startswith("@"):
        if text.lower() not in MACROS:
            known = ", ".join(MACROS)
            raise InvalidScheduleError(f"spec.schedule.cron {cron!r}: there is no such macro; use one of {known}")
        return MACROS[text.lower()]
    count = len(text.split())
    if count != len(_FIELDS):
        raise InvalidScheduleError(
            f"spec.schedule.cron {cron!r} has {count} fields; it must have five: {', '.join(_FIELDS)}"
        )
    return text


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidScheduleError(
            f"spec.schedule.timeZone {name!r} is not a known time zone; use an IANA name such as Europe/Berlin or UTC"
        ) from error


def _first(walk: CronSim) -> datetime:
    try:
        return next(walk).astimezone(UTC)
    except StopIteration:
        raise InvalidScheduleError(
            "spec.schedule.cron names a day that never comes; correct day of month and month"
        ) from None


def _explain(cron: str, error: str) -> str:
    """The library says ``Bad day-of-week``; a person wants to see the text that is bad."""
    parts = dict(zip(("minute", "hour", "day-of-month", "month", "day-of-week"), cron.split(), strict=True))
    field = error.removeprefix("Bad ")
    if field not in parts:
        return f"spec.schedule.cron {cron!r}: {error}"
    if field == "day-of-month" and parts[field].isdigit() and 1 <= int(parts[field]) <= 31:
        return f"spec.schedule.cron {cron!r}: day {parts[field]} never comes in month {parts['month']}"
    ranges = {"minute": "0-59", "hour": "0-23", "day-of-month": "1-31", "month": "1-12 or JAN-DEC"}
    return (
        f"spec.schedule.cron {cron!r}: {field.replace('-', ' ')} {parts[field]!r} is not possible; "
        f"use {ranges.get(field, '0-7 or SUN-SAT')}, with *, lists (1,15), ranges (1-5) and steps (*/10)"
    )
