"""Which movers fill which claims, and what their state means for each volume."""

from __future__ import annotations

from typing import Any

import pytest

from backstay.api.restore import RestoredVolume
from backstay.api.restore_point import VolumeUser
from backstay.restore import fill
from backstay.restore.contents import Identity
from backstay.restore.fill import Filling
from backstay.restore.plan import Action, Plan, Step
from backstay.restore.waves import Wave
from backstay.volumes.mover_state import MoverResult, MoverState, Progress, VolumeResult
from tests.unit.restore.objects import volume


def plan(**actions: Action) -> Plan:
    return Plan(tuple(Step(Identity("", "PersistentVolumeClaim", n), Wave.CLAIMS, a) for n, a in actions.items()))


@pytest.mark.parametrize(
    ("captured", "action", "phase"),
    [
        (volume("data"), Action.MADE, fill.PENDING),
        (volume("data", tree=""), Action.MADE, fill.EMPTY),
        (volume("data"), Action.KEEP, fill.KEPT),
        (volume("data"), Action.REFUSE, fill.FAILED),
    ],
)
def test_only_claims_that_the_restore_made_are_filled(captured: Any, action: Action, phase: str) -> None:
    (found,) = fill.first_look([captured], plan(data=action), {"data": "fast"})
    assert (found.phase, found.storage_class) == (phase, "fast")


def test_claims_of_one_pod_have_one_mover_and_the_same_name_on_every_look() -> None:
    captured = [volume("a", pod="db-0"), volume("b", pod="db-0"), volume("c", pod="db-1"), volume("d"), volume("e")]
    volumes = [RestoredVolume(v.claim, fill.PENDING) for v in captured]

    movers = fill.fillings("uid", captured, volumes)

    assert [sorted(m.claims) for m in movers] == [["a", "b"], ["c"], ["d"], ["e"]]
    assert len({m.job for m in movers}) == 4
    assert movers == fill.fillings("uid", captured, volumes)
    assert movers[0].job != fill.fillings("other", captured, volumes)[0].job


def test_filled_and_kept_claims_need_no_mover() -> None:
    captured = [volume("a", pod="db-0"), volume("b", pod="db-0")]
    volumes = [RestoredVolume("a", fill.KEPT), RestoredVolume("b", fill.FILLING)]
    (mover,) = fill.fillings("uid", captured, volumes)
    assert mover.claims == {"b"}
    volumes = [RestoredVolume("a", fill.KEPT), RestoredVolume("b", fill.FILLED)]
    assert fill.fillings("uid", captured, volumes) == ()
    assert fill.is_filled(volumes)


def test_the_order_names_the_tree_of_each_mount() -> None:
    order = fill.build_order(Filling("j", (volume("a"), volume("b"))), {"bucket": "x"})
    assert order["action"] == "restore"
    assert [(v["claim"], v["path"]) for v in order["volumes"]] == [("a", "/volumes/0"), ("b", "/volumes/1")]


@pytest.mark.parametrize(
    ("user", "security", "run_as", "warned"),
    [
        (VolumeUser(run_as={"runAsUser": 1000, "fsGroup": 1}), "restricted", {"runAsUser": 1000, "fsGroup": 1}, False),
        (VolumeUser(run_as={"runAsUser": 0}), "baseline", {"runAsUser": 0}, False),
        (None, "", {"runAsUser": 0, "runAsGroup": 0}, False),
        (None, "restricted", {"runAsUser": 65532, "runAsGroup": 65532}, True),
        (
            VolumeUser(run_as={"runAsUser": 0, "runAsGroup": 7}),
            "restricted",
            {"runAsUser": 65532, "runAsGroup": 7},
            True,
        ),
    ],
)
def test_a_mover_runs_as_the_pod_did_as_far_as_the_namespace_allows(
    user: VolumeUser | None, security: str, run_as: dict[str, int], warned: bool
) -> None:
    identity = fill.run_as(Filling("j", (volume("a", user=user),)), security)
    assert (identity.run_as, bool(identity.warning)) == (run_as, warned)


def after(state: MoverState) -> RestoredVolume:
    captured = volume("data")
    (found,) = fill.after_look([RestoredVolume("data", fill.PENDING)], Filling("j", (captured,)), state)
    return found


def test_progress_is_shown() -> None:
    found = after(MoverState("running", {"data": Progress("data", 3, 100, 200)}))
    assert (found.phase, found.files, found.bytes, found.total_bytes) == (fill.FILLING, 3, 100, 200)


def test_a_waiting_mover_tells_why() -> None:
    found = after(MoverState("pending", reason="Unschedulable", message="no node"))
    assert (found.phase, found.message) == (fill.PENDING, "no node")


def test_a_result_fills_the_volume_with_its_warnings() -> None:
    result = VolumeResult("data", files=3, bytes=9, warning_count=1, warnings=("a: no owner",))
    found = after(MoverState("succeeded", result=MoverResult(True, (result,))))
    assert (found.phase, found.files, found.bytes, found.warning_count) == (fill.FILLED, 3, 9, 1)


def test_a_result_that_does_not_name_the_claim_is_a_failure() -> None:
    assert after(MoverState("succeeded", result=MoverResult(True))).phase == fill.FAILED


def test_a_full_disk_says_that_the_claim_is_too_small() -> None:
    found = after(MoverState("failed", reason="NoSpace", message="no space left on device"))
    assert found.phase == fill.FAILED
    assert found.message.startswith("The volume is too small: the claim has 1Gi, the data are 2.0 KiB")


def test_a_failure_names_what_was_left_and_what_to_do() -> None:
    told = fill.failure(
        [RestoredVolume("a", fill.FAILED, message="X: y."), RestoredVolume("b", fill.FILLED)],
        [Identity("", "PersistentVolumeClaim", "a")],
    )
    assert told.startswith("1 of 2 volumes could not be filled, so no workload was started. a: X: y.")
    assert "are left for you to look at: a" in told
    assert fill.failure([RestoredVolume("b", fill.FILLED)], []) == ""


def test_progress_in_words() -> None:
    volumes = [
        RestoredVolume("a", fill.FILLED, bytes=1024, total_bytes=1024),
        RestoredVolume("b", fill.FILLING, bytes=1 << 20, total_bytes=3 << 20),
        RestoredVolume("c", fill.KEPT),
    ]
    assert fill.summary(volumes) == "1 of 2 volumes, 1.0 MiB of 3.0 MiB"
