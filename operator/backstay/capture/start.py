"""The first stage: is the order sound, and how is each of the application's volumes to be read?

Its result freezes everything that the policy says, so that a later edit or the policy's deletion changes nothing in a
running Backup.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from backstay.api.backup import Effective, VolumeStatus
from backstay.api.meta import find_condition, parse
from backstay.api.policy import BackupPolicy
from backstay.api.storage import BackupStorage
from backstay.capture import inventory, stage
from backstay.capture.work import SLOW_POLL, Step, Work
from backstay.kube.enrolment import Enrolment, ensure_enrolled
from backstay.kube.errors import ForbiddenError
from backstay.kube.resource import POLICIES, STORAGES
from backstay.volumes.claims import ClaimFacts
from backstay.volumes.method import LIVE, SKIP, SNAPSHOT, Classes, decide_method

#: How long what is missing may still come: objects of one file are applied one after the other.
GRACE = timedelta(seconds=10)


@dataclass(frozen=True)
class Verdict:
    """``kind`` is Go, Wait (somebody's move; patience is counted) or Refuse."""

    kind: str
    reason: str = ""
    message: str = ""


GO = Verdict("Go")


def examine(
    policy_name: str,
    namespace: str,
    enrolment: Enrolment,
    policy: BackupPolicy | None,
    storage: BackupStorage | None,
    age: timedelta,
) -> Verdict:
    """Whether a Backup of this age can start. Pure; objects that do not exist are None."""
    missing = "Wait" if age < GRACE else "Refuse"
    if not enrolment.ok:
        return Verdict(missing, enrolment.reason, enrolment.message)
    if policy is None:
        return Verdict(
            missing,
            "PolicyNotFound",
            f"BackupPolicy {policy_name!r} does not exist in namespace {namespace!r}; "
            "see: kubectl get backuppolicies, and order another Backup",
        )
    if storage is None:
        return Verdict(
            missing,
            "StorageNotFound",
            f"BackupPolicy {policy_name!r} names BackupStorage {policy.spec.storage.name!r}, which does not exist in "
            f"namespace {namespace!r}; create it, or correct spec.storage of the policy",
        )
    name = storage.metadata.name
    if storage.spec.access_mode != "ReadWrite":
        return Verdict(
            "Refuse",
            "StorageReadOnly",
            f"BackupStorage {name!r} is {storage.spec.access_mode}; a Backup needs one with accessMode ReadWrite",
        )
    ready = find_condition(storage.status.conditions, "Ready")
    if ready is None or ready.status != "True":
        why = f": {ready.message}" if ready and ready.message else ""
        return Verdict("Wait", "StorageNotReady", f"BackupStorage {name!r} is not ready{why}")
    return GO


def plan_volume(facts: ClaimFacts, effective: Effective, classes: Classes) -> VolumeStatus:
    """How one claim is to be read, as the status says it."""
    decision = decide_method(facts, effective.volumes, classes)
    phase = {SNAPSHOT: stage.PENDING, LIVE: stage.PENDING, SKIP: stage.SKIPPED}.get(decision.method, stage.FAILED)
    warnings = [decision.reason] if decision.degraded else []
    return VolumeStatus(
        claim=facts.name,
        method=decision.method,
        phase=phase,
        consistency=decision.method if phase == stage.PENDING else "",
        warnings=tuple(warnings),
        warning_count=len(warnings),
        message=decision.reason,
    )


def start(work: Work) -> Step:
    """Check, freeze, find the claims and decide."""
    client, status = work.runtime.client, work.status
    enrolment = ensure_enrolled(work.runtime, work.namespace)
    policy = _find(client.find(POLICIES, work.policy, work.namespace), BackupPolicy)
    storage = policy and _find(client.find(STORAGES, policy.spec.storage.name, work.namespace), BackupStorage)
    age = work.now - (work.backup.metadata.creation_timestamp or work.now)
    verdict = examine(work.policy, work.namespace, enrolment, policy, storage, age)
    if verdict.kind == "Wait":
        return Step(work.waiting(status, verdict.reason, verdict.message), SLOW_POLL if age > GRACE else 1.0)
    if verdict.kind == "Refuse":
        return Step(work.finishing(status, verdict.reason, verdict.message), 0.1)
    assert policy is not None
    return _plan(work, policy)


def _plan(work: Work, policy: BackupPolicy) -> Step:
    spec = policy.spec
    effective = Effective(spec.storage.name, spec.service_account_name, spec.selector, spec.volumes)
    status = replace(
        work.status,
        effective=effective,
        storage=spec.storage.name,
        application=policy.metadata.name,
        start_time=_whole(work.now),
    )
    reader = work.runtime.client.as_account(work.namespace, spec.service_account_name)
    try:
        view = inventory.view_namespace(reader, work.namespace, spec.selector)
    except ForbiddenError as error:
        message = account_refused(spec.service_account_name, error.message)
        return Step(work.finishing(status, "AccountForbidden", message), 0.1)
    facts = inventory.facts_of(work.runtime.client, view, inventory.claims_of_application(view, spec.selector))
    classes = inventory.read_classes(work.runtime.client)
    volumes = tuple(plan_volume(one, effective, classes) for one in facts.values())
    status = replace(status, volumes=volumes)
    if failed := [volume for volume in volumes if volume.phase == stage.FAILED]:
        message = "; ".join(f"claim {volume.claim}: {volume.message}" for volume in failed)
        return Step(work.finishing(status, "VolumeNotReadable", message), 0.1)
    number = sum(volume.phase == stage.PENDING for volume in volumes)
    return Step(work.running(status, "Cutting", f"cutting {number} volumes and reading the resources"), 0.1)


def account_refused(account: str, words: str) -> str:
    """What is said when the application cannot be read as the account that the policy names."""
    if "cannot impersonate" in words:
        advice = "a cluster administrator allows its use by the chart's value serviceAccountNames"
    else:
        advice = "give that account the rights"
    return (
        f"the application cannot be read as ServiceAccount {account!r}: {words}; {advice}, "
        "or name another in the policy's spec.serviceAccountName"
    )


def _find(found: dict[str, Any] | None, kind: Any) -> Any:
    return parse(kind, found) if found else None


def _whole(time: datetime) -> datetime:
    return time.replace(microsecond=0)
