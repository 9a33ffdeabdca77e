"""What a mover's Job is doing, told from the Job, its pods, their events and the end of the log.

A Job by itself never gives up on a pod that cannot start, and says little about one that died; here its silence gets a
deadline and its failures get the words of whoever knows them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from backstay.api.meta import Struct
from backstay.volumes.claims import Object
from backstay.volumes.mover_job import CONTAINER

PENDING, RUNNING, SUCCEEDED, FAILED = "pending", "running", "succeeded", "failed"

#: How long a mover may wait for a node, its image or its volumes.
PENDING_DEADLINE = timedelta(minutes=5)
#: For how long the ordinary remarks of a pod's first seconds (a volume is not bound yet) are not worth repeating.
_QUIET = timedelta(seconds=10)

#: Event reasons that tell why a pod, its Job or its claim does not come forward.
_TELLING_EVENTS = frozenset(
    {"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreate", "FailedScheduling", "ProvisioningFailed",
     "FailedCreatePodSandBox", "FailedBinding", "Failed"}
)  # fmt: skip
_ORDINARY_WAITING = frozenset({"", "ContainerCreating", "PodInitializing"})


class VolumeResult(Struct, frozen=True):
    """What a mover tells about one claim. Sizes in bytes."""

    claim: str
    snapshot: str = ""
    tree: str = ""
    files: int = 0
    bytes: int = 0
    added_bytes: int = 0
    warning_count: int = 0
    warnings: tuple[str, ...] = ()
    consistency_lost: bool = False


class MoverResult(Struct, frozen=True):
    """A mover's last words, from its termination message."""

    ok: bool
    volumes: tuple[VolumeResult, ...] = ()
    reason: str = ""
    message: str = ""
    permanent: bool = False


class Progress(Struct, frozen=True):
    """How far a mover is with one volume; ``total_bytes`` is None while it is unknown."""

    volume: str
    files: int = 0
    bytes: int = 0
    total_bytes: int | None = None


@dataclass(frozen=True)
class MoverState:
    """``phase`` is pending, running, succeeded or failed.

    ``progress`` is by claim. ``result`` is set when succeeded. ``reason`` and ``message`` tell why it waits or failed;
    ``message`` is empty while all is well.
    """

    phase: str
    progress: Mapping[str, Progress] = field(default_factory=dict)
    result: MoverResult | None = None
    reason: str = ""
    message: str = ""


