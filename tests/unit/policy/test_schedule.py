"""Cron fields and time zones, above all where clocks are put forward and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backstay.api.policy import Schedule
from backstay.policy.schedule import MACROS, InvalidScheduleError, Slots


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def berlin(cron: str) -> Slots:
    return Slots.of(Schedule(cron, "Europe/Berlin"))


@pytest.mark.parametrize(
    ("cron", "after", "slot"),
    [
        # 02:30 does not exist on 29 March 2026: the run comes right after the clocks were put forward, at 03:00 CEST.
        ("30 2 * * *", "2026-03-28 12:00", "2026-03-29 01:00"),
        ("30 2 * * *", "2026-03-29 01:00", "2026-03-30 00:30"),
        # 02:30 comes twice on 25 October 2026: only the first one, in CEST, counts.
        ("30 2 * * *", "2026-10-24 12:00", "2026-10-25 00:30"),
        ("30 2 * * *", "2026-10-25 00:30", "2026-10-26 01:30"),
        # Every hour is every hour, in the repeated one as well.
        ("0 * * * *", "2026-10-25 00:00", "2026-10-25 01:00"),
        ("0 2 * * *", "2026-07-01 12:00", "2026-07-02 00:00"),
        ("0 2 * * *", "2026-12-01 12:00", "2026-12-02 01:00"),
    ],
)
def test_local_times_follow_the_clocks(cron: str, after: str, slot: str) -> None:
    assert berlin(cron).after(utc(after)) == utc(slot)


@pytest.mark.parametrize(
    "cron", ["30 2 * * *", "0 2 * * *", "0 3 * * *", "*/7 * * * *", "0 */5 * * *", "15 1,2,3 * * 0"]
)
@pytest.mark.parametrize("start", ["2026-03-28 20:00", "2026-10-24 20:00"])
def test_looking_back_finds_the_slots_that_looking_forward_gave(cron: str, start: str) -> None:
    slots = berlin(cron)
    slot = slots.after(utc(start))
    for _ in range(40):
        following = slots.after(slot)
        assert slots.newest(slot) == slot
        assert slots.newest(following - timedelta(seconds=1)) == slot
        slot = following


def test_a_slot_is_newest_from_its_very_first_moment() -> None:
    slots = Slots.of(Schedule("0 2 * * *"))

    assert slots.newest(utc("2026-11-24 02:00:00")) == utc("2026-11-24 02:00")
    assert slots.newest(utc("2026-11-24 01:59:59.999")) == utc("2026-11-23 02:00")


@pytest.mark.parametrize("macro", MACROS)
def test_macros_are_what_cron_says_they_are(macro: str) -> None:
    assert Slots.of(Schedule(macro)).cron == MACROS[macro]
    assert Slots.of(Schedule(macro.upper())).cron == MACROS[macro]


@pytest.mark.parametrize(
    ("cron", "zone", "words"),
    [
        ("0 25 * * *", "UTC", "hour '25' is not possible; use 0-23"),
        ("61 * * * *", "UTC", "minute '61' is not possible"),
        ("0 0 * * MOON", "UTC", "day of week 'MOON' is not possible; use 0-7 or SUN-SAT"),
        ("0 0 * * * *", "UTC", "has 6 fields; it must have five"),
        ("daily", "UTC", "has 1 fields; it must have five"),
        ("@reboot", "UTC", "there is no such macro; use one of @hourly"),
        ("0 0 30 2 *", "UTC", "day 30 never comes in month 2"),
        ("0 0 * * *", "Europe/Atlantis", "timeZone 'Europe/Atlantis' is not a known time zone"),
        ("0 0 * * *", "../../etc/passwd", "is not a known time zone"),
        ("0 0 * * *", "Europe", "is not a known time zone"),
        ("0 0 * * *", "", "is not a known time zone"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_the_field_that_is_wrong(cron: str, zone: str, words: str) -> None:
    with pytest.raises(InvalidScheduleError) as caught:
        Slots.of(Schedule(cron, zone))

    assert words in str(caught.value)
    assert "spec.schedule." in str(caught.value)
