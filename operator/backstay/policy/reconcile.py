"""BackupPolicy: its storage usable, its schedule sound, and a Backup ordered for each slot."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from backstay.api.backup import Backup
from backstay.api.meta import Condition, find_condition, parse, set_condition, to_json
from backstay.api.names import API_VERSION, POLICY_LABEL, backup_name
from backstay.api.policy import BackupPolicy, BackupPolicyStatus
from backstay.api.storage import BackupStorage
from backstay.kube.enrolment import Enrolment, ensure_enrolled
from backstay.kube.event import regarding
from backstay.kube.resource import BACKUPS, POLICIES, STORAGES
from backstay.kube.runtime import Runtime
from backstay.policy.due import Decision, decide
from backstay.policy.schedule import InvalidScheduleError
from backstay.storage.readiness import READY, Refusal

logger = logging.getLogger(__name__)

#: The longest pause between two looks, in seconds.
LONGEST_PAUSE = 60.0
#: The pause while the storage or the namespace is not usable: its recovery is not told to us.
UNREADY_PAUSE = 10.0


def reconcile(runtime: Runtime, namespace: str, name: str) -> float | None:
    """Look at one BackupPolicy; the result is the seconds until the next look, None when it is gone."""
    found = runtime.client.find(POLICIES, name, namespace)
    if found is None or found["metadata"].get("deletionTimestamp"):
        return None
    policy = parse(BackupPolicy, found)
    now = runtime.now()
    backups = _backups(runtime, policy)
    refusal = refuse(policy, ensure_enrolled(runtime, namespace), _storage(runtime, policy))
    try:
        decision = decide(
            policy.spec, policy.status, policy.metadata.creation_timestamp or now, now, running=is_running(backups)
        )
    except InvalidScheduleError as error:
        # Told before anything else: only an edit of the policy itself mends it.
        refusal = Refusal("InvalidSchedule", str(error))
    if refusal:
        decision = Decision()
    ordered = _order(runtime, policy, decision.run) if decision.run else ""
    status = build_status(policy, decision, refusal, backups, ordered, now)
    _report(runtime, found, policy, status)
    if refusal:
        return UNREADY_PAUSE
    return _pause(decision, now)


def refuse(policy: BackupPolicy, enrolment: Enrolment, storage: BackupStorage | None) -> Refusal | None:
    """Why backups of this policy cannot run, whatever its schedule says; None when they can."""
    name = policy.spec.storage.name
    if not enrolment.ok:
        return Refusal(enrolment.reason, enrolment.message)
    if storage is None:
        return Refusal(
            "StorageNotFound",
            f"BackupStorage {name!r} does not exist in namespace {policy.metadata.namespace!r}: create it or correct "
            "spec.storage.name",
        )
    if storage.spec.access_mode == "ReadOnly":
        return Refusal(
            "StorageReadOnly",
            f"BackupStorage {name!r} is ReadOnly: name one whose spec.accessMode is ReadWrite in spec.storage.name",
        )
    ready = find_condition(storage.status.conditions, READY)
    if ready is None:
        return Refusal("StorageNotReady", f"BackupStorage {name!r} has not been looked at yet; this takes some seconds")
    if ready.status != "True":
        return Refusal("StorageNotReady", f"BackupStorage {name!r} is not ready: {ready.reason}: {ready.message}")
    return None


def is_running(backups: Sequence[Backup]) -> bool:
    """Whether one of the policy's backups has not ended: two of one application would disturb each other."""
    return any(_outcome(backup) == "Unknown" for backup in backups if backup.metadata.deletion_timestamp is None)


def build_backup(policy: BackupPolicy, slot: datetime, cluster: str) -> dict[str, Any]:
    """The order for one slot; its name is the slot's, so that it can be given only once."""
    namespace = policy.metadata.namespace
    return {
        "apiVersion": API_VERSION,
        "kind": BACKUPS.kind,
        "metadata": {
            "name": backup_name(cluster, namespace, policy.metadata.name, slot),
            "namespace": namespace,
            "labels": {POLICY_LABEL: policy.metadata.name},
        },
        "spec": {"capture": {"policy": policy.metadata.name}},
    }


