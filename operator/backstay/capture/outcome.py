"""A Backup's status in each of its states: running, waiting, finishing, over. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from backstay.api.backup import Backup, BackupStatus, VolumeStatus
from backstay.api.meta import Condition, find_condition, set_condition
from backstay.capture.stage import DONE, FAILED, FINISHING, SKIPPED, SUCCEEDED, WAITING
from backstay.volumes.amount import amount

COMPLETED, WITH_WARNINGS = "Completed", "CompletedWithWarnings"

#: How long a Backup waits for what is outside of it (an unreachable storage, say) before it fails.
PATIENCE = timedelta(minutes=30)
#: How long it insists on the removal of its temporary objects before it ends and says that they are there.
CLEANING_PATIENCE = timedelta(minutes=10)

#: Status keeps the first few warnings; an object must stay small.
MOST_WARNINGS = 50
LONGEST_WARNING = 400


def running(backup: Backup, status: BackupStatus, reason: str, message: str, now: datetime) -> BackupStatus:
    """The status while all goes well; ``reason`` is the step."""
    phase = "Running" if status.effective else "Pending"
    conditions = tuple(c for c in status.conditions if c.type != WAITING)
    return _with(
        replace(status, conditions=conditions, phase=phase, message=message), backup, "Unknown", reason, message, now
    )


def waiting(backup: Backup, status: BackupStatus, reason: str, message: str, now: datetime) -> BackupStatus:
    """The status while something outside has to come right; it becomes a failure when patience is at its end."""
    since = waiting_since(status)
    if since is not None and now - since > PATIENCE:
        minutes = int(PATIENCE.total_seconds() // 60)
        return finishing(backup, status, reason, f"{message} (given up after {minutes} minutes)", now)
    condition = Condition(WAITING, "True", reason, message, backup.metadata.generation)
    status = replace(
        status,
        conditions=set_condition(status.conditions, condition, now),
        phase="Running" if status.effective else "Pending",
        message=message,
    )
    return _with(status, backup, "Unknown", reason, message, now)


def waiting_since(status: BackupStatus) -> datetime | None:
    """Since when the Backup has been waiting, None when it is not."""
    condition = find_condition(status.conditions, WAITING)
    return condition.last_transition_time if condition else None


def finishing(backup: Backup, status: BackupStatus, reason: str, message: str, now: datetime) -> BackupStatus:
    """The outcome is decided, temporary objects are still to be removed.

    ``reason`` is Completed, CompletedWithWarnings, or the failure's.
    """
    condition = Condition(FINISHING, "True", reason, message, backup.metadata.generation)
    conditions = tuple(c for c in status.conditions if c.type != WAITING)
    status = replace(status, conditions=set_condition(conditions, condition, now), phase="Running", message=message)
    return _with(status, backup, "Unknown", "CleaningUp", message, now)


def over(backup: Backup, now: datetime, left: Sequence[str] = ()) -> BackupStatus:
    """The end, from the outcome that ``finishing`` wrote; ``left`` names temporary objects that are still there."""
    status = backup.status
    decided = find_condition(status.conditions, FINISHING)
    if decided is None:
        raise ValueError(f"the outcome of Backup {backup.metadata.name} has not been decided")
    reason, message = decided.reason, decided.message
    if left:
        remark = f"temporary objects could not be removed and go when this Backup is deleted: {', '.join(left)}"
        status = replace(status, warnings=bounded([*status.warnings, remark]))
        if reason == COMPLETED:
            reason = WITH_WARNINGS
    good = reason in (COMPLETED, WITH_WARNINGS)
    status = replace(
        status,
        conditions=tuple(c for c in status.conditions if c.type not in (FINISHING, WAITING)),
        phase=reason if good else "Failed",
        message=message,
        completion_time=now.replace(microsecond=0),
        progress="",
    )
    return _with(status, backup, "True" if good else "False", reason, message, now)


def verdict(status: BackupStatus) -> tuple[str, str]:
    """Reason and message of a Backup whose restore point is committed, from what its status tells."""
    moved = [volume for volume in status.volumes if volume.phase == DONE]
    count = status.resources.count if status.resources else 0
    volumes = f"{len(moved)} {'volume' if len(moved) == 1 else 'volumes'}"
    size = f", {amount(sum(volume.bytes for volume in moved))}" if moved else ""
    what = f"captured {count} {'object' if count == 1 else 'objects'} and {volumes}{size}"
    told = list(all_warnings(status))
    if not told:
        return COMPLETED, what
    more = f" and {len(told) - 1} more; see status.warnings and status.volumes" if len(told) > 1 else ""
    return WITH_WARNINGS, f"{what}, with warnings: {told[0]}{more}"


def all_warnings(status: BackupStatus) -> Iterable[str]:
    """Every warning of the Backup and of its volumes, as far as kept."""
    for volume in status.volumes:
        for warning in volume.warnings:
            yield f"{volume.claim}: {warning}"
    yield from status.warnings


def failed_volume(volumes: Iterable[VolumeStatus]) -> VolumeStatus | None:
    """The first volume that failed, if any."""
    return next((volume for volume in volumes if volume.phase == FAILED), None)


def progress_text(volumes: Sequence[VolumeStatus]) -> str:
    """How far the movers are, as in ``3 of 4 volumes, 1.2 GiB``."""
    wanted = [volume for volume in volumes if volume.phase != SKIPPED]
    done = sum(volume.phase == DONE for volume in wanted)
    return f"{done} of {len(wanted)} volumes, {amount(sum(volume.bytes for volume in wanted))}"


def bounded(warnings: Iterable[str]) -> tuple[str, ...]:
    """The first few warnings, each once and of bearable length; the last one tells how many were left out."""
    unique = list(dict.fromkeys(warnings))
    kept = [w if len(w) <= LONGEST_WARNING else w[: LONGEST_WARNING - 1] + "…" for w in unique[:MOST_WARNINGS]]
    if len(unique) > MOST_WARNINGS:
        kept[-1] = f"and {len(unique) - MOST_WARNINGS + 1} more warnings"
    return tuple(kept)


def _with(
    status: BackupStatus, backup: Backup, succeeded: str, reason: str, message: str, now: datetime
) -> BackupStatus:
    condition = Condition(SUCCEEDED, succeeded, reason, message, backup.metadata.generation)
    return replace(status, conditions=set_condition(status.conditions, condition, now))