def mover_state(
    job: Object,
    pods: Iterable[Object],
    events: Iterable[Object] = (),
    log_tail: str = "",
    *,
    now: datetime,
    pending_deadline: timedelta = PENDING_DEADLINE,
) -> MoverState:
    """The state of a Job.

    ``pods`` are the Job's own, ``events`` (of events.k8s.io/v1) any that may concern the Job, its pods or their
    temporary claims, ``log_tail`` the last lines of the newest pod's log.
    """
    ordered = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    conditions = {c["type"]: c for c in job.get("status", {}).get("conditions") or () if c.get("status") == "True"}
    if "Complete" in conditions:
        return _completed(ordered)
    if "Failed" in conditions:
        return _job_failed(conditions["Failed"], ordered)
    newest = ordered[-1] if ordered else None
    phase = newest.get("status", {}).get("phase", "Pending") if newest else "Pending"
    if newest and (leaving := _time(newest["metadata"].get("deletionTimestamp"))) and now - leaving > pending_deadline:
        node = newest.get("spec", {}).get("nodeName", "")
        return MoverState(
            FAILED,
            reason="NodeLost",
            message=f"the mover's pod was deleted, but node {node} does not say that it ended",
        )
    if newest and phase != "Pending":
        # A pod that has ended is still "running" here until the Job has made up its mind about a retry.
        return MoverState(RUNNING, progress_of(log_tail))
    reason, message = _why_pending(newest, events)
    if newest is None and "violates PodSecurity" in message:
        # No patience helps here, and the words say which field the namespace's level refuses.
        return MoverState(FAILED, reason="PodSecurity", message=f"the mover's pod is refused: {message}")
    since = _time((newest or job)["metadata"].get("creationTimestamp"))
    if since is not None and now - since > pending_deadline:
        minutes = int(pending_deadline.total_seconds() // 60)
        what = f"the mover's pod did not start within {minutes} minutes"
        return MoverState(FAILED, reason=reason or "MoverNotStarted", message=f"{what}: {message}" if message else what)
    if since is not None and now - since < _QUIET:
        return MoverState(PENDING)
    return MoverState(PENDING, reason=reason, message=message)


def progress_of(log_tail: str) -> dict[str, Progress]:
    """The newest progress of each volume in a piece of a mover's log; lines that are no progress are passed over."""
    found: dict[str, Progress] = {}
    for line in log_tail.splitlines():
        if not line.startswith('{"progress"'):
            continue
        try:
            progress = msgspec.convert(json.loads(line)["progress"], Progress)
        except (ValueError, msgspec.ValidationError):
            continue  # cut off by the log's end or rotation; the next one comes soon
        found[progress.volume] = progress
    return found


def _completed(pods: Sequence[Object]) -> MoverState:
    for pod in reversed(pods):
        ended = _ended(pod)
        if ended and ended.get("exitCode") == 0:
            result = _result(ended)
            if result is None or not result.ok:
                break
            return MoverState(SUCCEEDED, result=result)
    return MoverState(
        FAILED,
        reason="MalformedResult",
        message="the mover's Job is complete, but its result cannot be read from a pod's termination message",
    )


def _job_failed(condition: Object, pods: Sequence[Object]) -> MoverState:
    for pod in reversed(pods):
        status = pod.get("status", {})
        if status.get("reason") in ("Evicted", "NodeLost", "Preempting", "Shutdown", "Terminated"):
            return MoverState(FAILED, reason=status["reason"], message=status.get("message") or "the pod was evicted")
        ended = _ended(pod)
        if ended is None:
            continue
        if ended.get("reason") == "OOMKilled":
            return MoverState(
                FAILED,
                reason="OOMKilled",
                message="the mover ran out of memory; raise the memory limit of movers in the operator's settings",
            )
        result = _result(ended)
        if result is not None and not result.ok:
            return MoverState(FAILED, reason=result.reason or "MoverFailed", message=result.message)
        if ended.get("exitCode"):
            words = (ended.get("message") or "").strip()[:300]
            return MoverState(
                FAILED,
                reason="MoverFailed",
                message=f"the mover ended with exit status {ended['exitCode']}" + (f": {words}" if words else ""),
            )
    reason = condition.get("reason") or "MoverFailed"
    return MoverState(FAILED, reason=reason, message=f"the mover's Job failed: {condition.get('message') or reason}")


def _ended(pod: Object) -> Object | None:
    for status in pod.get("status", {}).get("containerStatuses") or ():
        if status.get("name") == CONTAINER:
            ended: Object | None = status.get("state", {}).get("terminated")
            return ended
    return None


def _result(ended: Object) -> MoverResult | None:
    try:
        return msgspec.json.decode((ended.get("message") or "").encode(), type=MoverResult)
    except msgspec.MsgspecError:
        return None


def _why_pending(pod: Object | None, events: Iterable[Object]) -> tuple[str, str]:
    if pod:
        status = pod.get("status", {})
        for container in status.get("containerStatuses") or ():
            waiting = container.get("state", {}).get("waiting") or {}
            if waiting.get("reason", "") not in _ORDINARY_WAITING:
                return waiting["reason"], waiting.get("message") or waiting["reason"]
    told = [e for e in events if e.get("reason") in _TELLING_EVENTS and e.get("type") != "Normal"]
    newest = max(told, key=_event_time, default=None)
    if pod:
        for condition in pod.get("status", {}).get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                message = condition.get("message") or ""
                if newest and newest.get("reason") == "ProvisioningFailed":
                    message = f"{message}; {newest.get('note', '')}"
                return condition.get("reason") or "Unschedulable", message
    if newest:
        return newest["reason"], newest.get("note") or ""
    return "", ""


def _event_time(event: Object) -> str:
    series: Mapping[str, Any] = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("eventTime")
        or event.get("deprecatedLastTimestamp")
        or event["metadata"].get("creationTimestamp")
        or ""
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
