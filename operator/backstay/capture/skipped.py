"""What is never captured, and why: one table, from top to bottom.

A restore point holds what somebody wanted. What Kubernetes or Backstay makes by itself from that comes back by itself,
and would only be in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from backstay.api.names import COMPONENT_LABEL, GROUP
from backstay.kube.resource import Resource

Object = Mapping[str, Any]


def controller_of(obj: Object) -> str:
    """The kind of the object's controlling owner, empty when it has none."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((owner["kind"] for owner in owners if owner.get("controller")), "")


def _label(obj: Object, key: str) -> str:
    return str((obj["metadata"].get("labels") or {}).get(key, ""))


def _annotated(obj: Object, key: str) -> bool:
    return key in (obj["metadata"].get("annotations") or {})


def _named(*names: str) -> Callable[[Object], bool]:
    return lambda obj: obj["metadata"]["name"] in names


def _controlled_by(*kinds: str) -> Callable[[Object], bool]:
    return lambda obj: controller_of(obj) in kinds


def _made_endpoints(obj: Object) -> bool:
    return bool(_label(obj, "endpoints.kubernetes.io/managed-by")) or _annotated(
        obj, "endpoints.kubernetes.io/last-change-trigger-time"
    )


def _plain_default_account(obj: Object) -> bool:
    touched = any(obj["metadata"].get(key) for key in ("labels", "annotations"))
    return obj["metadata"]["name"] == "default" and not touched and not obj.get("imagePullSecrets")


@dataclass(frozen=True)
class Rule:
    """Objects of ``kind`` in API group ``group`` (``*``: any) are not captured because of ``reason``.

    Without ``only`` the whole kind is meant, and it is not even listed.
    """

    group: str
    kind: str
    reason: str
    only: Callable[[Object], bool] | None = None


RULES = (
    Rule("", "Event", "tells what happened"),
    Rule("events.k8s.io", "Event", "tells what happened"),
    Rule("coordination.k8s.io", "*", "belongs to running processes"),
    Rule("metrics.k8s.io", "*", "is measured, not stored"),
    Rule("custom.metrics.k8s.io", "*", "is measured, not stored"),
    Rule("external.metrics.k8s.io", "*", "is measured, not stored"),
    Rule("storage.k8s.io", "CSIStorageCapacity", "is measured by a storage driver"),
    Rule("snapshot.storage.k8s.io", "VolumeSnapshot", "is bound to this cluster's disks"),
    Rule("groupsnapshot.storage.k8s.io", "VolumeGroupSnapshot", "is bound to this cluster's disks"),
    Rule("apps", "ControllerRevision", "is made by a StatefulSet or DaemonSet"),
    Rule(GROUP, "Backup", "is a restore point itself"),
    Rule(GROUP, "Restore", "must not run again by being restored"),
    Rule(GROUP, "ProtectionReport", "is made by Backstay"),
    Rule("*", "*", "is made by Backstay", lambda obj: bool(_label(obj, COMPONENT_LABEL))),
    Rule("", "Endpoints", "is made from a Service", _made_endpoints),
    Rule("discovery.k8s.io", "EndpointSlice", "is made from a Service", _controlled_by("Service", "Endpoints")),
    Rule("", "Pod", "is made by its controller", lambda obj: bool(controller_of(obj))),
    Rule("", "Pod", "belongs to a node", lambda obj: _annotated(obj, "kubernetes.io/config.mirror")),
    Rule("apps", "ReplicaSet", "is made by a Deployment", _controlled_by("Deployment")),
    Rule("batch", "Job", "is made by a CronJob", _controlled_by("CronJob")),
    Rule("", "PersistentVolumeClaim", "lives and dies with its pod", _controlled_by("Pod")),
    Rule("resource.k8s.io", "ResourceClaim", "lives and dies with its pod", _controlled_by("Pod")),
    Rule("", "Secret", "is an account's token", lambda obj: obj.get("type") == "kubernetes.io/service-account-token"),
    Rule("", "ConfigMap", "is made in every namespace", _named("kube-root-ca.crt", "openshift-service-ca.crt")),
    Rule("", "ServiceAccount", "is made in every namespace", _plain_default_account),
)


def is_listed(resource: Resource) -> bool:
    """Whether objects of this kind can be part of an application at all."""
    return resource.namespaced and not any(
        rule.only is None and _names(rule, resource.group, resource.kind) for rule in RULES
    )


def skip_reason(resource: Resource, obj: Object) -> str:
    """Why this object is not captured, empty when it is."""
    for rule in RULES:
        if _names(rule, resource.group, resource.kind) and (rule.only is None or rule.only(obj)):
            return rule.reason
    return ""


def storage_secrets(storages: Iterable[Object]) -> dict[str, str]:
    """The Secrets that open BackupStorages, by name, with the storage's: they would let a restore point open itself."""
    found = {}
    for storage in storages:
        spec = storage.get("spec", {})
        s3 = spec.get("s3", {})
        for reference in (spec.get("passwordSecretRef"), s3.get("credentialsSecretRef"), s3.get("caSecretRef")):
            if reference:
                found[reference["name"]] = storage["metadata"]["name"]
    return found


def _names(rule: Rule, group: str, kind: str) -> bool:
    return rule.group in ("*", group) and rule.kind in ("*", kind)
