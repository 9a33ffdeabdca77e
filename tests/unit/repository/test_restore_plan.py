"""Which bytes a restore fetches, who writes them where, and what happens to what is there already."""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace
from typing import Any, cast

import pytest

from backstay.repository import Corrupted
from backstay.repository.format.index import Location
from backstay.repository.restore.existing import Action, Overwrite, decide
from backstay.repository.restore.metadata import Attributes
from backstay.repository.restore.plan import GAP, LARGEST, PORTION, RANGE, File, Wanted, ranges

PACK, OTHER = b"p" * 32, b"q" * 32
KIB, MIB = 1 << 10, 1 << 20


def attributes() -> Attributes:
    return Attributes(0o644, 0, 0, 0, 0, [])


def wanted(number: int, offset: int, length: int, pack: bytes = PACK) -> Wanted:
    """A blob that makes up one file."""
    blob = Wanted(number.to_bytes(32, "big"), Location(pack, offset, length, 0))
    place(blob, File(b"", b"%d" % number, attributes()))
    return blob


def place(blob: Wanted, file: File) -> None:
    blob.places.append((file, file.size))
    file.pieces += 1
    file.size += blob.size


def test_blobs_that_lie_close_together_are_fetched_together() -> None:
    blobs = [wanted(1, 2000, 1000), wanted(0, 0, 1000), wanted(2, 3000 + GAP, 1000), wanted(3, 0, 1000, OTHER)]

    found = [(range_.pack, range_.offset, range_.length) for range_ in ranges(blobs)]

    assert found == [(PACK, 0, 4000 + GAP), (OTHER, 0, 1000)]


def test_blobs_that_lie_far_apart_are_not() -> None:
    blobs = [wanted(0, 0, 1000), wanted(1, 1001 + GAP, 1000)]

    assert [(range_.offset, range_.length) for range_ in ranges(blobs)] == [(0, 1000), (1001 + GAP, 1000)]


def test_no_range_is_longer_than_the_room_for_it() -> None:
    blobs = [wanted(number, number * MIB, MIB) for number in range(40)]

    lengths = [range_.length for range_ in ranges(blobs)]

    assert sum(lengths) == 40 * MIB
    assert max(lengths) <= RANGE


def test_each_blob_is_handed_out_once_and_in_portions() -> None:
    blobs = [wanted(number, number * MIB, MIB) for number in range(12)]

    (found,) = ranges(blobs)

    assert [len(portion.order.blobs) * MIB for portion in found.portions] == [PORTION] * 3
    assert [blob.offset for portion in found.portions for blob in portion.order.blobs] == [n * MIB for n in range(12)]
    assert sum(portion.finishes for portion in found.portions) == 12


def test_a_file_whose_blobs_go_to_several_hands_is_finished_by_none_of_them() -> None:
    file = File(b"", b"large", attributes())
    blobs = [Wanted(number.to_bytes(32, "big"), Location(PACK, number * MIB, MIB, 0)) for number in range(6)]
    for blob in blobs:
        place(blob, file)

    (found,) = ranges(blobs)

    parts = [part for portion in found.portions for part in portion.order.parts]
    assert [part.attributes for part in parts] == [None, None]
    assert [offset for part in parts for _, offset in part.pieces] == [n * (MIB - 32) for n in range(6)]


def test_a_blob_with_several_places_is_opened_once() -> None:
    files = [File(b"d", b"%d" % number, attributes()) for number in range(3)]
    blob = Wanted(bytes(32), Location(PACK, 0, 1000, 0))
    for file in files:
        place(blob, file)

    ((portion,),) = (range_.portions for range_ in ranges([blob]))

    assert portion.order.shared == [0]
    assert portion.order.directories == [b"d"]
    assert [part.pieces for part in portion.order.parts] == [[(0, 0)]] * 3
    assert portion.size == 3 * 968


@pytest.mark.parametrize(
    ("length", "plain_length"), [(31, 0), (0, 0), (1 << 31, 0), (1000, LARGEST + 1), (1000, (1 << 32) - 1)]
)
def test_sizes_that_no_blob_has_are_refused(length: int, plain_length: int) -> None:
    with pytest.raises(Corrupted, match="the index that says so is broken"):
        Wanted(bytes(32), Location(PACK, 0, length, plain_length))


def status(mode: int = stat.S_IFREG, size: int = 10, mtime: int = 100, links: int = 1) -> os.stat_result:
    return cast(Any, SimpleNamespace(st_mode=mode, st_size=size, st_mtime_ns=mtime, st_nlink=links))


@pytest.mark.parametrize(
    ("overwrite", "there", "action"),
    [
        ("always", None, Action.MAKE),
        ("never", None, Action.MAKE),
        ("always", status(), Action.COMPARE),
        ("always", status(size=3), Action.COMPARE),
        ("always", status(links=2), Action.MAKE),
        ("always", status(stat.S_IFLNK), Action.MAKE),
        ("always", status(stat.S_IFIFO), Action.MAKE),
        ("if-changed", status(), Action.KEEP),
        ("if-changed", status(links=2), Action.KEEP),
        ("if-changed", status(size=11), Action.COMPARE),
        ("if-changed", status(mtime=99), Action.COMPARE),
        ("if-changed", status(stat.S_IFLNK), Action.MAKE),
        ("if-newer", status(mtime=99), Action.COMPARE),
        ("if-newer", status(mtime=100), Action.SKIP),
        ("if-newer", status(stat.S_IFLNK, mtime=101), Action.SKIP),
        ("never", status(), Action.SKIP),
        ("never", status(stat.S_IFDIR), Action.SKIP),
    ],
)
def test_what_happens_to_a_file_of_10_bytes_and_time_100(
    overwrite: Overwrite, there: os.stat_result | None, action: Action
) -> None:
    assert decide(overwrite, "file", 10, 100, there, True) is action


def test_what_may_not_be_written_into_is_replaced() -> None:
    assert decide("always", "file", 10, 100, status(), False) is Action.MAKE
