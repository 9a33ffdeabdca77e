"""What a restore point says it holds, believed only as far as it is consistent.

A bucket may have been written by anybody who holds the repository's password. So a path is never followed to a kind or
a name that the object at its end does not have itself, names must be names, and sizes have limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from backstay.api.meta import InvalidObjectError, parse
from backstay.api.names import COMPONENT_LABEL, GROUP, RESOURCES_DIRECTORY
from backstay.api.restore_point import FORMAT_VERSION, CapturedObject, CapturedVolume, RestorePoint
from backstay.restore.errors import RestoreError

#: Limits in bytes. etcd takes 1.5 MiB an object by default; a description holds one line an object.
LARGEST_DESCRIPTION = 64 << 20
LARGEST_OBJECT = 8 << 20
LARGEST_SUM = 512 << 20

#: Our own kinds that tell of one cluster's doings; a restored Restore would even act.
_NEVER_RESTORED = frozenset({(GROUP, "Backup"), (GROUP, "Restore"), (GROUP, "ProtectionReport")})

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")
_VERSION = re.compile(r"v[a-z0-9]{1,62}")
_TREE = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Identity:
    """Which object, within one namespace. ``group`` is empty for the core API."""

    group: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class StoredObject:
    """One captured object; ``document`` is its JSON as captured, kept as bytes since thousands of dicts are heavy."""

    identity: Identity
    version: str
    document: bytes

    def body(self) -> dict[str, Any]:
        """The object as a fresh dict."""
        body: dict[str, Any] = msgspec.json.decode(self.document)
        return body


@dataclass(frozen=True)
class Contents:
    """A restore point, read and checked. ``left_out``: objects that are never restored, with the reason."""

    snapshot: str
    point: RestorePoint
    objects: tuple[StoredObject, ...]
    left_out: tuple[str, ...] = ()


def parse_description(document: bytes) -> RestorePoint:
    """The restore point's own description. Raises RestoreError when it is none, or of a later format."""
    try:
        point = parse(RestorePoint, msgspec.json.decode(document))
    except (msgspec.MsgspecError, InvalidObjectError, AttributeError) as error:
        raise RestoreError("InvalidRestorePoint", f"The restore point's description cannot be read: {error}") from error
    if point.version > FORMAT_VERSION:
        raise RestoreError(
            "InvalidRestorePoint",
            f"The restore point was written by Backstay {point.backstay} in format {point.version}; this release reads"
            f" formats up to {FORMAT_VERSION}. Upgrade Backstay here.",
        )
    check_description(point)
    return point


def check_description(point: RestorePoint) -> None:
    """Raises RestoreError for a name, path or tree id that cannot be one, or for two objects of one identity."""
    seen: set[Identity] = set()
    for captured in point.objects:
        identity = identity_of(captured)
        if not _is_sound(captured):
            raise _invalid(f"{identity} has an impossible name, kind or path ({captured.path!r})")
        if identity in seen:
            raise _invalid(f"{identity} is described twice")
        seen.add(identity)
    claims: set[str] = set()
    for volume in point.volumes:
        if not _SUBDOMAIN.fullmatch(volume.claim) or volume.claim in claims:
            raise _invalid(f"the volume {volume.claim!r} has an impossible name, or is described twice")
        if volume.tree and not _TREE.fullmatch(volume.tree):
            raise _invalid(f"the volume {volume.claim} has {volume.tree!r} as its tree")
        claims.add(volume.claim)


def identity_of(captured: CapturedObject) -> Identity:
    """Which object a line of the description is about."""
    return Identity(captured.group, captured.kind, captured.name)


def check_object(captured: CapturedObject, document: bytes) -> StoredObject:
    """The object that stands at its path. Raises RestoreError when it is not the one that the description names."""
    identity = identity_of(captured)
    try:
        body = msgspec.json.decode(document)
    except msgspec.MsgspecError as error:
        raise _invalid(f"{identity} is no JSON: {error}") from error
    metadata = body.get("metadata") if isinstance(body, dict) else None
    if not isinstance(metadata, dict):
        raise _invalid(f"{identity} has no metadata")
    api_version = f"{captured.group}/{captured.version}" if captured.group else captured.version
    found = (body.get("apiVersion"), body.get("kind"), metadata.get("name"))
    if found != (api_version, captured.kind, captured.name):
        raise _invalid(f"at the path of {identity} stands {found[1]} {found[2]} of {found[0]}")
    return StoredObject(identity, captured.version, document)


def reason_left_out(stored: StoredObject) -> str:
    """Why an object is never restored; empty for all others."""
    if (stored.identity.group, stored.identity.kind) in _NEVER_RESTORED:
        return "is a record of the cluster where it was made"
    body = stored.body()
    if COMPONENT_LABEL in (body["metadata"].get("labels") or {}):
        return "is one of Backstay's own parts"
    if _is_finished(stored.identity, body.get("status") or {}):
        return "had finished; made anew it would run again"
    return ""


def check_claims(volumes: Iterable[CapturedVolume], objects: Iterable[StoredObject]) -> None:
    """Raises RestoreError when the point holds a claim's data but not the claim: nothing tells how to make it."""
    claims = {o.identity.name for o in objects if (o.identity.group, o.identity.kind) == ("", "PersistentVolumeClaim")}
    for volume in volumes:
        if volume.tree and volume.claim not in claims:
            raise _invalid(f"it holds the data of PersistentVolumeClaim {volume.claim}, but not the claim itself")


def _is_finished(identity: Identity, status: dict[str, Any]) -> bool:
    if (identity.group, identity.kind) == ("", "Pod"):
        return status.get("phase") in ("Succeeded", "Failed")
    if (identity.group, identity.kind) == ("batch", "Job"):
        conditions = status.get("conditions") or ()
        return any(c.get("type") in ("Complete", "Failed") and c.get("status") == "True" for c in conditions)
    return False


def _is_sound(captured: CapturedObject) -> bool:
    name_parts = captured.name.split("/")
    return (
        (not captured.group or bool(_SUBDOMAIN.fullmatch(captured.group)))
        and bool(_VERSION.fullmatch(captured.version))
        and bool(_KIND.fullmatch(captured.kind))
        and len(captured.name) <= 253
        and len(name_parts) == 1
        and name_parts[0] not in ("", ".", "..")
        and "%" not in captured.name
        and captured.path.startswith(f"{RESOURCES_DIRECTORY}/{captured.group or 'core'}/{captured.kind}/")
        and ".." not in captured.path.split("/")
    )


def _invalid(what: str) -> RestoreError:
    return RestoreError(
        "InvalidRestorePoint", f"The restore point contradicts itself: {what}. Nothing of it is restored."
    )
