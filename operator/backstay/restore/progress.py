"""How far a Restore is: told by its conditions, so that an operator that starts anew goes on where the last one was.

Each condition is a milestone that is written before the next stage begins:

- `VolumesFilled` Unknown: prerequisites, claims and services stand, the claims are being filled. True: all hold data.
- `WorkloadsStarted` True: every object has been tried; since then readiness is awaited.
- `Succeeded` True or False: the end. Nothing is ever done again.

`Waiting` is True while something outside keeps the Restore from going on, since its transition time.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum

from msgspec.structs import replace

from backstay.api.meta import Condition, find_condition, set_condition
from backstay.api.restore import RestoreStatus

SUCCEEDED = "Succeeded"
VOLUMES_FILLED = "VolumesFilled"
WORKLOADS_STARTED = "WorkloadsStarted"
WAITING = "Waiting"

AWAITING_APPROVAL = "AwaitingApproval"

#: How long something outside may keep a Restore waiting in one piece.
LONGEST_WAIT = timedelta(minutes=30)
#: Texts of one kind in a status; what is longer belongs into a log.
FIRST_FEW = 20


class Stage(StrEnum):
    """What is to be done next."""

    PLAN = "Plan"
    CREATE = "Create"
    FILL = "Fill"
    START = "Start"
    AWAIT = "Await"
    END = "End"


def stage_of(status: RestoreStatus, approve: str) -> Stage:
    """The stage that the milestones in the status leave to do."""
    succeeded = find_condition(status.conditions, SUCCEEDED)
    filled = find_condition(status.conditions, VOLUMES_FILLED)
    if succeeded and succeeded.status != "Unknown":
        return Stage.END
    if find_condition(status.conditions, WORKLOADS_STARTED):
        return Stage.AWAIT
    if filled:
        return Stage.START if filled.status == "True" else Stage.FILL
    return Stage.CREATE if approve == "Create" else Stage.PLAN


def milestone(status: RestoreStatus, type_: str, value: str, reason: str, message: str, now: datetime) -> RestoreStatus:
    """The status with this milestone."""
    return replace(status, conditions=set_condition(status.conditions, Condition(type_, value, reason, message), now))


def running(status: RestoreStatus, reason: str, message: str, now: datetime) -> RestoreStatus:
    """The status of a Restore that goes on; what kept it waiting is over."""
    began = None if reason == AWAITING_APPROVAL else status.start_time or now.replace(microsecond=0)
    status = replace(status, conditions=_without(status.conditions, WAITING), start_time=began, message=message)
    return milestone(status, SUCCEEDED, "Unknown", reason, message, now)


def waiting(status: RestoreStatus, reason: str, message: str, now: datetime) -> RestoreStatus:
    """The status of a Restore that is kept waiting; Failed once that lasted longer than LONGEST_WAIT."""
    status = milestone(status, WAITING, "True", reason, message, now)
    since = find_condition(status.conditions, WAITING)
    assert since is not None
    assert since.last_transition_time is not None
    if now - since.last_transition_time > LONGEST_WAIT:
        minutes = int(LONGEST_WAIT.total_seconds() // 60)
        return failed(status, reason, f"Gave up after {minutes} minutes of waiting: {message}", now)
    told = f"Waiting: {message}"
    return milestone(replace(status, message=told), SUCCEEDED, "Unknown", reason, told, now)


def failed(status: RestoreStatus, reason: str, message: str, now: datetime) -> RestoreStatus:
    """The status of a Restore that has ended without success."""
    return _ended(status, "False", reason, message, now)


def completed(status: RestoreStatus, message: str, now: datetime) -> RestoreStatus:
    """The status of a Restore that has done everything, with warnings when there are any."""
    warned = bool(status.warnings) or any(volume.warning_count for volume in status.volumes)
    return _ended(status, "True", "CompletedWithWarnings" if warned else "Completed", message, now)


def warn(status: RestoreStatus, warnings: Iterable[str]) -> RestoreStatus:
    """The status with further warnings, each told once; beyond the first few only that there are more."""
    merged = list(dict.fromkeys([*status.warnings, *warnings]))
    if len(merged) > FIRST_FEW:
        merged = [*merged[: FIRST_FEW - 1], "There are more warnings than fit here."]
    return replace(status, warnings=tuple(merged))


def phase_of(status: RestoreStatus) -> str:
    """The condition Succeeded in one word."""
    condition = find_condition(status.conditions, SUCCEEDED)
    if condition is None:
        return "Pending"
    if condition.status == "True":
        return condition.reason
    if condition.status == "False":
        return "Failed"
    if condition.reason == AWAITING_APPROVAL:
        return AWAITING_APPROVAL
    moved = find_condition(status.conditions, VOLUMES_FILLED) is not None
    return "Pending" if find_condition(status.conditions, WAITING) and not moved else "Running"


def _ended(status: RestoreStatus, value: str, reason: str, message: str, now: datetime) -> RestoreStatus:
    ended = now.replace(microsecond=0)
    status = replace(status, conditions=_without(status.conditions, WAITING), start_time=status.start_time or ended)
    status = replace(status, message=message, completion_time=ended, progress="")
    return milestone(status, SUCCEEDED, value, reason, message, now)


def _without(conditions: Iterable[Condition], type_: str) -> tuple[Condition, ...]:
    return tuple(condition for condition in conditions if condition.type != type_)
