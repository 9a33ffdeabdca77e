"""The stages of a Restore, one function each: look, do what is left to do, and give back the status to write.

Each may be cut off at any instant and is then run again from its start. What it creates has deterministic names or the
Restore's label, so that a second run finds the first one's work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from backstay.api.meta import find_condition, object_reference
from backstay.api.names import COMPONENT_LABEL, OWNER_LABEL
from backstay.api.restore import Restore, RestoreStatus
from backstay.kube.resource import CLAIMS, JOBS, PODS, STORAGE_CLASSES
from backstay.kube.runtime import Runtime
from backstay.restore import fill, words
from backstay.restore.apply import carry_out
from backstay.restore.contents import Contents, Identity
from backstay.restore.errors import RestoreError, WaitError
from backstay.restore.fill import Filling
from backstay.restore.observe import (
    Movers,
    applier,
    keeper,
    look_at,
    observe,
    observe_movers,
    observe_workloads,
    pod_security,
)
from backstay.restore.plan import Action, Observed, Plan, claim_users, kept_data_warnings, kept_warnings, make_plan
from backstay.restore.progress import (
    AWAITING_APPROVAL,
    VOLUMES_FILLED,
    WORKLOADS_STARTED,
    Stage,
    completed,
    failed,
    milestone,
    running,
    warn,
)
from backstay.restore.readiness import unready
from backstay.restore.source import Origin
from backstay.restore.storage_classes import StorageClasses
from backstay.restore.translate import Target
from backstay.restore.waves import Wave
from backstay.storage import mover_access
from backstay.storage.access import find_storage
from backstay.volumes.mover_job import build_mover_job
from backstay.volumes.placement import filling_placement

#: How long restored workloads may take to become ready before the Restore ends without them.
READINESS_DEADLINE = timedelta(minutes=5)

#: Seconds until the next look.
AT_ONCE, SOON, POLL, SELDOM = 0.0, 1.0, 1.5, 60.0


@dataclass(frozen=True)
class Work:
    """What every stage is given."""

    runtime: Runtime
    restore: Restore
    origin: Origin
    contents: Contents

    @property
    def status(self) -> RestoreStatus:
        """The status as it was last written."""
        return self.restore.status

    @property
    def namespace(self) -> str:
        """Where everything is restored to."""
        return self.restore.metadata.namespace

    @property
    def uid(self) -> str:
        """The Restore's UID."""
        return self.restore.metadata.uid


@dataclass(frozen=True)
class Result:
    """The status to write, and the seconds until the next look."""

    status: RestoreStatus
    again: float


def plan(work: Work) -> Result:
    """Count what would be done, and change nothing."""
    _, drawn = _draw_plan(work)
    now = work.runtime.now()
    message = words.proposal(work.restore, work.contents, drawn)
    status = running(words.count(work.status, drawn), AWAITING_APPROVAL, message, now)
    status = replace(status, snapshot=work.contents.snapshot, warnings=())
    return Result(warn(status, [*drawn.warnings, *_kept(work, drawn)]), SELDOM)


def create(work: Work) -> Result:
    """Make everything that does not wait for the volumes' data: prerequisites, claims, services."""
    if work.status.start_time is None:  # told before it is done: thousands of objects take some seconds
        told = f"Creating the {len(work.contents.objects)} objects of the restore point."
        return Result(running(work.status, "Creating", told, work.runtime.now()), AT_ONCE)
    observed, drawn = _draw_plan(work)
    if drawn.blockers:
        raise RestoreError(drawn.blockers[0].reason, words.blocked(drawn))
    if drawn.terminating:
        raise WaitError("ObjectsTerminating", f"{words.listed(drawn.terminating)} is still being deleted")
    done = _carry_out(work, drawn, Wave.SERVICES)
    volumes = fill.first_look(work.contents.point.volumes, done, _classes(work, observed))
    now = work.runtime.now()
    status = words.count(replace(work.status, snapshot=work.contents.snapshot, volumes=volumes, warnings=()), done)
    empty = [f"{v.claim}: {v.message}" for v in volumes if v.phase == fill.EMPTY]
    status = warn(status, [*drawn.warnings, *_kept(work, done), *empty])
    claims = [s.identity for s in done.steps if s.wave == Wave.CLAIMS and s.action == Action.MADE]
    if broken := [s for s in done.steps if s.wave == Wave.CLAIMS and s.action == Action.REFUSE]:
        told = "; ".join(f"{step.identity}: {step.message}" for step in broken[:3])
        left = f" Left as they are: {words.listed([str(c) for c in claims])}." if claims else ""
        told = f"Not every claim could be created, so no workload was started. {told}.{left}"
        return Result(failed(status, "ClaimsRefused", told, now), SOON)
    if fill.is_filled(volumes):
        return _filled(status, "Nothing is to be filled", now)
    status = running(status, "Filling", "Filling the volumes.", now)
    return Result(milestone(status, VOLUMES_FILLED, "Unknown", "Filling", "", now), AT_ONCE)


