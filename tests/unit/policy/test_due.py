"""Whether a backup is due, with the clock in the test's hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from backstay.api.meta import Reference
from backstay.api.policy import BackupPolicySpec, BackupPolicyStatus, Schedule
from backstay.policy.due import Decision, decide


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}").replace(tzinfo=UTC)


@dataclass(frozen=True)
class Case:
    now: str
    run: str | None
    next: str | None = "25 02:00"
    last: str | None = "23 02:00"
    created: str = "01 00:00"
    running: bool = False
    suspend: bool = False
    cron: str | None = "0 2 * * *"
    waiting: bool = False


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case("24 01:59:59", None, next="24 02:00"), id="not-yet"),
        pytest.param(Case("24 02:00:00", "24 02:00"), id="on-time"),
        pytest.param(Case("24 02:00:00", None, last="24 02:00"), id="done-already"),
        pytest.param(Case("24 17:00", "24 02:00"), id="late-after-a-pause-of-ours"),
        pytest.param(Case("24 17:00", "24 02:00", last="10 02:00"), id="of-many-missed-only-the-newest"),
        pytest.param(
            Case("24 17:00", None, last=None, created="24 12:00"), id="slots-before-its-creation-are-not-its-own"
        ),
        pytest.param(Case("25 02:00", "25 02:00", last=None, created="24 12:00", next="26 02:00"), id="first-ever"),
        pytest.param(Case("24 02:00", None, running=True, waiting=True), id="waits-for-a-running-backup"),
        pytest.param(Case("24 03:10", "24 02:00"), id="and-comes-when-that-has-ended"),
        pytest.param(Case("24 01:00", None, next="24 02:00", running=True), id="running-and-nothing-due"),
        pytest.param(Case("24 17:00", None, next=None, suspend=True), id="suspended"),
        pytest.param(Case("24 17:00", None, next=None, cron=None), id="on-demand-only"),
        pytest.param(
            Case("24 17:00", None, next="25 02:00", last="24 18:00"), id="a-clock-put-back-runs-nothing-twice"
        ),
    ],
)
def test_decisions(case: Case) -> None:
    spec = BackupPolicySpec(
        Reference("main"), schedule=Schedule(case.cron) if case.cron else None, suspend=case.suspend
    )
    status = BackupPolicyStatus(last_schedule_time=at(case.last) if case.last else None)

    decision = decide(spec, status, at(case.created), at(case.now), running=case.running)

    assert decision == Decision(
        run=at(case.run) if case.run else None, next=at(case.next) if case.next else None, waiting=case.waiting
    )
