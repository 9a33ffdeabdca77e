"""The cut: the one moment that the restore point shows.

All VolumeSnapshots are created together, and the moment is their ``creationTime``, not ``readyToUse``: from then on the
application may go on. Only then are the resources read, and saved at once, so that nothing later depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from backstay.api.backup import ResourcesStatus, VolumeStatus
from backstay.api.names import RESTORE_POINT_FILE
from backstay.api.policy import VolumeRule
from backstay.api.restore_point import ApplicationIdentity, CapturedVolume
from backstay.capture import closure, inventory, restore_point, stage
from backstay.capture.outcome import bounded, waiting_since
from backstay.capture.selection import select
from backstay.capture.skipped import storage_secrets
from backstay.capture.temporaries import find_temporaries
from backstay.capture.work import POLL, Step, Work
from backstay.kube.errors import AlreadyExistsError
from backstay.kube.resource import CLAIMS, NAMESPACES, STORAGES, VOLUME_SNAPSHOTS
from backstay.volumes.claims import ClaimFacts
from backstay.volumes.identity import PSA_ENFORCE_LABEL, identity_for
from backstay.volumes.method import LIVE, SNAPSHOT, decide_method
from backstay.volumes.snapshot_specs import build_snapshot, temporary_name

Object = Mapping[str, Any]

#: How long the storage driver may take to cut.
DEADLINE = timedelta(minutes=10)
#: How long a kind whose server or conversion webhook is down is waited for.
LIST_PATIENCE = timedelta(minutes=2)
_PARALLEL = 8

UNQUIESCED = "read live while pods may have written to it, without hooks: its files may not belong to one moment"


@dataclass(frozen=True)
class CutState:
    """``time`` is the moment of the cut once all snapshots have one; ``failure`` says why that will never be; else
    ``message`` tells what is waited for.
    """

    time: datetime | None = None
    failure: str = ""
    message: str = ""


def cut_state(snapshots: Mapping[str, Object | None], now: datetime) -> CutState:
    """How far the cut is; ``snapshots`` are the VolumeSnapshots by claim, None where there is none yet."""
    waiting, failures, times = [], [], []
    for claim, snapshot in snapshots.items():
        status: Object = (snapshot or {}).get("status") or {}
        if time := _time(status.get("creationTime")):
            times.append(time)
            continue
        words = (status.get("error") or {}).get("message", "")
        waiting.append(f"claim {claim}" + (f" ({words})" if words else ""))
        created = _time((snapshot or {}).get("metadata", {}).get("creationTimestamp"))
        if created and now - created > DEADLINE:
            minutes = int(DEADLINE.total_seconds() // 60)
            why = words or "the CSI driver's snapshotter has not answered; is it running?"
            failures.append(f"the snapshot of claim {claim} was not cut within {minutes} minutes: {why}")
    if failures:
        return CutState(failure="; ".join(failures))
    if waiting:
        return CutState(message=f"waiting for the snapshots of {', '.join(waiting)}")
    return CutState(time=max(times, default=now))


def cut(work: Work) -> Step:
    """Create the snapshots that are missing, wait for all, then read and save the resources."""
    wanted = [v.claim for v in work.status.volumes if v.method == SNAPSHOT and not stage.is_final(v)]
    if wanted:
        found = find_temporaries(work.account, work.namespace, work.backup.metadata.uid).snapshots
        snapshots = {claim: found.get(temporary_name(work.backup.metadata.uid, claim)) for claim in wanted}
        if missing := [claim for claim, snapshot in snapshots.items() if snapshot is None]:
            return _create_snapshots(work, missing)
        state = cut_state(snapshots, work.now)
        if state.failure:
            return Step(work.finishing(work.status, "SnapshotFailed", state.failure), 0.1)
        if state.time is None:
            return Step(work.running(work.status, "Cutting", state.message), POLL)
        return _save_resources(work, state.time)
    return _save_resources(work, work.now)


def _create_snapshots(work: Work, claims: Sequence[str]) -> Step:
    view = inventory.view_namespace(work.reader, work.namespace, work.effective.selector)
    facts = inventory.facts_of(work.runtime.client, view, claims)
    classes = inventory.read_classes(work.runtime.client)
    bodies = []
    for claim in claims:
        wish = [VolumeRule(method=SNAPSHOT)]
        decision = decide_method(facts[claim], wish, classes) if claim in facts else None
        if decision is None or decision.method != SNAPSHOT:
            why = decision.reason if decision else "it was deleted"
            return Step(work.finishing(work.status, "VolumeNotReadable", f"claim {claim}: {why}"), 0.1)
        bodies.append(build_snapshot(work.owner, claim, decision.snapshot_class))
    work.runtime.leading()
    with ThreadPoolExecutor(_PARALLEL) as threads:
        list(threads.map(lambda body: _create(work, body), bodies))
    volumes = tuple(_in_phase(v, stage.CUTTING) if v.claim in claims else v for v in work.status.volumes)
    status = replace(work.status, volumes=volumes)
    return Step(work.running(status, "Cutting", f"cutting the snapshots of {', '.join(claims)}"), 0.5)


def _create(work: Work, body: dict[str, Any]) -> None:
    with suppress(AlreadyExistsError):  # of an earlier try: the name holds this Backup's UID
        work.account.create(VOLUME_SNAPSHOTS, body, namespace=work.namespace)


def _save_resources(work: Work, cut_time: datetime) -> Step:
    """Read the application, save it in the repository without a snapshot, and note its tree in the status."""
    client, namespace, effective = work.runtime.client, work.namespace, work.effective
    since = waiting_since(work.status)
    patient = since is None or work.now - since < LIST_PATIENCE
    selection = select(work.reader, client.discover(), namespace, effective.selector, patient=patient)
    kept_back = storage_secrets(client.list(STORAGES, namespace))
    reason = closure.SELECTED if effective.selector else closure.IN_NAMESPACE
    whole = closure.complete(selection, work.reader, namespace, reason=reason, kept_back=kept_back)
    view = inventory.view_namespace(work.reader, namespace, effective.selector)
    facts = inventory.facts_of(client, view, [volume.claim for volume in work.status.volumes])
    volumes, described = _note_facts(work.status.volumes, facts, _pod_security(work))
    planned = {volume.claim for volume in volumes}
    warnings = [*whole.warnings, *(new_claim_warning(name) for name in claims_captured(whole) if name not in planned)]

    files = restore_point.object_files(whole.objects)
    size = sum(map(len, files.values()))
    identity = ApplicationIdentity(work.runtime.cluster_id, namespace, work.policy)
    started = work.status.start_time or work.now
    point = restore_point.draft(
        work.backup, identity, client.version(), cut_time, started, whole.objects, size, described
    )
    work.runtime.leading()
    with work.repository(write=True).writer(work.holder) as writer:
        tree = writer.save_files({**files, RESTORE_POINT_FILE: restore_point.encode(point)}, cut_time)
        writer.flush()
    status = replace(
        work.status,
        cut_time=cut_time.replace(microsecond=0),
        resources=ResourcesStatus(count=len(whole.objects), bytes=size, tree=tree),
        volumes=volumes,
        warnings=bounded([*work.status.warnings, *warnings]),
    )
    return Step(work.running(status, "Moving", f"{len(whole.objects)} objects saved; moving the volumes' data"), 0.1)


def claims_captured(whole: closure.Closure) -> list[str]:
    """Names of the claims among the captured objects."""
    return [one.object["metadata"]["name"] for one in whole.objects if one.resource == CLAIMS]


def new_claim_warning(name: str) -> str:
    """What is said of a claim that was captured as an object but came too late for its data."""
    return f"claim {name} appeared while the Backup was cut: the claim is in this restore point, its data are not"


def _note_facts(
    volumes: Sequence[VolumeStatus], facts: Mapping[str, ClaimFacts], pod_security: str
) -> tuple[tuple[VolumeStatus, ...], tuple[CapturedVolume, ...]]:
    noted, described = [], []
    for volume in volumes:
        one = facts.get(volume.claim) or ClaimFacts(volume.claim)
        described.append(restore_point.describe_volume(volume, one))
        noted.append(_with_warnings(volume, volume_warnings(volume, one, pod_security)))
    return tuple(noted), tuple(described)


def volume_warnings(volume: VolumeStatus, facts: ClaimFacts, pod_security: str) -> list[str]:
    """What is less than perfect about the way a volume is going to be read."""
    if stage.is_final(volume):
        return []
    warnings = [UNQUIESCED] if volume.method == LIVE and facts.written else []
    user = restore_point.volume_user(facts)
    identity = identity_for(user.run_as if user else None, pod_security)
    return [*warnings, identity.warning] if identity.warning else warnings


def pod_security_of(namespace: Object | None) -> str:
    """The Pod Security level that a Namespace object enforces, empty for none."""
    return str(((namespace or {}).get("metadata", {}).get("labels") or {}).get(PSA_ENFORCE_LABEL, ""))


def _pod_security(work: Work) -> str:
    return pod_security_of(work.runtime.client.find(NAMESPACES, work.namespace))


def _with_warnings(volume: VolumeStatus, warnings: Sequence[str]) -> VolumeStatus:
    new = [warning for warning in warnings if warning not in volume.warnings]
    return replace(volume, warnings=bounded([*volume.warnings, *new]), warning_count=volume.warning_count + len(new))


def _in_phase(volume: VolumeStatus, phase: str) -> VolumeStatus:
    return replace(volume, phase=phase)


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
