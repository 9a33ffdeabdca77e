"""Where a Restore is, told by its conditions alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from backstay.api.meta import find_condition
from backstay.api.restore import RestoredVolume, RestoreStatus
from backstay.restore.progress import (
    FIRST_FEW,
    LONGEST_WAIT,
    VOLUMES_FILLED,
    WAITING,
    WORKLOADS_STARTED,
    Stage,
    completed,
    failed,
    milestone,
    phase_of,
    running,
    stage_of,
    waiting,
    warn,
)
from tests.unit.restore.objects import NOW

NEW = RestoreStatus()
FILLING = milestone(NEW, VOLUMES_FILLED, "Unknown", "Filling", "", NOW)
FILLED = milestone(NEW, VOLUMES_FILLED, "True", "Filled", "", NOW)
STARTED = milestone(FILLED, WORKLOADS_STARTED, "True", "Created", "", NOW)


@pytest.mark.parametrize(
    ("status", "approve", "stage"),
    [
        (NEW, "", Stage.PLAN),
        (running(NEW, "AwaitingApproval", "", NOW), "", Stage.PLAN),
        (running(NEW, "AwaitingApproval", "", NOW), "Create", Stage.CREATE),
        (NEW, "Create", Stage.CREATE),
        (FILLING, "Create", Stage.FILL),
        (FILLED, "Create", Stage.START),
        (STARTED, "Create", Stage.AWAIT),
        (completed(STARTED, "", NOW), "Create", Stage.END),
        (failed(NEW, "X", "", NOW), "Create", Stage.END),
        (failed(NEW, "X", "", NOW), "", Stage.END),
        (waiting(FILLING, "X", "", NOW), "Create", Stage.FILL),
    ],
)
def test_the_milestones_tell_the_stage(status: RestoreStatus, approve: str, stage: Stage) -> None:
    assert stage_of(status, approve) == stage


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        (NEW, "Pending"),
        (waiting(NEW, "Unreachable", "", NOW), "Pending"),
        (running(NEW, "AwaitingApproval", "", NOW), "AwaitingApproval"),
        (running(FILLING, "Filling", "", NOW), "Running"),
        (waiting(FILLING, "Unreachable", "", NOW), "Running"),
        (completed(STARTED, "", NOW), "Completed"),
        (completed(warn(STARTED, ["x"]), "", NOW), "CompletedWithWarnings"),
        (completed(RestoreStatus(volumes=(RestoredVolume("a", warning_count=1),)), "", NOW), "CompletedWithWarnings"),
        (failed(NEW, "NoSpace", "", NOW), "Failed"),
    ],
)
def test_the_phase_is_derived(status: RestoreStatus, phase: str) -> None:
    assert phase_of(status) == phase


def test_a_wait_ends_as_failed_after_its_longest_time_and_tells_for_what() -> None:
    status = waiting(NEW, "Unreachable", "no answer", NOW)
    assert status.message == "Waiting: no answer"
    status = waiting(status, "Unreachable", "no answer", NOW + LONGEST_WAIT)
    assert phase_of(status) == "Pending"
    status = waiting(status, "Unreachable", "no answer", NOW + LONGEST_WAIT + timedelta(seconds=1))
    assert phase_of(status) == "Failed"
    assert status.message == "Gave up after 30 minutes of waiting: no answer"


def test_a_wait_that_is_over_does_not_count_for_the_next() -> None:
    status = running(waiting(NEW, "Unreachable", "", NOW), "Filling", "", NOW)
    assert find_condition(status.conditions, WAITING) is None


def test_work_has_a_start_only_once_it_is_approved() -> None:
    assert running(NEW, "AwaitingApproval", "", NOW).start_time is None
    assert running(NEW, "Filling", "", NOW).start_time == NOW


def test_warnings_are_told_once_and_cut_to_the_first_few() -> None:
    assert warn(warn(NEW, ["a", "b"]), ["b", "c"]).warnings == ("a", "b", "c")
    many = warn(NEW, [str(n) for n in range(100)]).warnings
    assert len(many) == FIRST_FEW
    assert many[-1] == "There are more warnings than fit here."
