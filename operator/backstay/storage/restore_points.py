"""Restore points as they lie in a repository: which are shown, under what name, and with what status.

What lies in a bucket was written by others, so that everything is held against everything before it is believed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from backstay.api.backup import Backup, BackupSpec, BackupStatus, ResourcesStatus, RestorePointReference, VolumeStatus
from backstay.api.meta import Condition, find_condition, set_condition, to_json
from backstay.api.names import (
    API_VERSION,
    POLICY_LABEL,
    RESTORE_POINT_FILE,
    TAG_RESTORE_POINT,
    short_hash,
)
from backstay.api.restore_point import CapturedVolume, RestorePoint
from backstay.repository import Repository, Snapshot

#: A description larger than this, in bytes, is not read: it must fit into memory many times over.
LARGEST_DESCRIPTION = 16 * 2**20
#: The API server's limits for an object leave room for so much in a status.
_MOST_VOLUMES = 500
_MOST_WARNINGS = 20
_LONGEST_WARNING = 300

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_OUTCOMES = {
    "Completed": "the restore point was found in the repository",
    "CompletedWithWarnings": "the restore point was found in the repository; not everything was captured as asked",
}


class RestorePointError(Exception):
    """A restore point in the repository is not what it claims to be; the text tells what is wrong."""


@dataclass(frozen=True)
class Head:
    """What a committing snapshot says of its restore point without a look inside; uid is that of its Backup."""

    snapshot: str
    tree: str
    cluster: str
    namespace: str
    backup_uid: str


@dataclass(frozen=True)
class Shown:
    """How the points stand beside the Backups that exist: ``new`` ones want an object, ``unfinished`` ones a status."""

    new: tuple[Head, ...]
    unfinished: tuple[tuple[Backup, str], ...]
    count: int


def head_of(snapshot: Snapshot) -> Head | None:
    """The restore point that a snapshot commits, or None for a volume's snapshot or a stranger's."""
    prefix = f"{TAG_RESTORE_POINT}="
    uids = [text.removeprefix(prefix) for text in snapshot.tags if text.startswith(prefix)]
    cluster, slash, namespace = snapshot.hostname.partition("/")
    if len(uids) != 1 or not uids[0] or not slash or not cluster or not namespace:
        return None
    return Head(snapshot.id, snapshot.tree, cluster, namespace, uids[0])


def visible(heads: Iterable[Head], namespace: str, catalogue: str) -> list[Head]:
    """The points that a storage of this namespace shows: ``Own``, of a namespace of this name, or ``All``."""
    return [head for head in heads if catalogue == "All" or head.namespace == namespace]


def decide(heads: Collection[Head], backups: Collection[Backup], storage: str) -> Shown:
    """What is to be done for the visible points of a storage.

    A Backup of this cluster that is still running has no snapshot in its status yet, though its point may be committed
    already: it is known by its UID.
    """
    uids = {backup.metadata.uid for backup in backups}
    snapshots = {backup.status.snapshot for backup in backups}
    references = {backup.spec.restore_point.snapshot for backup in backups if backup.spec.restore_point}
    new = tuple(head for head in heads if head.backup_uid not in uids and head.snapshot not in snapshots | references)
    unfinished = tuple(
        (backup, backup.spec.restore_point.snapshot)
        for backup in backups
        if backup.spec.restore_point and backup.spec.restore_point.storage == storage and not _finished(backup)
    )
    return Shown(new, unfinished, len(heads))


def read_restore_point(repository: Repository, head: Head) -> RestorePoint:
    """A restore point's own description, held against what its snapshot claims.

    Raises RestorePointError, and RepositoryError when it cannot be read.
    """
    node = repository.find(head.tree, RESTORE_POINT_FILE)
    if node.size > LARGEST_DESCRIPTION:
        raise RestorePointError(f"its description is {node.size} bytes large, more than {LARGEST_DESCRIPTION}")
    data = b"".join(repository.read_file(node))
    try:
        point = msgspec.json.decode(data, type=RestorePoint)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RestorePointError(f"its {RESTORE_POINT_FILE} is not in the form of one: {error}") from error
    check(point, head)
    return point


def check(point: RestorePoint, head: Head) -> None:
    """Hold a description against its snapshot's tags and host. Raises RestorePointError."""
    application = point.application
    claims = {
        "Backup UID": (point.backup_uid, head.backup_uid),
        "cluster": (application.cluster, head.cluster),
        "namespace": (application.namespace, head.namespace),
    }
    for what, (inside, outside) in claims.items():
        if inside != outside:
            raise RestorePointError(f"its {what} is {inside!r} inside but {outside!r} on the snapshot")
    if point.outcome not in _OUTCOMES:
        raise RestorePointError(f"its outcome {point.outcome!r} is none of {', '.join(_OUTCOMES)}")
    if not _LABEL_VALUE.fullmatch(application.policy):
        raise RestorePointError(f"the name of its policy, {application.policy[:80]!r}, is no name of an object")
    times = (point.start_time, point.cut_time, point.completion_time)
    if any(time.tzinfo is None for time in times):
        raise RestorePointError("its times have no time zone")