def _filled(status: RestoreStatus, told: str, now: datetime) -> Result:
    status = running(status, "Starting", f"{told}; starting the workloads.", now)
    return Result(milestone(status, VOLUMES_FILLED, "True", "Filled", status.progress, now), AT_ONCE)


def fill_volumes(work: Work) -> Result:
    """Keep the movers going until every claim has its data."""
    captured, volumes, status = work.contents.point.volumes, work.status.volumes, work.status
    movers = observe_movers(work.runtime, work.restore)
    open_fillings = fill.fillings(work.uid, captured, volumes)
    for filling in open_fillings[: fill.LARGEST_NUMBER]:
        if filling.job not in movers.jobs:
            status = warn(status, _start_mover(work, filling))
        else:
            volumes = fill.after_look(volumes, filling, _look(work, movers, filling))
    now = work.runtime.now()
    status = replace(status, volumes=volumes, progress=fill.summary(volumes))
    if told := fill.failure(volumes, [Identity("", "PersistentVolumeClaim", v.claim) for v in _ours(volumes)]):
        return Result(failed(status, "FillingFailed", told, now), AT_ONCE)
    if not fill.is_filled(volumes):
        waits = next((f" {v.claim} waits: {v.message}" for v in volumes if v.phase == fill.PENDING and v.message), "")
        return Result(running(status, "Filling", f"Filling the volumes: {status.progress}.{waits}", now), POLL)
    return _filled(status, "All volumes have their data", now)


def start(work: Work) -> Result:
    """Make all the rest, the workloads last; what was refused before is tried once more."""
    remove_movers(work.runtime, work.restore)
    _, drawn = _draw_plan(work)
    if drawn.terminating:
        raise WaitError("ObjectsTerminating", f"{words.listed(drawn.terminating)} is still being deleted")
    if lost := [s.identity.name for s in drawn.steps if s.wave == Wave.CLAIMS and s.action == Action.CREATE]:
        # Made again now it would be empty, and the workload would begin on it as if nothing had ever been there.
        told = f"PersistentVolumeClaim {lost[0]} was deleted after it had been filled; no workload was started."
        raise RestoreError("ClaimLost", told)
    done = _carry_out(work, drawn, Wave.WORKLOADS)
    now = work.runtime.now()
    status = warn(words.count(work.status, done), [*drawn.warnings, *_kept(work, done)])
    status = milestone(status, WORKLOADS_STARTED, "True", "Created", "", now)
    if done.count(Action.REFUSE):
        status = warn(status, words.refusals(done))
        return Result(failed(status, "ObjectsRefused", words.refused(done), now), AT_ONCE)
    return Result(running(status, "AwaitingReadiness", "Waiting for the workloads' pods.", now), AT_ONCE)


