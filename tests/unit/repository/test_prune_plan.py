"""What becomes of each pack, decided from how much of it is used."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.repository.format.blob import BlobType
from backstay.repository.prune.plan import PackState, PruneOptions, allowed_unused, decide, parse_size

MIB = 1 << 20


def pack(name: str, used: int, unused: int, **more: object) -> PackState:
    """A pack with so many MiB of used and unused blobs, each of 1 MiB."""
    return PackState(name.encode(), used * MIB, unused * MIB, used, unused, **more)  # type: ignore[arg-type]


def decided(*packs: PackState, **options: object) -> tuple[set[str], set[str]]:
    """Names of packs that are dropped, and of those that are repacked."""
    plan = decide(packs, PruneOptions(**options))  # type: ignore[arg-type]
    return {name.decode() for name in plan.drop}, {name.decode() for name in plan.repack}


def test_a_pack_without_used_blobs_is_dropped() -> None:
    assert decided(pack("full", 16, 0), pack("empty", 0, 16)) == ({"empty"}, set())


def test_the_most_wasteful_packs_are_repacked_until_the_rest_is_tolerated() -> None:
    packs = [pack("clean", 160, 0), pack("a", 14, 2), pack("b", 4, 12), pack("c", 10, 6), pack("d", 15, 1)]

    assert decided(*packs, max_unused="5%") == (set(), {"b"})
    assert decided(*packs, max_unused="3M") == (set(), {"b", "c"})
    assert decided(*packs, max_unused="0") == (set(), {"a", "b", "c", "d"})
    assert decided(*packs, max_unused="unlimited") == (set(), set())


def test_what_stays_wasted_is_told() -> None:
    assert decide([pack("a", 14, 2), pack("b", 4, 12)], PruneOptions(max_unused="2M")).unused_bytes == 2 * MIB


def test_any_waste_among_trees_is_repacked_and_so_are_packs_of_both_kinds() -> None:
    packs = [
        pack("trees", 15, 1, kind=BlobType.TREE),
        pack("full trees", 16, 0, kind=BlobType.TREE),
        pack("mixed", 16, 0, kind=None),
        pack("data", 15, 1),
    ]

    assert decided(*packs, max_unused="unlimited") == (set(), {"trees", "mixed"})


def test_trees_are_always_compressed_and_data_when_asked() -> None:
    packs = [pack("trees", 16, 0, kind=BlobType.TREE, plain_trees=True), pack("data", 16, 0, uncompressed=True)]

    assert decided(*packs) == (set(), {"trees"})
    assert decided(*packs, repack_uncompressed=True) == (set(), {"trees", "data"})


@pytest.mark.parametrize(("count", "options", "repacked"), [(9, {}, 0), (10, {}, 10), (10, {"repack_small": False}, 0)])
def test_small_packs_are_put_together_once_there_are_ten(count: int, options: dict[str, bool], repacked: int) -> None:
    packs = [pack(f"small {number}", 1, 0) for number in range(count)] + [
        pack(f"{number}", 16, 0) for number in range(400)
    ]

    assert len(decided(*packs, **options)[1]) == repacked


def test_no_more_is_repacked_than_is_allowed() -> None:
    packs = [pack(name, 10, 6) for name in "abc"]

    assert len(decided(*packs, max_unused="0", max_repack_size=33 * MIB)[1]) == 2
    assert decided(*packs, max_unused="0", max_repack_size=0)[1] == set()


states = st.builds(
    lambda name, size, used, unused, kind: PackState(name, used * size, unused * size, used, unused, kind),
    st.binary(min_size=4, max_size=4),
    st.integers(1, MIB),
    st.integers(0, 20),
    st.integers(0, 20),
    st.sampled_from([BlobType.DATA, BlobType.TREE, None]),
)


@given(st.lists(states, max_size=40, unique_by=lambda state: state.id), st.sampled_from(["0", "5%", "unlimited"]))
def test_only_packs_without_used_blobs_are_dropped_and_the_limits_hold(packs: list[PackState], limit: str) -> None:
    plan = decide(packs, PruneOptions(max_unused=limit, max_repack_size=60 * MIB))

    assert plan.drop == {state.id for state in packs if not state.used_blobs}
    assert plan.drop.isdisjoint(plan.repack)
    assert sum(state.bytes for state in packs if state.id in plan.repack) <= 60 * MIB
    unlimited = decide(packs, PruneOptions(max_unused=limit))
    assert unlimited.unused_bytes <= allowed_unused(limit, sum(state.used_bytes for state in packs))


@pytest.mark.parametrize(
    ("text", "used", "allowed"),
    [("5%", 95, 5), ("0%", 95, 0), ("unlimited", 1, math.inf), ("1G", 1, 1 << 30), ("10", 0, 10), (" 2.5k ", 0, 2560)],
)
def test_what_may_stay_unused_is_a_share_of_all_or_a_size(text: str, used: int, allowed: float) -> None:
    assert allowed_unused(text, used) == pytest.approx(allowed)


@pytest.mark.parametrize("text", ["", "x", "100%", "-1%", "nan%", "-5", "5X", "1 2"])
def test_what_is_neither_is_refused_before_anything_is_done(text: str) -> None:
    with pytest.raises(ValueError, match=r"no size|no share"):
        PruneOptions(max_unused=text)


def test_a_negative_delay_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        PruneOptions(delete_delay=timedelta(seconds=-1))


def test_sizes_have_suffixes() -> None:
    assert [parse_size(text) for text in ("1", "1k", "1M", "1GiB", "1tb")] == [1, 1 << 10, 1 << 20, 1 << 30, 1 << 40]
