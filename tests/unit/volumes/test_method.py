"""How a claim is read, and what is said when it cannot be."""

from __future__ import annotations

import pytest

from backstay.api.meta import LabelSelector
from backstay.api.policy import VolumeRule
from backstay.volumes.claims import ClaimFacts
from backstay.volumes.method import Classes, SnapshotClass, StorageClass, decide_method

DRIVER = "csi.example.com"
STORAGE = (StorageClass("fast", DRIVER),)
BOTH = Classes((SnapshotClass("snap", DRIVER),), STORAGE)
MOUNTED = ({"metadata": {"name": "db-0"}, "spec": {"nodeName": "n1"}},)


def claim(**fields):
    return ClaimFacts(**{"name": "data", "storage_class": "fast", "driver": DRIVER, **fields})


def rules(method):
    return [VolumeRule(method=method)]


@pytest.mark.parametrize(
    ("facts", "wish", "classes", "method"),
    [
        (claim(), "Auto", BOTH, "Snapshot"),
        (claim(), "Snapshot", BOTH, "Snapshot"),
        (claim(), "Live", BOTH, "Live"),
        (claim(), "Skip", BOTH, "Skip"),
        (claim(driver=""), "Auto", BOTH, "Live"),
        (claim(driver="other.example.com"), "Auto", BOTH, "Live"),
        (claim(pods=MOUNTED), "Auto", Classes((), STORAGE), "Live"),
        (claim(access_modes=("ReadWriteOncePod",), pods=MOUNTED), "Auto", BOTH, "Snapshot"),
        (claim(access_modes=("ReadWriteOncePod",)), "Live", BOTH, "Live"),
        (claim(volume_mode="Block"), "Skip", BOTH, "Skip"),
    ],
)
def test_the_method_follows_from_the_rule_and_from_what_the_driver_can_do(facts, wish, classes, method):
    decision = decide_method(facts, rules(wish), classes)

    assert decision.method == method
    assert not decision.degraded


@pytest.mark.parametrize(
    ("facts", "wish", "classes", "words"),
    [
        (claim(phase="Lost"), "Auto", BOTH, "volume behind the claim is gone"),
        (claim(volume_mode="Block"), "Auto", BOTH, "volumeMode is Block, which is not supported yet"),
        (claim(access_modes=("ReadWriteOncePod",), pods=MOUNTED), "Live", BOTH, "pod db-0 has it"),
        (claim(access_modes=("ReadWriteOncePod",), pods=MOUNTED), "Auto", Classes(), "ReadWriteOncePod"),
        (claim(), "Snapshot", Classes((), STORAGE), "no VolumeSnapshotClass for the CSI driver csi.example.com"),
        (claim(driver=""), "Snapshot", BOTH, "does not come from a CSI driver"),
        (claim(), "Snapshot", Classes((SnapshotClass("keep", DRIVER, "Retain"),), STORAGE), "deletionPolicy Retain"),
        (claim(), "Snapshot", Classes(BOTH.snapshot, (StorageClass("fast", DRIVER, "Retain"),)), "reclaimPolicy"),
    ],
)
def test_an_impossible_claim_says_why(facts, wish, classes, words):
    decision = decide_method(facts, rules(wish), classes)

    assert decision.method == ""
    assert words in decision.reason


def test_an_unbound_claim_is_skipped_with_a_warning_since_it_has_no_data():
    decision = decide_method(claim(phase="Pending", driver=""), [], BOTH)

    assert decision.method == "Skip"
    assert decision.degraded
    assert "not bound" in decision.reason


@pytest.mark.parametrize(
    "classes",
    [
        Classes((SnapshotClass("keep", DRIVER, "Retain"),), STORAGE),
        Classes((SnapshotClass("snap", DRIVER),), (StorageClass("fast", DRIVER, "Retain"),)),
    ],
)
def test_auto_reads_live_with_a_warning_where_a_snapshot_would_leave_something_behind(classes):
    decision = decide_method(claim(), [], classes)

    assert decision.method == "Live"
    assert decision.degraded
    assert "Retain" in decision.reason or "reclaimPolicy" in decision.reason


def test_the_default_snapshot_class_is_preferred_unless_it_retains():
    keep, plain, default = (
        SnapshotClass("a", DRIVER, "Retain", default=True),
        SnapshotClass("b", DRIVER),
        SnapshotClass("c", DRIVER, default=True),
    )

    assert decide_method(claim(), [], Classes((keep, plain, default), STORAGE)).snapshot_class == "c"
    assert decide_method(claim(), [], Classes((keep, plain), STORAGE)).snapshot_class == "b"


def test_a_retaining_storage_class_is_replaced_by_its_equal_that_deletes():
    own = StorageClass("fast", DRIVER, "Retain", {"pool": "a"})
    other = StorageClass("a-other", DRIVER, "Delete", {"pool": "b"})
    equal = StorageClass("fast-temporary", DRIVER, "Delete", {"pool": "a"})

    decision = decide_method(claim(), [], Classes(BOTH.snapshot, (own, other, equal)))

    assert decision.storage_class == "fast-temporary"


def test_the_first_rule_whose_selector_matches_wins():
    cache = VolumeRule(selector=LabelSelector(match_labels={"tier": "cache"}), method="Skip")
    chain = [cache, VolumeRule(method="Live")]

    assert decide_method(claim(labels={"tier": "cache"}), chain, BOTH).method == "Skip"
    assert decide_method(claim(labels={"tier": "db"}), chain, BOTH).method == "Live"
