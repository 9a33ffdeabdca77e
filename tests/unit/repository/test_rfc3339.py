"""Times keep their nanoseconds, whatever the offset they were written with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.repository.format import rfc3339


@given(st.integers(min_value=-62167219200 * 10**9, max_value=253402300799 * 10**9 + 999_999_999))
def test_a_time_comes_back_as_it_was(ns: int) -> None:
    assert rfc3339.to_ns(rfc3339.from_ns(ns)) == ns


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00.000000001+01:00", 1),
        ("1969-12-31T23:30:00.5-00:30", 500_000_000),
        ("2015-01-02T18:10:50.895208559+01:00", 1_420_218_650_895_208_559),
    ],
)
def test_what_restic_writes_is_read(text: str, ns: int) -> None:
    assert rfc3339.to_ns(text) == ns


def test_times_beyond_the_calendar_are_held_at_its_ends() -> None:
    assert rfc3339.from_ns(10**21) == "9999-12-31T23:59:59Z"
    assert rfc3339.from_ns(-(10**21)).startswith("0000-01-01T00:00:00")


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01T00:00:00Z", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        rfc3339.to_ns(text)


def test_a_datetime_is_written_in_utc() -> None:
    moment = datetime(2026, 11, 24, 3, 0, tzinfo=timezone(timedelta(hours=1)))

    assert rfc3339.from_datetime(moment) == "2026-11-24T02:00:00Z"
    assert rfc3339.to_datetime("2026-11-24T02:00:00Z") == moment.astimezone(UTC)