def build_status(
    policy: BackupPolicy,
    decision: Decision,
    refusal: Refusal | None,
    backups: Sequence[Backup],
    ordered: str,
    now: datetime,
) -> BackupPolicyStatus:
    """The policy's status after this look, in which the Backup `ordered` was created (empty: none)."""
    if refusal:
        condition = Condition(READY, "False", refusal.reason, refusal.message)
    else:
        condition = Condition(READY, "True", *_words(policy, decision))
    condition = msgspec.structs.replace(condition, observed_generation=policy.metadata.generation)
    newest = max(backups, key=_age, default=None)
    successes = [b.status.completion_time for b in backups if _outcome(b) == "True" and b.status.completion_time]
    # What was once true stays when the Backup objects that told it are deleted.
    success = max(
        [*successes, *([policy.status.last_success_time] if policy.status.last_success_time else [])], default=None
    )
    return BackupPolicyStatus(
        conditions=set_condition(policy.status.conditions, condition, now),
        last_schedule_time=decision.run or policy.status.last_schedule_time,
        next_schedule_time=decision.next,
        last_backup=ordered or (newest.metadata.name if newest else policy.status.last_backup),
        last_success_time=success,
    )


def _words(policy: BackupPolicy, decision: Decision) -> tuple[str, str]:
    if policy.spec.schedule is None:
        return "OnDemand", "no schedule: a backup runs when a Backup object with spec.capture.policy is created"
    if policy.spec.suspend:
        return "Suspended", "the schedule is paused by spec.suspend; backups on demand still run"
    if decision.waiting:
        return "Waiting", "a slot of the schedule has come; its backup begins when the one that is running has ended"
    return "Scheduled", "backups run as the schedule says"


def _order(runtime: Runtime, policy: BackupPolicy, slot: datetime) -> str:
    """Create the slot's Backup, unless an earlier try, killed before it wrote the status, did so; give its name."""
    runtime.leading()
    body = build_backup(policy, slot, runtime.cluster_id)
    runtime.client.as_account(policy.metadata.namespace).ensure(BACKUPS, body)
    name = str(body["metadata"]["name"])
    logger.info("BackupPolicy %s/%s: ordered Backup %s", policy.metadata.namespace, policy.metadata.name, name)
    message = f"Backup {name} ordered for {slot:%Y-%m-%d %H:%M} UTC"
    runtime.client.event(regarding(POLICIES, policy.metadata), "Normal", "BackupOrdered", message, "Schedule")
    return name


def _report(runtime: Runtime, found: dict[str, Any], policy: BackupPolicy, status: BackupPolicyStatus) -> None:
    if status == policy.status:
        return
    runtime.client.replace_status(POLICIES, found, to_json(status))
    old, new = find_condition(policy.status.conditions, READY), find_condition(status.conditions, READY)
    if new and (old is None or (old.status, old.reason) != (new.status, new.reason)):
        kind = "Normal" if new.status == "True" else "Warning"
        logger.info(
            "BackupPolicy %s/%s: %s: %s", policy.metadata.namespace, policy.metadata.name, new.reason, new.message
        )
        runtime.client.event(regarding(POLICIES, policy.metadata), kind, new.reason, new.message, "Schedule")


def _pause(decision: Decision, now: datetime) -> float:
    if decision.waiting:
        return 5.0
    if decision.next is None:
        return LONGEST_PAUSE
    # A little late rather than early: looking before the slot has come would find nothing to do.
    return min(LONGEST_PAUSE, max(0.0, (decision.next - now).total_seconds()) + 0.05)


def _backups(runtime: Runtime, policy: BackupPolicy) -> list[Backup]:
    """The captures that this policy, or somebody for it, has ordered."""
    backups = [parse(Backup, found) for found in runtime.client.list(BACKUPS, policy.metadata.namespace)]
    return [b for b in backups if b.spec.capture and b.spec.capture.policy == policy.metadata.name]


def _storage(runtime: Runtime, policy: BackupPolicy) -> BackupStorage | None:
    found = runtime.client.find(STORAGES, policy.spec.storage.name, policy.metadata.namespace)
    return parse(BackupStorage, found) if found else None


def _outcome(backup: Backup) -> str:
    """Status of the condition Succeeded; a Backup that nobody has looked at yet is about to run."""
    succeeded = find_condition(backup.status.conditions, "Succeeded")
    return succeeded.status if succeeded else "Unknown"


def _age(backup: Backup) -> tuple[str, str]:
    created = backup.metadata.creation_timestamp
    return (created.isoformat() if created else "", backup.metadata.name)
