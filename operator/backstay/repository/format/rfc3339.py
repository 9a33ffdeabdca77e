"""Points in time as Go writes them in JSON: RFC 3339, up to nine digits of a second, an offset or `Z`.

Files carry times in nanoseconds, which Python's datetime cannot hold, so those stay integers: nanoseconds since 1970.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_FORM = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_0 = -62167219200  # seconds; what lies before year 0 or after 9999 has no form in RFC 3339
_YEAR_10000 = 253402300800


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    if (
        seconds < -62135596800
    ):  # year 0 of the proleptic calendar, which datetime cannot hold; it is a leap year as 2000
        return "0000" + (_EPOCH + timedelta(seconds=seconds + 63113904000)).strftime("-%m-%dT%H:%M:%S")
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment.year:04d}" + moment.strftime("-%m-%dT%H:%M:%S")


def from_ns(ns: int) -> str:
    """The time `ns` nanoseconds after 1970 in UTC, without trailing zeros, as Go's encoder writes it."""
    seconds, rest = divmod(ns, 1_000_000_000)
    seconds = min(max(seconds, _YEAR_0), _YEAR_10000 - 1)
    if not rest:
        return _second(seconds) + "Z"
    return f"{_second(seconds)}.{rest:09d}".rstrip("0") + "Z"


def to_ns(text: str) -> int:
    """Nanoseconds since 1970. Raises ValueError when `text` is no time."""
    fraction = text[20:-1]
    if text[-1:] == "Z" and text[19:20] == "." and len(fraction) <= 9 and fraction.isdecimal() and fraction.isascii():
        return _whole(text[:19] + "Z") + int(fraction.ljust(9, "0"))
    return _whole(text)


@lru_cache(maxsize=4096)  # many files of a directory come from the same second
def _whole(text: str) -> int:
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time")
    year, month, day, hour, minute, second, fraction, sign, off_h, off_m = match.groups()
    shift = 0
    if year == "0000":
        year, shift = "2000", 63113904000
    moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    delta = moment - _EPOCH
    seconds = delta.days * 86400 + delta.seconds - shift
    if sign:
        offset = int(off_h) * 3600 + int(off_m) * 60
        seconds += -offset if sign == "+" else offset
    return seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


def offset(text: str) -> int:
    """Seconds east of UTC of the zone in which a time is written. Raises ValueError when `text` is no time."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time")
    sign, hours, minutes = match.groups()[-3:]
    seconds = int(hours or 0) * 3600 + int(minutes or 0) * 60
    if seconds >= 86400:
        raise ValueError(f"{text!r} is not a time: no zone is a day away")
    return -seconds if sign == "-" else seconds


def from_datetime(moment: datetime, offset: int = 0) -> str:
    """A datetime that knows its zone, as it is written `offset` seconds (of whole minutes) east of UTC."""
    delta = moment.astimezone(UTC) - _EPOCH
    text = from_ns((delta.days * 86400 + delta.seconds + offset) * 1_000_000_000 + delta.microseconds * 1000)
    if not offset:
        return text
    hours, minutes = divmod(abs(offset) // 60, 60)
    return f"{text[:-1]}{'-' if offset < 0 else '+'}{hours:02d}:{minutes:02d}"


def to_datetime(text: str) -> datetime:
    """The time as a datetime in UTC, cut to microseconds. Raises ValueError."""
    try:
        return _EPOCH + timedelta(microseconds=to_ns(text) // 1000)
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of range") from error
