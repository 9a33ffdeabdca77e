"""What a Restore will do: one step an object, in waves. Pure: everything observed comes in as arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import msgspec

from backstay.api.names import COMPONENT_LABEL, RESTORED_LABEL
from backstay.api.restore_point import CapturedVolume
from backstay.kube.resource import Resource
from backstay.restore.contents import Contents, Identity, StoredObject
from backstay.restore.errors import RestoreError
from backstay.restore.strip import LAST_APPLIED, Object
from backstay.restore.translate import Target, translate
from backstay.restore.waves import Wave, wave_of
from backstay.volumes.claims import claims_of_pod


class Action(StrEnum):
    """CREATE: is absent. MADE: this Restore has created it. SAME: exists, equal to the restore point's.

    KEEP: exists and differs, or holds data of its own. REFUSE: cannot be made here.
    """

    CREATE = "Create"
    MADE = "Made"
    SAME = "Same"
    KEEP = "Keep"
    REFUSE = "Refuse"


@dataclass(frozen=True)
class Step:
    """One object. ``document`` is the JSON to create; ``message`` tells why a step is REFUSE, or what became of it."""

    identity: Identity
    wave: Wave
    action: Action
    resource: Resource | None = None
    document: bytes = b""
    message: str = ""


@dataclass(frozen=True)
class Blocker:
    """Why nothing at all may be made: a CamelCase word, and what to do about it."""

    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """All steps, in the order of their waves.

    ``blockers``: empty, or nothing may be made. ``terminating``: objects in the way that are just being deleted.
    """

    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    terminating: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def count(self, *actions: Action) -> int:
        """How many steps have one of these actions."""
        return sum(step.action in actions for step in self.steps)

    def names(self, action: Action) -> list[str]:
        """The objects of one action, as ``Kind name``, sorted."""
        return sorted(str(step.identity) for step in self.steps if step.action == action)


@dataclass(frozen=True)
class Observed:
    """The namespace and cluster as they are.

    ``served``: kinds by (group, kind). ``existing``: the live objects of the point's identities. ``claim_users``: by
    claim, the pods that name it and have not ended.
    """

    served: Mapping[tuple[str, str], Resource]
    existing: Mapping[Identity, Object]
    claim_users: Mapping[str, Sequence[str]]


def make_plan(contents: Contents, observed: Observed, target: Target, restore_uid: str) -> Plan:
    """Compare what the point holds with what is there."""
    steps: list[Step] = []
    warnings: list[str] = []
    blockers: list[Blocker] = []
    terminating: list[str] = []
    for stored in contents.objects:
        existing = observed.existing.get(stored.identity)
        try:
            translation = translate(stored.body(), target)
        except RestoreError as error:
            if existing is None:
                blockers.append(Blocker(error.reason, str(error)))
            steps.append(_step(stored, Action.KEEP if existing else Action.REFUSE, message=str(error)))
            continue
        step = _decide(stored, translation.body, existing, observed, target, restore_uid)
        steps.append(step)
        if existing and existing["metadata"].get("deletionTimestamp"):
            terminating.append(str(stored.identity))
        if step.action == Action.CREATE:
            warnings += translation.warnings
            blockers += _claim_in_use(stored.identity, observed)
    return Plan(
        steps=tuple(sorted(steps, key=lambda step: (step.wave, str(step.identity)))),
        warnings=tuple(warnings),
        blockers=tuple(dict.fromkeys(blockers)),
        terminating=tuple(terminating),
        left_out=contents.left_out,
    )


def _decide(
    stored: StoredObject, body: Object, existing: Object | None, observed: Observed, target: Target, restore_uid: str
) -> Step:
    identity = stored.identity
    resource = observed.served.get((identity.group, identity.kind))
    if resource is None:
        missing = f"this cluster serves no {identity.kind} of {identity.group or 'the core API'}"
        return _step(
            stored, Action.REFUSE, message=f"{missing}; install its CustomResourceDefinition or operator first"
        )
    if not resource.namespaced:
        return _step(stored, Action.REFUSE, message=f"{identity.kind} is of the whole cluster, not of a namespace")
    if existing is not None:
        return _step(stored, _existing_action(identity, body, existing, target, restore_uid), resource)
    # Created in the version it was captured in: the API server converts it to the one that it stores.
    resource = replace(resource, version=stored.version)
    body["metadata"].setdefault("labels", {})[RESTORED_LABEL] = restore_uid
    return _step(stored, Action.CREATE, resource, document=msgspec.json.encode(body))


def _existing_action(identity: Identity, body: Object, existing: Object, target: Target, restore_uid: str) -> Action:
    if is_made_by(existing, restore_uid):
        return Action.MADE
    if wave_of(identity.group, identity.kind) == Wave.CLAIMS:
        return Action.KEEP  # equal claims do not hold equal data
    return Action.SAME if _is_equal(body, existing, target) else Action.KEEP


def _is_equal(body: Object, existing: Object, target: Target) -> bool:
    """Whether the live object is what the Restore would make, apart from how kubectl once wrote it down."""
    here = replace(target, source_namespace=target.namespace, class_mapping={})
    try:
        live = translate(_copy(existing), here).body
    except RestoreError:
        return False
    return _without_last_applied(live) == _without_last_applied(body)


def _without_last_applied(body: Object) -> Object:
    metadata = body["metadata"]
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    return {**body, "metadata": {**metadata, "annotations": annotations}}


def is_made_by(existing: Mapping[str, Any], restore_uid: str) -> bool:
    """Whether a live object is this Restore's own work, of this run or one before a restart of the operator."""
    return (existing["metadata"].get("labels") or {}).get(RESTORED_LABEL) == restore_uid


