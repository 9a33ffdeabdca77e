"""The stages of a capture: what is decided in each, from status and objects alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from backstay.api.backup import (
    Backup,
    BackupSpec,
    BackupStatus,
    Capture,
    Effective,
    ResourcesStatus,
    RestorePointReference,
    VolumeStatus,
)
from backstay.api.meta import Condition, Meta, Reference, find_condition
from backstay.api.policy import BackupPolicy, BackupPolicySpec
from backstay.api.storage import S3, BackupStorage, BackupStorageSpec, BackupStorageStatus, PasswordReference
from backstay.capture import outcome
from backstay.capture.commit import adopted
from backstay.capture.cut import UNQUIESCED, cut_state, volume_warnings
from backstay.capture.moving import Act, decide, with_state
from backstay.capture.stage import Stage, stage_of
from backstay.capture.start import examine, plan_volume
from backstay.capture.temporaries import Temporaries, next_removals
from backstay.kube.enrolment import Enrolment
from backstay.repository import Snapshot
from backstay.volumes.claims import ClaimFacts
from backstay.volumes.method import Classes
from backstay.volumes.mover_state import MoverResult, MoverState, Progress, VolumeResult

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
CREATED = "2026-11-24T01:59:00Z"
MINUTE = timedelta(minutes=1)


def backup(**status):
    return Backup(Meta("b", "shop", "u1", 1), BackupSpec(Capture("shop")), BackupStatus(**status))


def volume(phase="Pending", **fields):
    return VolumeStatus(**{"claim": "data", "method": "Snapshot", "phase": phase, **fields})


def condition(type_, status="True", reason="x"):
    return Condition(type_, status, reason, last_transition_time=NOW)


EFFECTIVE = Effective("main")


# --- where a Backup is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "stage"),
    [
        ({}, Stage.START),
        ({"conditions": (condition("Succeeded", "Unknown"), condition("Waiting"))}, Stage.START),
        ({"effective": EFFECTIVE, "volumes": (volume(),)}, Stage.CUT),
        ({"effective": EFFECTIVE}, Stage.CUT),
        ({"effective": EFFECTIVE, "cut_time": NOW, "volumes": (volume("Moving"), volume("Done"))}, Stage.MOVE),
        ({"effective": EFFECTIVE, "cut_time": NOW, "volumes": (volume("Skipped"), volume("Done"))}, Stage.COMMIT),
        ({"effective": EFFECTIVE, "cut_time": NOW}, Stage.COMMIT),
        ({"effective": EFFECTIVE, "conditions": (condition("Finishing"),)}, Stage.FINISH),
        ({"conditions": (condition("Succeeded", "True"),)}, Stage.OVER),
        ({"conditions": (condition("Succeeded", "False"),)}, Stage.OVER),
    ],
)
def test_the_stage_follows_from_the_status(status, stage):
    assert stage_of(backup(**status)) is stage


def test_a_backup_that_the_catalogue_found_is_left_alone():
    found = Backup(Meta("b"), BackupSpec(restore_point=RestorePointReference("main", "1f3c")))

    assert stage_of(found) is Stage.OVER


# --- start -----------------------------------------------------------------------------------------------------------


def policy(storage="main"):
    return BackupPolicy(Meta("shop", "shop"), BackupPolicySpec(Reference(storage)))


def storage(ready="True", mode="ReadWrite", message=""):
    status = BackupStorageStatus(conditions=(Condition("Ready", ready, "x", message),))
    return BackupStorage(Meta("main"), BackupStorageSpec(S3("b"), PasswordReference("pw"), mode), status)


NOT_ENROLLED = Enrolment(False, "NotEnrolled", "not open")


@pytest.mark.parametrize(
    ("enrolment", "found_policy", "found_storage", "age", "kind", "reason"),
    [
        (Enrolment(True), policy(), storage(), MINUTE, "Go", ""),
        (NOT_ENROLLED, policy(), storage(), MINUTE, "Refuse", "NotEnrolled"),
        (Enrolment(True), None, None, MINUTE, "Refuse", "PolicyNotFound"),
        (Enrolment(True), None, None, MINUTE / 60, "Wait", "PolicyNotFound"),
        (Enrolment(True), policy("man"), None, MINUTE, "Refuse", "StorageNotFound"),
        (Enrolment(True), policy(), storage(mode="ReadOnly"), MINUTE, "Refuse", "StorageReadOnly"),
        (Enrolment(True), policy(), storage("False", message="no bucket"), MINUTE, "Wait", "StorageNotReady"),
        (Enrolment(True), policy(), storage("Unknown"), MINUTE, "Wait", "StorageNotReady"),
    ],
)
def test_an_order_is_refused_or_waits_with_the_reason(enrolment, found_policy, found_storage, age, kind, reason):
    verdict = examine("shop", "shop", enrolment, found_policy, found_storage, age)

    assert (verdict.kind, verdict.reason) == (kind, reason)
    assert bool(verdict.message) == (kind != "Go")


def test_a_storage_that_is_not_ready_says_why():
    verdict = examine("shop", "shop", Enrolment(True), policy(), storage("False", message="no bucket"), MINUTE)

    assert "no bucket" in verdict.message


@pytest.mark.parametrize(
    ("facts", "method", "phase", "warned"),
    [
        (ClaimFacts("data"), "Live", "Pending", False),
        (ClaimFacts("data", phase="Pending"), "Skip", "Skipped", True),
        (ClaimFacts("data", volume_mode="Block"), "", "Failed", False),
    ],
)
def test_a_claim_is_planned_by_its_facts(facts, method, phase, warned):
    planned = plan_volume(facts, EFFECTIVE, Classes())

    assert (planned.method, planned.phase, bool(planned.warnings)) == (method, phase, warned)


# --- cut -------------------------------------------------------------------------------------------------------------


def snapshot(created=CREATED, **status):
    return {"metadata": {"name": "s", "uid": "s", "creationTimestamp": created}, "spec": {}, "status": status}


def test_the_cut_is_the_latest_creation_time_of_all_snapshots():
    first, second = snapshot(creationTime="2026-11-24T01:59:10Z"), snapshot(creationTime="2026-11-24T01:59:20Z")

    assert cut_state({"a": first, "b": second}, NOW).time == datetime(2026, 11, 24, 1, 59, 20, tzinfo=UTC)
    assert cut_state({}, NOW).time == NOW


def test_a_cut_waits_for_every_snapshot_and_tells_the_drivers_words():
    state = cut_state({"a": snapshot(creationTime=CREATED), "b": snapshot(error={"message": "no space"})}, NOW)

    assert state.time is None
    assert not state.failure
    assert "claim b (no space)" in state.message


def test_a_cut_fails_after_its_deadline_with_the_drivers_words():
    failed = cut_state({"b": snapshot(error={"message": "no space"})}, NOW + 10 * MINUTE)
    silent = cut_state({"b": snapshot()}, NOW + 10 * MINUTE)

    assert "claim b was not cut within 10 minutes: no space" in failed.failure
    assert "is it running?" in silent.failure


def test_a_live_volume_under_a_writer_warns_and_one_that_nobody_writes_does_not():
    pod = {
        "metadata": {"name": "db-0"},
        "spec": {
            "nodeName": "n",
            "securityContext": {"runAsUser": 1},
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "v"}]}],
        },
    }
    live = volume(method="Live")

    assert volume_warnings(live, ClaimFacts("data", pods=(pod,)), "") == [UNQUIESCED]
    assert volume_warnings(live, ClaimFacts("data"), "") == []
    assert volume_warnings(volume(), ClaimFacts("data", pods=(pod,)), "") == []
    assert "root is not allowed" in volume_warnings(volume(), ClaimFacts("data"), "restricted")[0]


# --- move ------------------------------------------------------------------------------------------------------------

LEAVING = {"metadata": {"name": "x", "uid": "x", "deletionTimestamp": CREATED}}
THERE = {"metadata": {"name": "x", "uid": "x"}}
READY = snapshot(readyToUse=True)


@pytest.mark.parametrize(
    ("method", "job", "claim", "cut", "room", "act"),
    [
        ("Snapshot", None, None, READY, True, Act.CREATE_CLAIM),
        ("Snapshot", None, THERE, READY, True, Act.CREATE_JOB),
        ("Snapshot", None, None, READY, False, Act.WAIT),
        ("Snapshot", None, LEAVING, READY, True, Act.WAIT),
        ("Snapshot", None, None, snapshot(readyToUse=False), True, Act.WAIT),
        ("Snapshot", None, None, None, True, Act.FAIL),
        ("Snapshot", None, None, snapshot("2026-11-23T01:59:00Z"), True, Act.FAIL),
        ("Snapshot", THERE, THERE, READY, False, Act.FOLLOW),
        ("Snapshot", LEAVING, THERE, READY, True, Act.WAIT),
        ("Live", None, None, None, True, Act.CREATE_JOB),
        ("Live", None, None, None, False, Act.WAIT),
        ("Live", THERE, None, None, True, Act.FOLLOW),
    ],
)
def test_the_next_act_for_a_volume_follows_from_what_exists(method, job, claim, cut, room, act):
    assert decide(volume(method=method), job, claim, cut, NOW, room=room).act is act


def test_a_movers_result_becomes_the_volumes_status():
    result = VolumeResult("data", "s", "t", 3, 20, 7, 2, ("cannot read a",), True)

    done = with_state(volume("Moving"), MoverState("succeeded", result=MoverResult(True, (result,))))

    assert (done.phase, done.snapshot, done.tree, done.files, done.bytes, done.added_bytes) == (
        "Done", "s", "t", 3, 20, 7,
    )  # fmt: skip
    assert done.warnings == ("files were changing while they were read", "cannot read a")
    assert done.warning_count == 3


@pytest.mark.parametrize(
    "state",
    [
        MoverState("failed", reason="BucketNotFound", message="no bucket"),
        MoverState("succeeded", result=MoverResult(True, ())),
        MoverState("succeeded", result=MoverResult(True, (VolumeResult("data"),))),
    ],
)
def test_a_volume_without_a_whole_result_has_failed(state):
    assert with_state(volume("Moving"), state).phase == "Failed"


def test_progress_and_waiting_reasons_show_while_a_mover_runs():
    moving = with_state(volume(), MoverState("running", {"data": Progress("data", 2, 9, 20)}))
    waiting = with_state(volume(), MoverState("pending", message="no node fits"))

    assert (moving.phase, moving.files, moving.bytes, moving.total_bytes) == ("Moving", 2, 9, 20)
    assert waiting.message == "no node fits"


def test_temporaries_go_in_the_order_of_their_dependence():
    def named(name="x", **labels):
        return {"metadata": {"name": name, "uid": name, "labels": labels}}

    pod = named("p", **{"batch.kubernetes.io/job-name": "x"})

    def kinds(jobs, pods, claims, snapshots):
        def by_name(there):
            return {"x": named()} if there else {}

        found = Temporaries(by_name(jobs), (pod,) if pods else (), by_name(claims), by_name(snapshots))
        return [resource.kind for resource, _ in next_removals(found)]

    assert kinds(1, 1, 1, 1) == ["Job"]
    assert kinds(0, 1, 1, 1) == ["Pod"]
    assert kinds(0, 0, 1, 1) == ["PersistentVolumeClaim"]
    assert kinds(0, 0, 0, 1) == ["VolumeSnapshot"]
    assert kinds(0, 0, 0, 0) == []


def test_what_is_being_deleted_is_waited_for():
    found = Temporaries({"x": LEAVING}, (), {"x": THERE}, {})

    assert next_removals(found) == []
    assert next_removals(found, ["other"]) == []


# --- commit and outcome ----------------------------------------------------------------------------------------------


def test_a_restore_point_that_was_written_already_is_adopted():
    mine = "backstay.dev/restore-point=u1"
    snapshots = [
        Snapshot(NOW, "t", ("/data",), tags=("backstay.dev/backup=u1",), id="a"),
        Snapshot(NOW, "t", ("/resources",), tags=("backstay.dev/backup=u1", mine), id="b"),
    ]

    assert adopted(snapshots, mine) == "b"
    assert adopted(snapshots[:1], mine) == ""


def test_waiting_ends_in_failure_when_patience_does():
    first = backup()
    status = outcome.waiting(first, first.status, "StorageNotReady", "no bucket", NOW)
    again = replace(first, status=status)
    later = outcome.waiting(again, status, "StorageNotReady", "no bucket", NOW + 29 * MINUTE)
    ended = outcome.waiting(again, later, "StorageNotReady", "no bucket", NOW + 31 * MINUTE)

    assert find_condition(later.conditions, "Succeeded").status == "Unknown"
    assert (later.phase, later.message) == ("Pending", "no bucket")
    assert find_condition(ended.conditions, "Finishing").reason == "StorageNotReady"
    assert find_condition(ended.conditions, "Waiting") is None


def test_progress_ends_the_waiting():
    first = backup()
    status = outcome.waiting(first, first.status, "Unreachable", "no answer", NOW)

    assert outcome.waiting_since(outcome.running(first, status, "Moving", "", NOW)) is None


@pytest.mark.parametrize(
    ("warnings", "volume_warnings", "reason"),
    [
        ((), (), "Completed"),
        (("Secret x does not exist",), (), "CompletedWithWarnings"),
        ((), ("cannot read a",), "CompletedWithWarnings"),
    ],
)
def test_only_a_restore_point_without_any_warning_is_completed(warnings, volume_warnings, reason):
    status = BackupStatus(
        effective=EFFECTIVE,
        resources=ResourcesStatus(5),
        volumes=(volume("Done", bytes=3 * 2**20, warnings=volume_warnings),),
        warnings=warnings,
    )

    verdict, message = outcome.verdict(status)

    assert verdict == reason
    assert message.startswith("captured 5 objects and 1 volume, 3.0 MiB")


@pytest.mark.parametrize(
    ("reason", "left", "succeeded", "phase"),
    [
        ("Completed", [], "True", "Completed"),
        ("CompletedWithWarnings", [], "True", "CompletedWithWarnings"),
        ("Completed", ["Job x"], "True", "CompletedWithWarnings"),
        ("BucketNotFound", [], "False", "Failed"),
    ],
)
def test_the_end_tells_the_outcome_and_what_could_not_be_removed(reason, left, succeeded, phase):
    first = backup(effective=EFFECTIVE)
    finishing = replace(first, status=outcome.finishing(first, first.status, reason, "words", NOW))

    ended = outcome.over(finishing, NOW, left)

    final = find_condition(ended.conditions, "Succeeded")
    assert (final.status, ended.phase, final.message) == (succeeded, phase, "words")
    assert [c.type for c in ended.conditions] == ["Succeeded"]
    assert stage_of(replace(first, status=ended)) is Stage.OVER
    assert bool(ended.warnings) == bool(left)


def test_warnings_are_bounded():
    many = outcome.bounded([f"w{n}" for n in range(80)] + ["w1"])

    assert len(many) == outcome.MOST_WARNINGS
    assert many[-1] == "and 31 more warnings"
    assert len(outcome.bounded(["x" * 1000])[0]) == outcome.LONGEST_WARNING


def test_progress_is_told_in_words():
    volumes = [volume("Done", bytes=2**30), volume("Moving", bytes=2**28), volume("Skipped")]

    assert outcome.progress_text(volumes) == "1 of 2 volumes, 1.2 GiB"
