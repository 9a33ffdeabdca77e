"""Objects and restore points as small as tests need them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from backstay.api.restore_point import ApplicationIdentity, CapturedObject, CapturedVolume, RestorePoint, VolumeUser
from backstay.restore.contents import Contents, StoredObject, check_object

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
TREE = "ab" * 32


def obj(kind: str, name: str, api_version: str = "v1", metadata: dict[str, Any] | None = None, **fields: Any) -> Any:
    """An object of the namespace ``shop``."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop", **(metadata or {})},
        **fields,
    }


def claim(name: str, storage_class: str | None = "fast") -> Any:
    """A claim of one GiB."""
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return obj("PersistentVolumeClaim", name, spec=spec)


def captured(body: Any) -> CapturedObject:
    """The line of the description for an object."""
    group, _, version = body["apiVersion"].rpartition("/")
    kind, name = body["kind"], body["metadata"]["name"]
    path = f"resources/{group or 'core'}/{kind}/{name}/object.json"
    return CapturedObject(group, version, kind, f"{kind.lower()}s", name, path, "selected")


def stored(body: Any) -> StoredObject:
    """The object as read from a restore point."""
    return check_object(captured(body), msgspec.json.encode(body))


def volume(name: str, *, tree: str = TREE, pod: str = "", user: VolumeUser | None = None) -> CapturedVolume:
    """A volume's line of the description; ``pod`` names the pod that used it."""
    if pod:
        user = VolumeUser(pod=pod, group=pod, run_as={"runAsUser": 1000, "fsGroup": 1000})
    return CapturedVolume(
        claim=name,
        claim_uid="c",
        method="Snapshot",
        consistency="Crash",
        tree=tree,
        bytes=2048,
        capacity="1Gi",
        user=user,
    )


def point(*bodies: Any, volumes: tuple[CapturedVolume, ...] = ()) -> RestorePoint:
    """A restore point of the namespace ``shop``."""
    return RestorePoint(
        backstay="0.1.0",
        backup="shop-1",
        backup_uid="b",
        application=ApplicationIdentity("cluster", "shop", "shop"),
        start_time=NOW,
        cut_time=NOW,
        completion_time=NOW,
        outcome="Completed",
        objects=tuple(captured(body) for body in bodies),
        volumes=volumes,
    )


def contents(*bodies: Any, volumes: tuple[CapturedVolume, ...] = ()) -> Contents:
    """A restore point that has been read."""
    return Contents("5" * 64, point(*bodies, volumes=volumes), tuple(stored(body) for body in bodies))