def claim_users(pods: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By claim, the names of the pods that mount it or wait for it; movers and pods that have ended do not count."""
    users: dict[str, list[str]] = {}
    for pod in pods:
        metadata = pod["metadata"]
        ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if ended or COMPONENT_LABEL in (metadata.get("labels") or {}):
            continue
        for claim in claims_of_pod(pod):
            users.setdefault(claim, []).append(metadata["name"])
    return users


def _claim_in_use(identity: Identity, observed: Observed) -> list[Blocker]:
    """A pod that waits for a claim would start with it at once, and write into it while it is filled."""
    if wave_of(identity.group, identity.kind) != Wave.CLAIMS or not observed.claim_users.get(identity.name):
        return []
    pod = observed.claim_users[identity.name][0]
    waits = f"Pod {pod} waits for PersistentVolumeClaim {identity.name} and would start before its data are back."
    return [Blocker("PlanBlocked", f"{waits} Scale its workload to zero or delete it, then restore.")]


def kept_data_warnings(plan: Plan, volumes: Iterable[CapturedVolume]) -> list[str]:
    """A kept claim looks restored, but is not; nobody may believe that its data came back."""
    kept = {step.identity.name for step in plan.steps if step.wave == Wave.CLAIMS and step.action == Action.KEEP}
    return [
        f"PersistentVolumeClaim {volume.claim} existed and was kept: its data were NOT restored"
        for volume in volumes
        if volume.claim in kept and volume.tree
    ]


def kept_warnings(plan: Plan) -> list[str]:
    """Objects that exist in another form than the point holds."""
    return [
        f"{step.identity} existed, differs from the restore point and was kept"
        for step in plan.steps
        if step.action == Action.KEEP and step.wave != Wave.CLAIMS
    ]


def _step(
    stored: StoredObject, action: Action, resource: Resource | None = None, document: bytes = b"", message: str = ""
) -> Step:
    identity = stored.identity
    return Step(identity, wave_of(identity.group, identity.kind), action, resource, document, message)


def _copy(body: Object) -> Object:
    copied: Object = msgspec.json.decode(msgspec.json.encode(body))
    return copied
