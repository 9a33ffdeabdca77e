"""What a mover's Job is doing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from backstay.volumes.mover_state import mover_state

START = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
CREATED = "2026-11-24T02:00:00Z"
SOON, LATE = START + timedelta(minutes=1), START + timedelta(minutes=6)

OK = json.dumps({"ok": True, "volumes": [{"claim": "data", "snapshot": "s", "tree": "t", "files": 3, "addedBytes": 7}]})


def job(condition=None, reason="", message=""):
    conditions = [{"type": condition, "status": "True", "reason": reason, "message": message}] if condition else []
    return {"metadata": {"name": "j", "creationTimestamp": CREATED}, "status": {"conditions": conditions}}


def pod(phase="Pending", *, state=None, conditions=(), created=CREATED, **status):
    statuses = [{"name": "mover", "state": state}] if state else []
    return {
        "metadata": {"name": "p", "creationTimestamp": created},
        "status": {"phase": phase, "containerStatuses": statuses, "conditions": list(conditions), **status},
    }


def ended(code, message="", reason=""):
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


def event(reason, note):
    return {"metadata": {}, "type": "Warning", "reason": reason, "note": note, "eventTime": CREATED}


def test_a_complete_job_gives_its_result():
    state = mover_state(job("Complete"), [pod("Succeeded", state=ended(0, OK))], now=SOON)

    assert state.phase == "succeeded"
    assert state.result.volumes[0].tree == "t"
    assert state.result.volumes[0].added_bytes == 7


@pytest.mark.parametrize("message", ["", "no json", '{"ok": "maybe"}', '{"ok": false}'])
def test_success_without_a_readable_result_is_a_failure(message):
    state = mover_state(job("Complete"), [pod("Succeeded", state=ended(0, message))], now=SOON)

    assert (state.phase, state.reason) == ("failed", "MalformedResult")


@pytest.mark.parametrize(
    ("pods", "reason", "words"),
    [
        (
            [pod("Failed", state=ended(10, '{"ok": false, "reason": "BucketNotFound", "message": "no bucket"}'))],
            "BucketNotFound",
            "no bucket",
        ),
        ([pod("Failed", state=ended(137, reason="OOMKilled"))], "OOMKilled", "memory"),
        ([pod("Failed", reason="Evicted", message="The node was low on resource")], "Evicted", "low on resource"),
        ([pod("Failed", state=ended(3, "Traceback"))], "MoverFailed", "exit status 3: Traceback"),
        ([], "DeadlineExceeded", "too long"),
    ],
)
def test_a_failed_job_has_the_words_of_whoever_knows_the_cause(pods, reason, words):
    state = mover_state(job("Failed", "DeadlineExceeded", "it took too long"), pods, now=SOON)

    assert (state.phase, state.reason) == ("failed", reason)
    assert words in state.message


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}


@pytest.mark.parametrize(
    ("pods", "events", "reason", "words"),
    [
        ([pod(conditions=[UNSCHEDULABLE])], [], "Unschedulable", "0/1 nodes"),
        (
            [pod(conditions=[UNSCHEDULABLE])],
            [event("ProvisioningFailed", "no space on the array")],
            "Unschedulable",
            "no space on the array",
        ),
        (
            [pod(state={"waiting": {"reason": "ImagePullBackOff", "message": "not found"}})],
            [],
            "ImagePullBackOff",
            "not found",
        ),
        (
            [pod(state={"waiting": {"reason": "ContainerCreating"}})],
            [event("FailedMount", "secret is missing")],
            "FailedMount",
            "secret is missing",
        ),
        ([], [event("FailedCreate", "exceeded quota")], "FailedCreate", "exceeded quota"),
        ([], [], "MoverNotStarted", "did not start within 5 minutes"),
    ],
)
def test_a_pod_that_cannot_start_waits_with_its_real_reason_and_then_fails(pods, events, reason, words):
    soon, late = (mover_state(job(), pods, events, now=now) for now in (SOON, LATE))

    assert soon.phase == "pending"
    assert (late.phase, late.reason) == ("failed", reason)
    assert words in late.message
    if events:
        assert words in soon.message


def test_a_pod_that_the_namespace_refuses_for_good_fails_at_once():
    refused = event("FailedCreate", 'pods "x" is forbidden: violates PodSecurity "restricted:latest"')

    state = mover_state(job(), [], [refused], now=SOON)

    assert (state.phase, state.reason) == ("failed", "PodSecurity")
    assert "restricted:latest" in state.message


def test_the_remarks_of_the_first_seconds_are_not_repeated():
    assert mover_state(job(), [pod(conditions=[UNSCHEDULABLE])], now=START + timedelta(seconds=3)).message == ""


def test_a_running_pod_tells_its_newest_progress_even_when_the_log_is_cut():
    lines = [
        "99}}",
        '{"progress": {"volume": "data", "files": 1, "bytes": 5}}',
        "hello",
        '{"progress": {"volume": "data", "files": 2, "bytes": 9, "totalBytes": 20}}',
        '{"progress": {"vol',
    ]

    state = mover_state(job(), [pod("Running")], log_tail="\n".join(lines), now=LATE)

    assert state.phase == "running"
    assert (state.progress["data"].bytes, state.progress["data"].total_bytes) == (9, 20)


def test_a_retry_is_judged_by_its_own_pod():
    first = pod("Failed", state=ended(1, "x"))
    second = pod("Pending", created="2026-11-24T02:05:30Z")

    assert mover_state(job(), [second, first], now=LATE).phase == "pending"


def test_a_pod_on_a_lost_node_does_not_hold_us_for_ever():
    lost = pod("Running")
    lost["metadata"]["deletionTimestamp"] = CREATED

    assert mover_state(job(), [lost], now=SOON).phase == "running"
    assert mover_state(job(), [lost], now=LATE).reason == "NodeLost"
