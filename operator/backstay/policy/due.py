"""Whether a policy's backup is due now. Pure: the clock is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from backstay.api.policy import BackupPolicySpec, BackupPolicyStatus
from backstay.policy.schedule import Slots


@dataclass(frozen=True)
class Decision:
    """``run`` is the slot to be run now; ``next`` is the next one to come; ``waiting``: a slot waits for a backup."""

    run: datetime | None = None
    next: datetime | None = None
    waiting: bool = False


def decide(
    spec: BackupPolicySpec, status: BackupPolicyStatus, created: datetime, now: datetime, *, running: bool
) -> Decision:
    """What the schedule wants at `now`; all times are in UTC.

    `created` is when the policy was made: slots before it are none of its own. Slots that were missed, because the
    operator was down, the policy suspended or a backup still `running`, are made up for by one backup, of the newest.
    Raises InvalidScheduleError.
    """
    if spec.schedule is None:
        return Decision()
    slots = Slots.of(spec.schedule)
    if spec.suspend:
        return Decision()
    handled = max(created, status.last_schedule_time or created)
    newest = slots.newest(now)
    upcoming = slots.after(now)
    if newest <= handled:
        return Decision(next=upcoming)
    if running:
        return Decision(next=upcoming, waiting=True)
    return Decision(run=newest, next=upcoming)
