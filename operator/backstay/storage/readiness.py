"""When a storage is tried again, and what its condition says meanwhile. Pure: the clock is passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from backstay.api.meta import Condition, find_condition, set_condition
from backstay.api.storage import BackupStorage, BackupStorageStatus
from backstay.repository.stores.s3 import Integrity

READY = "Ready"
#: Pause between two proofs that a storage can still be used; the longest one after a failure too.
LONGEST_PAUSE = timedelta(minutes=5)
#: The first pause after a failure; the pause grows with the time since it began.
FIRST_PAUSE = timedelta(seconds=15)
#: Broken restore points that a condition names.
_MOST_NAMED = 3


@dataclass(frozen=True)
class Refusal:
    """Why a storage cannot be used: a condition's reason, and a message with what to do."""

    reason: str
    message: str


_UPLOADS = {
    Integrity.SIGNATURE: "the server ignores the checksums of uploads, so that only their signatures prove them",
    Integrity.MD5: "the server ignores the SHA-256 of uploads, so that each is sent with its MD5 too",
    Integrity.READ_BACK: "the server does not verify uploads, so that each is read back, which takes twice as long",
}


def next_probe(storage: BackupStorage, now: datetime) -> datetime:
    """When the storage is to be tried next; `now` when it was not tried yet in its present form."""
    ready = find_condition(storage.status.conditions, READY)
    last = storage.status.last_probe_time
    if ready is None or last is None or ready.observed_generation != storage.metadata.generation:
        return now
    if ready.status == "True":
        return last + LONGEST_PAUSE
    return last + _pause(ready.last_transition_time or last, last)


def known_repository(storage: BackupStorage) -> str:
    """The id of the repository that was found in the place which the storage names now; empty when it names another."""
    ready = find_condition(storage.status.conditions, READY)
    same = ready is not None and ready.observed_generation == storage.metadata.generation
    return storage.status.repository_id if same else ""


def not_enrolled(storage: BackupStorage, refusal: Refusal, now: datetime) -> BackupStorageStatus:
    """The status while nothing may be read in the namespace; no probe time, so that enrolment is followed at once."""
    status = _with_ready(storage, "False", refusal.reason, refusal.message, now)
    return msgspec.structs.replace(status, last_probe_time=None)


def failed(storage: BackupStorage, refusal: Refusal, now: datetime) -> BackupStorageStatus:
    """The status after a failed try; its message says when the next one comes, since Secrets are not watched."""
    ready = find_condition(storage.status.conditions, READY)
    since = ready.last_transition_time if ready and ready.status == "False" else None
    pause = _pause(since or now, now)
    message = (
        f"{refusal.message.rstrip('. ')}. It is tried again in {_words(pause)}; a mended Secret or bucket is noticed "
        "then, a change of this object at once."
    )
    status = _with_ready(storage, "False", refusal.reason, message, now)
    return msgspec.structs.replace(status, last_probe_time=_seconds(now))


def succeeded(storage: BackupStorage, repository_id: str, now: datetime) -> BackupStorageStatus:
    """The status after a successful try; the catalogue's words stay until it has looked again."""
    ready = find_condition(storage.status.conditions, READY)
    message = ready.message if ready and ready.status == "True" else _ready_message(repository_id, {})
    status = _with_ready(storage, "True", READY, message, now)
    return msgspec.structs.replace(status, repository_id=repository_id, last_probe_time=_seconds(now))


def catalogued(
    storage: BackupStorage, count: int, broken: Mapping[str, str], now: datetime, integrity: Integrity | None = None
) -> BackupStorageStatus:
    """The status of a storage in use after a look through its restore points.

    `integrity`: what proves uploads, if it is known; told when it is not the best.
    """
    message = _ready_message(storage.status.repository_id, broken)
    if integrity not in (None, Integrity.CHECKSUM):
        message = f"{message}; {_UPLOADS[integrity]}"
    status = _with_ready(storage, "True", READY, message, now)
    return msgspec.structs.replace(status, restore_points=count)


def _ready_message(repository_id: str, broken: Mapping[str, str]) -> str:
    message = f"repository {repository_id[:10]} is open"
    if not broken:
        return message
    named = "; ".join(f"{snapshot[:10]}: {why[:200]}" for snapshot, why in sorted(broken.items())[:_MOST_NAMED])
    more = f" and {len(broken) - _MOST_NAMED} more" if len(broken) > _MOST_NAMED else ""
    return f"{message}, but not all that lies in it can be shown ({len(broken)} broken): {named}{more}"


def _with_ready(storage: BackupStorage, status: str, reason: str, message: str, now: datetime) -> BackupStorageStatus:
    condition = Condition(READY, status, reason, message[:32000], observed_generation=storage.metadata.generation)
    return msgspec.structs.replace(storage.status, conditions=set_condition(storage.status.conditions, condition, now))


def _pause(since: datetime, last: datetime) -> timedelta:
    """As long as it has failed already, so that the pauses double: soon at first, when somebody is mending it."""
    return min(max(_seconds(last) - _seconds(since), FIRST_PAUSE), LONGEST_PAUSE)


def _seconds(time: datetime) -> datetime:
    return time.replace(microsecond=0)


def _words(pause: timedelta) -> str:
    seconds = int(pause.total_seconds())
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
