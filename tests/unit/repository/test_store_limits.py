"""Bandwidth limits, and the body of an upload as botocore uses it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.repository.stores.rate_limit import RateLimit
from backstay.repository.stores.s3_body import UploadBody


@dataclass
class Clock:
    """A clock that only sleeping moves."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_bytes_pass_at_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(1000, clock=clock, sleep=clock.sleep)

    for _ in range(100):
        limit.wait(100)

    assert clock.now - 100.0 == pytest.approx(10.0)


def test_a_pause_is_not_made_up_for_by_a_flood() -> None:
    clock = Clock()
    limit = RateLimit(1000, clock=clock, sleep=clock.sleep)
    clock.now += 3600

    for _ in range(10):
        limit.wait(1000)

    assert clock.now - 3700.0 >= 9.7


def test_no_single_portion_takes_long() -> None:
    assert RateLimit(80_000).portion == 10_000
    assert RateLimit(1 << 30).portion == 128 << 10
    assert RateLimit(1).portion == 1024


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="lets nothing through"):
        RateLimit(0)


@given(st.binary(max_size=600_000), st.integers(1, 300_000))
def test_a_body_reads_as_what_it_was_made_of_as_often_as_it_is_rewound(data: bytes, size: int) -> None:
    body = UploadBody(memoryview(bytearray(data)), hashlib.sha256(data).digest())

    for _ in range(2):
        read = bytearray()
        while piece := body.read(size):
            read += piece
        assert read == data
        assert body.tell() == len(data)
        assert body.seek(0) == 0


def test_a_body_knows_its_length_and_position() -> None:
    body = UploadBody(b"0123456789", bytes(32))

    assert len(body) == 10
    assert body.seek(0, os.SEEK_END) == 10
    assert body.seek(-4, os.SEEK_CUR) == 6
    assert bytes(body.read()) == b"6789"
    assert body.read(5) == b""


def test_a_body_hands_out_its_bytes_without_copying_them() -> None:
    data = bytearray(b"before")

    piece = UploadBody(data, bytes(32)).read(100)
    data[:] = b"after!"

    assert bytes(piece) == b"after!"


def test_a_limited_body_waits_for_each_portion() -> None:
    clock = Clock()
    body = UploadBody(bytes(5000), bytes(32), RateLimit(8000, clock=clock, sleep=clock.sleep))

    while body.read(1 << 20):
        pass

    assert len(clock.slept) == 5
    assert clock.now - 100.0 == pytest.approx(5000 / 8000)
