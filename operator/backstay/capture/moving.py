"""Carrying the volumes' data into the repository: each volume from its cut to its mover's result.

What is to be done for a volume follows from its status and from the temporary objects that exist; a result reaches the
status before the objects that it came from are removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from msgspec.structs import replace

from backstay.api.backup import VolumeStatus
from backstay.api.restore_point import CapturedVolume, RestorePoint
from backstay.capture import inventory, restore_point, stage
from backstay.capture.cut import pod_security_of
from backstay.capture.outcome import bounded, failed_volume, progress_text
from backstay.capture.temporaries import Temporaries, find_temporaries, next_removals, remove
from backstay.capture.work import POLL, Step, Work
from backstay.kube.errors import ApiError
from backstay.kube.resource import CLAIMS, EVENTS, JOBS, NAMESPACES
from backstay.storage import mover_access
from backstay.storage.access import find_storage
from backstay.volumes import mover_state
from backstay.volumes.claims import ClaimFacts
from backstay.volumes.identity import identity_for
from backstay.volumes.method import SNAPSHOT, Classes, temporary_class
from backstay.volumes.mover_job import CONTAINER, build_mover_job, mount_path
from backstay.volumes.mover_state import MoverState
from backstay.volumes.placement import reading_placement
from backstay.volumes.snapshot_specs import build_temporary_claim, temporary_name

Object = Mapping[str, Any]

#: Movers of one Backup at a time.
MOST_MOVERS = 4
#: How long a driver may take to make a cut snapshot usable: the first one of a large disk is copied away meanwhile.
READY_DEADLINE = timedelta(hours=6)
#: A mover of a snapshot also waits for its volume to be made.
SNAPSHOT_PENDING_DEADLINE = timedelta(minutes=15)
_LOG_LINES = 20


class Act(Enum):
    """What to do next for one volume."""

    WAIT = "wait"
    CREATE_CLAIM = "create the temporary claim"
    CREATE_JOB = "create the mover's Job"
    FOLLOW = "follow the mover"
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """The act, and in words what is waited for or what failed."""

    act: Act
    message: str = ""


def decide(
    volume: VolumeStatus,
    job: Object | None,
    claim: Object | None,
    snapshot: Object | None,
    now: datetime,
    *,
    room: bool,
) -> Decision:
    """What to do next for a volume that is not final; ``room`` says whether another mover may start. Pure."""
    if job is not None:
        return Decision(Act.WAIT, "its mover is being deleted") if _leaving(job) else Decision(Act.FOLLOW)
    if volume.method == SNAPSHOT:
        if snapshot is None or _leaving(snapshot):
            return Decision(Act.FAIL, "its VolumeSnapshot was deleted before it was read")
        status = snapshot.get("status") or {}
        if not status.get("readyToUse"):
            words = (status.get("error") or {}).get("message", "")
            created = datetime.fromisoformat(snapshot["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
            if now - created > READY_DEADLINE:
                return Decision(Act.FAIL, f"its snapshot did not become ready to use: {words or 'no reason given'}")
            return Decision(Act.WAIT, f"its snapshot is not ready to use{': ' + words if words else ''}")
        if claim is not None and _leaving(claim):
            return Decision(Act.WAIT, "an earlier temporary claim is being deleted")
        if not room:
            return Decision(Act.WAIT, "other movers are at work")
        if claim is None:
            return Decision(Act.CREATE_CLAIM)
    return Decision(Act.CREATE_JOB) if room else Decision(Act.WAIT, "other movers are at work")


def move(work: Work) -> Step:
    """One look at every volume that is not final."""
    found = find_temporaries(work.account, work.namespace, work.backup.metadata.uid)
    done = [temporary_name(work.backup.metadata.uid, claim) for claim in stage.final_claims(work.status.volumes)]
    if removals := next_removals(found, done):
        work.runtime.leading()
        remove(work.account, work.namespace, removals)
    mover = _Movers(work, found)
    volumes = tuple(volume if stage.is_final(volume) else mover.look_after(volume) for volume in work.status.volumes)
    status = replace(work.status, volumes=volumes, progress=progress_text(volumes))
    if failed := failed_volume(volumes):
        reason = mover.failures.get(failed.claim, "VolumeFailed")
        return Step(work.finishing(status, reason, f"claim {failed.claim}: {failed.message}"), 0.1)
    if all(map(stage.is_final, volumes)):
        return Step(work.running(status, "Moving", "all volumes' data are in the repository"), 0.1)
    return Step(work.running(status, "Moving", _message(volumes)), POLL)


def _message(volumes: Sequence[VolumeStatus]) -> str:
    waits = [f"claim {v.claim}: {v.message}" for v in volumes if not stage.is_final(v) and v.message]
    return "; ".join([f"moving data, {progress_text(volumes)}", *waits])


class _Movers:
    """The movers of one look: how many there are, and what is read once for all that start now."""

    def __init__(self, work: Work, found: Temporaries) -> None:
        self._work = work
        self._found = found
        self._running = len(found.jobs)
        self._draft: RestorePoint | None = None
        self._view: inventory.NamespaceView | None = None
        self.failures: dict[str, str] = {}

    def look_after(self, volume: VolumeStatus) -> VolumeStatus:
        name = temporary_name(self._work.backup.metadata.uid, volume.claim)
        job, claim = self._found.jobs.get(name), self._found.claims.get(name)
        snapshot = self._found.snapshots.get(name)
        decision = decide(volume, job, claim, snapshot, self._work.now, room=self._running < MOST_MOVERS)
        match decision.act:
            case Act.WAIT:
                return replace(volume, message=decision.message)
            case Act.FAIL:
                return replace(volume, phase=stage.FAILED, message=decision.message)
            case Act.FOLLOW:
                assert job is not None
                return self._follow(volume, name, job)
            case Act.CREATE_CLAIM:
                assert snapshot is not None
                if failure := self._create_claim(volume, snapshot):
                    return replace(volume, phase=stage.FAILED, message=failure)
                self._create_job(volume, name)
            case Act.CREATE_JOB:
                self._create_job(volume, name)
        self._running += 1
        return replace(volume, phase=stage.MOVING, message="")

    def _follow(self, volume: VolumeStatus, name: str, job: Object) -> VolumeStatus:
        state = self._state(volume, name, job)
        if state.phase == mover_state.FAILED:
            self.failures[volume.claim] = state.reason
        return with_state(volume, state)

    def _state(self, volume: VolumeStatus, name: str, job: Object) -> MoverState:
        work, pods = self._work, self._found.pods_of(name)
        newest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), default=None)
        phase = newest.get("status", {}).get("phase") if newest else "Pending"
        events = _events(work, {job["metadata"]["name"], *(pod["metadata"]["name"] for pod in pods)}, phase)
        log = _log_tail(work, newest) if newest and phase == "Running" else ""
        deadline = SNAPSHOT_PENDING_DEADLINE if volume.method == SNAPSHOT else mover_state.PENDING_DEADLINE
        return mover_state.mover_state(job, pods, events, log, now=work.now, pending_deadline=deadline)

    def _create_claim(self, volume: VolumeStatus, snapshot: Object) -> str:
        """Make the temporary claim; the answer is empty, or why that is impossible."""
        work, described = self._work, self._described(volume.claim)
        classes = inventory.read_classes(work.runtime.client)
        storage_class = _class_for(described, snapshot, classes)
        if storage_class is None:
            return f"there is no storage class any more to read its snapshot with ({described.storage_class} was used)"
        restore_size = (snapshot.get("status") or {}).get("restoreSize") or ""
        body = build_temporary_claim(
            work.owner,
            volume.claim,
            storage_class=storage_class,
            capacity=described.capacity,
            restore_size=str(restore_size),
        )
        work.runtime.leading()
        work.account.ensure(CLAIMS, body, namespace=work.namespace)
        return ""

    def _create_job(self, volume: VolumeStatus, name: str) -> None:
        work, described = self._work, self._described(volume.claim)
        facts = self._facts(volume.claim)
        # A live volume's mover goes to where its pod is now; who its user is was noted at the cut.
        run_as = described.user.run_as if described.user else None
        wishes = described.user.placement if described.user else {}
        namespace = work.runtime.client.find(NAMESPACES, work.namespace)
        storage = find_storage(work.runtime, work.namespace, work.effective.storage)
        access = mover_access(storage)
        order = {
            "action": "backup",
            "repository": access.repository,
            "host": work.host,
            "tags": work.tags,
            "volumes": [{"claim": volume.claim, "path": mount_path(0), "claimUid": described.claim_uid}],
        }
        body = build_mover_job(
            work.owner,
            namespace=work.namespace,
            name=name,
            storage=work.effective.storage,
            access=access,
            order=order,
            mounts=[(name if volume.method == SNAPSHOT else volume.claim, True)],
            run_as=identity_for(run_as, pod_security_of(namespace)).run_as,
            placement=reading_placement(facts, volume.method, wishes),
            settings=work.runtime.settings,
        )
        work.runtime.leading()
        work.account.ensure(JOBS, body, namespace=work.namespace)

    def _described(self, claim: str) -> CapturedVolume:
        """What the draft says about a volume; it is read once in a look."""
        if self._draft is None:
            resources = self._work.status.resources
            assert resources is not None
            self._draft = restore_point.read_draft(self._work.repository(write=False), resources.tree)
        return next(volume for volume in self._draft.volumes if volume.claim == claim)

    def _facts(self, claim: str) -> ClaimFacts:
        work = self._work
        if self._view is None:
            self._view = inventory.view_namespace(work.reader, work.namespace, work.effective.selector)
        facts = inventory.facts_of(work.runtime.client, self._view, [claim])
        return facts.get(claim) or ClaimFacts(claim)  # deleted since: its snapshot can still be read


def with_state(volume: VolumeStatus, state: MoverState) -> VolumeStatus:
    """The volume's status with what its mover's state tells. Pure."""
    if state.phase == mover_state.FAILED:
        return replace(volume, phase=stage.FAILED, message=state.message)
    if state.phase == mover_state.SUCCEEDED:
        result = next((r for r in state.result.volumes if r.claim == volume.claim), None) if state.result else None
        if result is None or not result.tree:
            return replace(volume, phase=stage.FAILED, message="the mover's result does not tell about this claim")
        lost = ("files were changing while they were read",) if result.consistency_lost else ()
        return replace(
            volume,
            phase=stage.DONE,
            snapshot=result.snapshot,
            tree=result.tree,
            files=result.files,
            bytes=result.bytes,
            total_bytes=result.bytes,
            added_bytes=result.added_bytes,
            warnings=bounded([*volume.warnings, *lost, *result.warnings]),
            warning_count=volume.warning_count + len(lost) + max(result.warning_count, len(result.warnings)),
            message="",
        )
    volume = replace(volume, phase=stage.MOVING, message=state.message)
    progress = state.progress.get(volume.claim)
    if progress is None:
        return volume
    return replace(volume, files=progress.files, bytes=progress.bytes, total_bytes=progress.total_bytes)


def _class_for(described: CapturedVolume, snapshot: Object, classes: Classes) -> str | None:
    """The storage class of the temporary claim, by the source's class and the driver that cut the snapshot."""
    name = snapshot["spec"].get("volumeSnapshotClassName")
    provisioner = next((c.provisioner for c in classes.storage if c.name == described.storage_class), "")
    driver = next((c.driver for c in classes.snapshot if c.name == name), provisioner)
    return temporary_class(described.storage_class, driver, classes.storage)


def _events(work: Work, names: set[str], phase: str | None) -> list[dict[str, Any]]:
    """Events about a mover that has not started; they are many in a namespace, so they are not read otherwise."""
    if phase != "Pending":
        return []
    events = work.account.list(EVENTS, work.namespace)
    return [event for event in events if (event.get("regarding") or {}).get("name") in names]


def _log_tail(work: Work, pod: Object) -> str:
    try:
        return work.account.log(work.namespace, pod["metadata"]["name"], CONTAINER, _LOG_LINES)
    except ApiError:
        return ""  # the log only shows progress; the next look will have it


def _leaving(obj: Object) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))