def await_readiness(work: Work) -> Result:
    """Look whether the workloads run; a Restore does not wait for them for ever."""
    late = unready(*observe_workloads(work.runtime, work.restore))
    now = work.runtime.now()
    started = find_condition(work.status.conditions, WORKLOADS_STARTED)
    since = (started and started.last_transition_time) or now
    if late and now - since < READINESS_DEADLINE:
        return Result(
            running(work.status, "AwaitingReadiness", f"Waiting for pods: {words.listed(late, 3)}", now), POLL
        )
    minutes = int(READINESS_DEADLINE.total_seconds() // 60)
    status = warn(work.status, [f"Not ready after {minutes} minutes: {line}" for line in late])
    return Result(completed(status, words.result(status, work.contents.left_out), now), AT_ONCE)


STAGES: dict[Stage, Callable[[Work], Result]] = {
    Stage.PLAN: plan,
    Stage.CREATE: create,
    Stage.FILL: fill_volumes,
    Stage.START: start,
    Stage.AWAIT: await_readiness,
}


def remove_movers(runtime: Runtime, restore: Restore) -> None:
    """Delete this Restore's mover Jobs, if there are any; their pods go with them."""
    client, namespace = keeper(runtime, restore), restore.metadata.namespace
    for job in client.list(JOBS, namespace, f"{OWNER_LABEL}={restore.metadata.uid},{COMPONENT_LABEL}=mover"):
        runtime.leading()
        client.delete(JOBS, job["metadata"]["name"], namespace, uid=job["metadata"]["uid"])


def _draw_plan(work: Work) -> tuple[Observed, Plan]:
    observed = observe(work.runtime, work.restore, work.contents)
    target = Target(
        namespace=work.namespace,
        source_namespace=work.contents.point.application.namespace,
        classes=StorageClasses.of(work.runtime.client.list(STORAGE_CLASSES)),
        class_mapping=work.restore.spec.storage_classes,
    )
    return observed, make_plan(work.contents, observed, target, work.uid)


def _carry_out(work: Work, drawn: Plan, until: Wave) -> Plan:
    client = applier(work.runtime, work.restore)
    return carry_out(client, drawn, work.namespace, work.uid, until=until, leading=work.runtime.leading)


def _kept(work: Work, drawn: Plan) -> list[str]:
    return [*kept_data_warnings(drawn, work.contents.point.volumes), *kept_warnings(drawn)]


def _classes(work: Work, observed: Observed) -> dict[str, str]:
    """Storage classes of the claims, read once they are made, since the server may have chosen."""
    live = keeper(work.runtime, work.restore).list(CLAIMS, work.namespace)
    return {claim["metadata"]["name"]: claim["spec"].get("storageClassName") or "" for claim in live}


def _ours(volumes: tuple[Any, ...]) -> list[Any]:
    return [volume for volume in volumes if volume.phase != fill.KEPT]


def _look(work: Work, movers: Movers, filling: Filling) -> Any:
    return look_at(work.runtime, work.restore, movers, filling.job, filling.claims)


def _start_mover(work: Work, filling: Filling) -> list[str]:
    """Create the mover's Job, unless a pod has come up meanwhile that uses one of its claims."""
    client = keeper(work.runtime, work.restore)
    users = claim_users(client.list(PODS, work.namespace))
    for claim in filling.claims & users.keys():
        raise WaitError(
            "ClaimInUse",
            f"Pod {users[claim][0]} uses PersistentVolumeClaim {claim}, whose data are not back yet; scale its workload"
            " to zero or delete it",
        )
    storage = find_storage(work.runtime, work.namespace, work.origin.storage)
    access = mover_access(storage)
    identity = fill.run_as(filling, pod_security(work.runtime, work.namespace))
    user = next((volume.user for volume in filling.volumes if volume.user), None)
    job = build_mover_job(
        object_reference("Restore", work.restore.metadata),
        namespace=work.namespace,
        name=filling.job,
        storage=work.origin.storage,
        access=access,
        order=fill.build_order(filling, access.repository),
        mounts=[(volume.claim, False) for volume in filling.volumes],
        run_as=identity.run_as,
        placement=filling_placement(user.placement if user else {}),
        settings=work.runtime.settings,
    )
    work.runtime.leading()
    client.ensure(JOBS, job, namespace=work.namespace)
    return [f"{', '.join(sorted(filling.claims))}: {identity.warning}"] if identity.warning else []
