"""What a policy says of itself, and what it orders."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from backstay.api.backup import Backup, BackupSpec, BackupStatus, Capture
from backstay.api.meta import Condition, Meta, Reference
from backstay.api.policy import BackupPolicy, BackupPolicySpec, BackupPolicyStatus, Schedule
from backstay.api.storage import S3, BackupStorage, BackupStorageSpec, BackupStorageStatus, PasswordReference
from backstay.kube.enrolment import Enrolment
from backstay.policy.due import Decision
from backstay.policy.reconcile import build_backup, build_status, is_running, refuse

NOW = datetime(2026, 11, 24, 2, 0, 30, tzinfo=UTC)
POLICY = BackupPolicy(
    Meta("shop", "shop", generation=3), BackupPolicySpec(Reference("main"), schedule=Schedule("0 2 * * *"))
)


def storage(status: str = "True", reason: str = "Ready", mode: str = "ReadWrite") -> BackupStorage:
    return BackupStorage(
        Meta("main", "shop"),
        BackupStorageSpec(S3("b"), PasswordReference("p"), access_mode=mode),
        BackupStorageStatus(conditions=(Condition("Ready", status, reason, "words"),)),
    )


def backup(name: str, outcome: str | None, **meta: Any) -> Backup:
    conditions = (Condition("Succeeded", outcome, "Any"),) if outcome else ()
    status = BackupStatus(conditions=conditions, completion_time=NOW if outcome == "True" else None)
    return Backup(Meta(name, "shop", **meta), BackupSpec(capture=Capture("shop")), status)


@pytest.mark.parametrize(
    ("enrolment", "found", "reason", "words"),
    [
        (Enrolment(True), storage(), None, ""),
        (
            Enrolment(True),
            None,
            "StorageNotFound",
            "BackupStorage 'main' does not exist in namespace 'shop': create it",
        ),
        (Enrolment(True), storage("False", "AccessDenied"), "StorageNotReady", "AccessDenied: words"),
        (Enrolment(True), storage(mode="ReadOnly"), "StorageReadOnly", "spec.storage.name"),
        (Enrolment(False, "NotEnrolled", "not open"), storage(), "NotEnrolled", "not open"),
    ],
)
def test_a_policy_that_cannot_run_says_why(
    enrolment: Enrolment, found: BackupStorage | None, reason: str | None, words: str
) -> None:
    refusal = refuse(POLICY, enrolment, found)

    assert (refusal.reason if refusal else None) == reason
    assert words in (refusal.message if refusal else "")


@pytest.mark.parametrize(
    ("outcomes", "running"),
    [([], False), (["True", "False"], False), (["True", "Unknown"], True), ([None], True)],
)
def test_a_backup_runs_until_its_condition_says_otherwise(outcomes: list[str | None], running: bool) -> None:
    assert is_running([backup(str(n), outcome) for n, outcome in enumerate(outcomes)]) is running


def test_the_same_slot_has_the_same_name_on_every_try() -> None:
    first, again = (build_backup(POLICY, datetime(2026, 11, 24, 2, tzinfo=UTC), "cluster") for _ in range(2))

    assert first == again
    assert first["metadata"]["name"].endswith("-20261124t020000z")
    assert first["metadata"]["labels"] == {"backstay.dev/policy": "shop"}
    assert first["spec"] == {"capture": {"policy": "shop"}}


def test_the_status_tells_the_newest_backup_and_the_last_success() -> None:
    backups = [
        backup("old", "True", creation_timestamp=datetime(2026, 11, 23, tzinfo=UTC)),
        backup("new", "False", creation_timestamp=datetime(2026, 11, 24, tzinfo=UTC)),
    ]

    status = build_status(POLICY, Decision(next=NOW), None, backups, "", NOW)

    assert (status.last_backup, status.last_success_time, status.next_schedule_time) == ("new", NOW, NOW)
    (ready,) = status.conditions
    assert (ready.status, ready.reason, ready.observed_generation) == ("True", "Scheduled", 3)


def test_a_success_is_remembered_when_its_backup_object_is_deleted() -> None:
    policy = msgspec.structs.replace(POLICY, status=BackupPolicyStatus(last_success_time=NOW, last_backup="old"))

    status = build_status(policy, Decision(), None, [], "", NOW)

    assert (status.last_backup, status.last_success_time) == ("old", NOW)


def test_the_slot_is_handled_once_its_backup_was_ordered() -> None:
    status = build_status(POLICY, Decision(run=NOW), None, [], "shop-1", NOW)

    assert (status.last_schedule_time, status.last_backup) == (NOW, "shop-1")
