"""The restore point's description: drafted at the cut, completed when the volumes' data are there.

The draft is saved in the repository together with the resources. A later operator reads from it what was true at the
cut, and never has to look at the application again, which may have changed or gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

import backstay
from backstay.api.backup import Backup, VolumeStatus
from backstay.api.names import RESOURCES_DIRECTORY, RESTORE_POINT_FILE
from backstay.api.restore_point import (
    ApplicationIdentity,
    CapturedObject,
    CapturedVolume,
    RestorePoint,
    VolumeUser,
)
from backstay.capture.closure import Captured
from backstay.capture.outcome import all_warnings, bounded
from backstay.capture.tree import object_path
from backstay.repository import Repository, Subtree
from backstay.volumes.claims import ClaimFacts
from backstay.volumes.identity import run_as_of
from backstay.volumes.placement import placement_of


def object_files(captured: Iterable[Captured]) -> dict[str, bytes]:
    """The objects' JSON by their path in the tree."""
    return {_path(one): msgspec.json.encode(one.object) + b"\n" for one in captured}


def describe_objects(captured: Iterable[Captured]) -> tuple[CapturedObject, ...]:
    """The restore point's table of contents."""
    return tuple(
        CapturedObject(
            group=one.resource.group,
            version=one.resource.version,
            kind=one.resource.kind,
            plural=one.resource.plural,
            name=one.object["metadata"]["name"],
            path=_path(one),
            reason=one.reason,
        )
        for one in captured
    )


def describe_volume(volume: VolumeStatus, facts: ClaimFacts) -> CapturedVolume:
    """What is known of a volume at the cut."""
    return CapturedVolume(
        claim=volume.claim,
        claim_uid=facts.uid,
        method=volume.method,
        consistency=volume.consistency,
        storage_class=facts.storage_class,
        capacity=facts.capacity,
        access_modes=facts.access_modes,
        user=volume_user(facts),
    )


def volume_user(facts: ClaimFacts) -> VolumeUser | None:
    """Who uses the volume, None when nobody does."""
    pod: Mapping[str, Any] | None = facts.user
    if pod is None:
        return None
    name = pod["metadata"]["name"]
    return VolumeUser(pod=name, group=name, run_as=run_as_of(pod, facts.name), placement=placement_of(pod))


def draft(
    backup: Backup,
    identity: ApplicationIdentity,
    kubernetes: str,
    cut_time: datetime,
    start_time: datetime,
    captured: Iterable[Captured],
    resource_bytes: int,
    volumes: Iterable[CapturedVolume],
) -> RestorePoint:
    """The restore point as far as it is known at the cut; its outcome is still empty."""
    return RestorePoint(
        backstay=backstay.__version__,
        kubernetes=kubernetes,
        backup=backup.metadata.name,
        backup_uid=backup.metadata.uid,
        application=identity,
        start_time=start_time,
        cut_time=cut_time,
        completion_time=cut_time,
        outcome="",
        objects=describe_objects(captured),
        resource_bytes=resource_bytes,
        volumes=tuple(volumes),
    )


def complete(drafted: RestorePoint, backup: Backup, outcome: str, now: datetime) -> RestorePoint:
    """The draft with what became of the volumes."""
    results = {volume.claim: volume for volume in backup.status.volumes}
    return replace(
        drafted,
        completion_time=now,
        outcome=outcome,
        volumes=tuple(_with_result(volume, results[volume.claim]) for volume in drafted.volumes),
        warnings=bounded(all_warnings(backup.status)),
    )


def read_draft(repository: Repository, tree: str) -> RestorePoint:
    """The draft in a tree that was saved at the cut. Raises RepositoryError."""
    content = b"".join(repository.read_file(repository.find(tree, RESTORE_POINT_FILE)))
    return msgspec.json.decode(content, type=RestorePoint)


def final_files(repository: Repository, tree: str, point: RestorePoint) -> dict[str, bytes | Subtree]:
    """The restore point's whole tree: the resources as they were saved at the cut, and the completed description."""
    files: dict[str, bytes | Subtree] = {RESTORE_POINT_FILE: encode(point)}
    if point.objects:
        files[RESOURCES_DIRECTORY] = Subtree(repository.find(tree, RESOURCES_DIRECTORY).subtree)
    return files


def encode(point: RestorePoint) -> bytes:
    """The description as it stands in the repository, laid out for people."""
    return msgspec.json.format(msgspec.json.encode(point), indent=2) + b"\n"


def _with_result(volume: CapturedVolume, result: VolumeStatus) -> CapturedVolume:
    return replace(
        volume,
        method=result.method,
        consistency=result.consistency,
        snapshot=result.snapshot,
        tree=result.tree,
        files=result.files,
        bytes=result.bytes,
        warnings=result.warnings,
        warning_count=result.warning_count,
    )


def _path(one: Captured) -> str:
    return object_path(one.resource.group, one.resource.kind, one.object["metadata"]["name"])
