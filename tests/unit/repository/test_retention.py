"""Policies as people write them, and what they may not do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from backstay.repository import ForgetRefused, Snapshot
from backstay.repository.format.snapshot import decode, encode
from backstay.repository.prune.retention import Duration, KeepPolicy, apply, group, parse_duration

MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)


def snapshot(time: datetime, name: str = "") -> Snapshot:
    return Snapshot(time=time, tree="0" * 64, paths=("/a",), id=name)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("1y5m7d2h", Duration(1, 5, 7, 2)),
        (" 2h1y ", Duration(years=1, hours=2)),
        ("", Duration()),
        ("1d3d", Duration(days=3)),
    ],
)
def test_durations_are_read_as_restic_reads_them(text: str, duration: Duration) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["1", "1w", "-1d", "d", "1d 2h", "1.5d", "9999999999y", "1d\n1h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_an_empty_policy_is_refused_unless_all_are_to_go() -> None:
    found = [snapshot(MIDNIGHT)]

    with pytest.raises(ForgetRefused, match="no rules"):
        apply(KeepPolicy(), found)
    assert apply(KeepPolicy(), found, allow_remove_all=True).remove == tuple(found)


def test_a_policy_that_would_remove_all_is_refused() -> None:
    with pytest.raises(ForgetRefused, match="all 1 snapshots"):
        apply(KeepPolicy(tags=(("a",),)), [snapshot(MIDNIGHT)], allow_remove_all=True)


def test_counts_below_minus_one_are_refused() -> None:
    with pytest.raises(ValueError, match="-2"):
        KeepPolicy(daily=-2)


def test_days_are_those_of_the_zone_that_is_asked_for() -> None:
    found = [snapshot(MIDNIGHT - timedelta(minutes=1), "before"), snapshot(MIDNIGHT + timedelta(minutes=1), "after")]

    in_utc = apply(KeepPolicy(daily=5), found)
    in_tokyo = apply(KeepPolicy(daily=1), found, zone=ZoneInfo("Asia/Tokyo"))

    assert [kept.reasons for kept in in_utc.keep] == [("daily snapshot",), ("daily snapshot",)]
    assert [kept.snapshot.id for kept in in_tokyo.keep] == ["after"]
    assert [gone.id for gone in in_tokyo.remove] == ["before"]


def test_groups_take_paths_in_any_order() -> None:
    one = Snapshot(time=MIDNIGHT, tree="0" * 64, paths=("/b", "/a"), hostname="h")
    two = Snapshot(time=MIDNIGHT, tree="0" * 64, paths=("/a", "/b"), hostname="h")
    three = Snapshot(time=MIDNIGHT, tree="0" * 64, paths=("/a", "/b"), hostname="i")

    assert list(group([one, two, three]).values()) == [[one, two], [three]]
    assert [str(key) for key in group([one, three])] == ["host h, path [/a /b]", "host i, path [/a /b]"]
    with pytest.raises(ValueError, match="colour"):
        group([one], by=("colour",))


@pytest.mark.parametrize("offset", [0, 3600, -12600, 19800])
def test_a_snapshot_keeps_the_zone_that_it_was_written_in(offset: int) -> None:
    written = Snapshot(time=MIDNIGHT, tree="0" * 64, paths=("/a",), utc_offset=offset)

    read = decode(encode(written), "")

    assert read.time == MIDNIGHT
    assert read.utc_offset == offset
