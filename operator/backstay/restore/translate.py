"""From an object as captured to the object as it is to be made here: another namespace, other storage classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from backstay.api.names import GROUP
from backstay.restore.storage_classes import StorageClasses, choose
from backstay.restore.strip import Object, strip

_LEGACY_CLASS = "volume.beta.kubernetes.io/storage-class"
_RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class Target:
    """Where objects go. ``source_namespace``: where they were captured."""

    namespace: str
    source_namespace: str
    classes: StorageClasses
    class_mapping: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Translation:
    """The object to create, and what changed in it that its owner should know."""

    body: Object
    warnings: tuple[str, ...] = ()


def translate(body: Object, target: Target) -> Translation:
    """The captured object as it is to be made here; ``body`` is changed. Raises RestoreError: no storage class."""
    strip(body)
    body["metadata"]["namespace"] = target.namespace
    warnings = tuple(_storage_classes(body, target))
    kind = (body["apiVersion"].rpartition("/")[0], body["kind"])
    if kind == (_RBAC, "RoleBinding"):
        _subjects(body, target)
    if kind == (GROUP, "BackupPolicy"):
        # Two clusters that back the same application up at once would be a surprise; a person decides who goes on.
        body["spec"]["suspend"] = True
    return Translation(body, warnings)


def _storage_classes(body: Object, target: Target) -> Iterator[str]:
    """Classes of the claims in the object; yields a warning for each that is replaced unasked."""
    for where, metadata, spec in claim_specs(body):
        annotations = metadata.get("annotations") or {}
        wanted = annotations.pop(_LEGACY_CLASS, None) or spec.pop("storageClassName", None)
        if not annotations:
            metadata.pop("annotations", None)
        choice = choose(wanted, target.class_mapping, target.classes)
        if choice.name is not None:
            spec["storageClassName"] = choice.name
        if choice.warning:
            yield f"{where}: {choice.warning}"


def claim_specs(body: Object) -> Iterator[tuple[str, Object, Object]]:
    """Each claim that the object is or makes: words for it, its metadata, its spec."""
    kind, name, spec = body.get("kind"), body["metadata"]["name"], body.get("spec") or {}
    group = body.get("apiVersion", "").rpartition("/")[0]
    if (group, kind) == ("", "PersistentVolumeClaim"):
        yield f"PersistentVolumeClaim {name}", body["metadata"], spec
    if (group, kind) == ("apps", "StatefulSet"):
        for template in spec.get("volumeClaimTemplates") or ():
            metadata = template.setdefault("metadata", {})
            yield (
                f"StatefulSet {name}, claim template {metadata.get('name')}",
                metadata,
                template.setdefault("spec", {}),
            )
    for volume in _pod_spec(group, kind, spec).get("volumes") or ():
        template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
        if template:
            where = f"{kind} {name}, ephemeral volume {volume.get('name')}"
            yield where, template.setdefault("metadata", {}), template.setdefault("spec", {})


def _pod_spec(group: str, kind: Any, spec: Object) -> Object:
    found: Any = {}
    if (group, kind) == ("", "Pod"):
        found = spec
    elif (group, kind) == ("batch", "CronJob"):
        found = ((spec.get("jobTemplate") or {}).get("spec") or {}).get("template", {}).get("spec")
    elif group in ("apps", "batch") or (group, kind) == ("", "ReplicationController"):
        found = (spec.get("template") or {}).get("spec")
    return found or {}


def _subjects(body: Object, target: Target) -> None:
    """A binding must name the restored accounts, not those of the namespace that the copy was taken from."""
    source, here = target.source_namespace, target.namespace
    for subject in body.get("subjects") or ():
        if subject.get("kind") == "ServiceAccount" and subject.get("namespace") == source:
            subject["namespace"] = here
        name = subject.get("name", "")
        if subject.get("kind") == "User" and name.startswith(f"system:serviceaccount:{source}:"):
            subject["name"] = f"system:serviceaccount:{here}:" + name.rpartition(":")[2]
        if subject.get("kind") == "Group" and name == f"system:serviceaccounts:{source}":
            subject["name"] = f"system:serviceaccounts:{here}"