def choose_name(point: RestorePoint, snapshot: str, taken: Collection[str]) -> str:
    """The name of the Backup that shows a point: its own, where that is possible and free; the same on every try."""
    if len(point.backup) <= 253 and _NAME.fullmatch(point.backup) and point.backup not in taken:
        return point.backup
    base = point.backup if _NAME.fullmatch(point.backup) else point.application.policy.lower().replace("_", "-")
    return f"{base[:200].rstrip('.-')}-{short_hash(snapshot)}"


def build_backup(name: str, namespace: str, storage: str, snapshot: str, policy: str) -> dict[str, Any]:
    """The Backup object that shows a point."""
    spec = BackupSpec(restore_point=RestorePointReference(storage, snapshot))
    return {
        "apiVersion": API_VERSION,
        "kind": "Backup",
        "metadata": {"name": name, "namespace": namespace, "labels": {POLICY_LABEL: policy}},
        "spec": to_json(spec),
    }


def build_status(point: RestorePoint, snapshot: str, storage: str, generation: int) -> BackupStatus:
    """The status of a Backup that shows a point: that of a Backup which did its work, as the description tells it."""
    message = _OUTCOMES[point.outcome]
    condition = Condition(
        "Succeeded",
        "True",
        point.outcome,
        message,
        observed_generation=generation,
        last_transition_time=point.completion_time.replace(microsecond=0),
    )
    return BackupStatus(
        conditions=(condition,),
        phase=point.outcome,
        message=message,
        storage=storage,
        application=point.application.policy,
        snapshot=snapshot,
        start_time=point.start_time,
        cut_time=point.cut_time,
        completion_time=point.completion_time,
        resources=ResourcesStatus(count=len(point.objects), bytes=point.resource_bytes),
        volumes=tuple(_volume(volume) for volume in _once(point.volumes)[:_MOST_VOLUMES]),
        warnings=_cut(point.warnings),
    )


def build_refusal(snapshot: str, storage: str, generation: int, why: str, now: datetime) -> BackupStatus:
    """The status of a Backup that names a point which the repository does not hold, or holds broken."""
    message = f"restore point {snapshot[:10]} of BackupStorage {storage!r} cannot be shown: {why}"
    condition = Condition("Succeeded", "False", "RestorePointUnreadable", message, observed_generation=generation)
    return BackupStatus(conditions=set_condition((), condition, now), phase="Failed", message=message, storage=storage)


def _finished(backup: Backup) -> bool:
    succeeded = find_condition(backup.status.conditions, "Succeeded")
    return succeeded is not None and succeeded.status != "Unknown"


def _volume(volume: CapturedVolume) -> VolumeStatus:
    return VolumeStatus(
        claim=volume.claim,
        method=volume.method,
        phase="Skipped" if volume.method == "Skip" else "Done",
        consistency=volume.consistency,
        snapshot=volume.snapshot,
        tree=volume.tree,
        files=volume.files,
        bytes=volume.bytes,
        warnings=_cut(volume.warnings),
        warning_count=volume.warning_count,
    )


def _once(volumes: Iterable[CapturedVolume]) -> list[CapturedVolume]:
    """Each claim once: the status lists them by name."""
    by_claim: Mapping[str, CapturedVolume] = {volume.claim: volume for volume in volumes}
    return list(by_claim.values())


def _cut(warnings: Iterable[str]) -> tuple[str, ...]:
    return tuple(text[:_LONGEST_WARNING] for text in list(warnings)[:_MOST_WARNINGS])
