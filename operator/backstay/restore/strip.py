"""What the source's cluster wrote into an object, taken out again, so that this cluster can write its own.

One small rule for each field, with the reason why it cannot stay. A rule takes out what a server or controller fills in
by itself and leaves everything that a person wrote. Rules get a fresh dict and change it in place.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from backstay.api.names import RESTORED_LABEL

Object = dict[str, Any]
Rule = Callable[[Object], None]

#: What kubectl remembers of the last apply; it stays, so that the next apply finds what to remove.
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def strip(body: Object) -> Object:
    """Apply every rule that fits the object's kind; the same object is returned."""
    group = body.get("apiVersion", "").rpartition("/")[0]
    written = _written_by_hand(body)
    for rule in RULES.get((group, body.get("kind", "")), ()):
        rule(body)
    if (group, body.get("kind")) == ("", "Service"):
        service_choices(body, written)
    for rule in EVERY_KIND:
        rule(body)
    return body


# --- every kind ------------------------------------------------------------------------------------------------------


def server_metadata(body: Object) -> None:
    """The server sets these for each object it creates, and refuses a create that names a resourceVersion."""
    metadata = body["metadata"]
    for key in (
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
    ):
        metadata.pop(key, None)


def owner_references(body: Object) -> None:
    """An owner's UID is another here, and the garbage collector deletes what has only owners that do not exist."""
    body["metadata"].pop("ownerReferences", None)


def finalizers(body: Object) -> None:
    """A finalizer whose controller is absent blocks deletion for ever; a controller that is here adds its own again."""
    body["metadata"].pop("finalizers", None)


def status(body: Object) -> None:
    """It tells of another cluster's pods and volumes; controllers write it anew."""
    body.pop("status", None)


def earlier_restore(body: Object) -> None:
    """The label of the Restore that once made the captured object would hide which one made this."""
    _drop_labels(body["metadata"], lambda key: key == RESTORED_LABEL)


# --- by kind ---------------------------------------------------------------------------------------------------------


def claim_binding(body: Object) -> None:
    """A claim must get a volume of its own: these tie it to the source's volume, node or snapshot."""
    spec = body.get("spec", {})
    for key in ("volumeName", "dataSource", "dataSourceRef"):
        spec.pop(key, None)
    _drop_annotations(
        body["metadata"],
        lambda key: (
            key.startswith("pv.kubernetes.io/")
            or key
            in (
                "volume.beta.kubernetes.io/storage-provisioner",
                "volume.kubernetes.io/storage-provisioner",
                "volume.kubernetes.io/storage-resizer",
                "volume.kubernetes.io/selected-node",
            )
        ),
    )


def claim_template_state(body: Object) -> None:
    """The server writes a status and an empty creation time into a StatefulSet's claim templates."""
    for template in body.get("spec", {}).get("volumeClaimTemplates") or ():
        template.pop("status", None)
        (template.get("metadata") or {}).pop("creationTimestamp", None)


def job_selector(body: Object) -> None:
    """The server makes selector and labels of a Job from its UID and refuses a create with another UID's."""

    def is_generated(key: str) -> bool:
        return key in (
            "controller-uid",
            "job-name",
            "batch.kubernetes.io/controller-uid",
            "batch.kubernetes.io/job-name",
        )

    spec = body.get("spec", {})
    if not spec.get("manualSelector"):
        spec.pop("selector", None)
        _drop_labels(spec.get("template", {}).get("metadata") or {}, is_generated)
        _drop_labels(body["metadata"], is_generated)
    _drop_annotations(body["metadata"], lambda key: key == "batch.kubernetes.io/job-tracking")


def account_tokens(body: Object) -> None:
    """Generated token Secrets are not captured; listed but absent they make the account unusable on some platforms."""
    generated = re.compile(re.escape(body["metadata"].get("name", "")) + r"-(token|dockercfg)-[a-z0-9]{5}")
    for key in ("secrets", "imagePullSecrets"):
        kept = [entry for entry in body.get(key) or () if not generated.fullmatch(entry.get("name", ""))]
        body.pop(key, None)
        if kept:
            body[key] = kept


def token_secret(body: Object) -> None:
    """A token for an account is valid in its cluster only; the token controller fills an empty one here."""
    if body.get("type") != "kubernetes.io/service-account-token":
        return
    for key in ("token", "ca.crt", "namespace"):
        (body.get("data") or {}).pop(key, None)
    _drop_annotations(body["metadata"], lambda key: key == "kubernetes.io/service-account.uid")


def pod_placement(body: Object) -> None:
    """The scheduler and admission set these; the node is another, priority and overhead must be this cluster's."""
    spec = body.get("spec", {})
    for key in ("nodeName", "priority", "preemptionPolicy", "overhead", "serviceAccount", "ephemeralContainers"):
        spec.pop(key, None)
    kept = [t for t in spec.get("tolerations") or () if not _is_default_toleration(t)]
    spec.pop("tolerations", None)
    if kept:
        spec["tolerations"] = kept


def pod_token_volume(body: Object) -> None:
    """Admission mounts a token of its own; the old one's volume would be mounted a second time at the same path."""
    spec = body.get("spec", {})
    tokens = {
        volume["name"] for volume in spec.get("volumes") or () if volume.get("name", "").startswith("kube-api-access-")
    }
    if not tokens:
        return
    spec["volumes"] = [volume for volume in spec["volumes"] if volume.get("name") not in tokens]
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        mounts = [mount for mount in container.get("volumeMounts") or () if mount.get("name") not in tokens]
        container.pop("volumeMounts", None)
        if mounts:
            container["volumeMounts"] = mounts


def revision(body: Object) -> None:
    """The controller counts its roll-outs; a number from elsewhere makes it continue another history."""
    _drop_annotations(
        body["metadata"],
        lambda key: (
            key.startswith("deployment.kubernetes.io/")
            or key in ("deprecated.daemonset.template.generation", "deprecated.deployment.rollback.to")
        ),
    )


def service_choices(body: Object, written: Callable[[str], bool]) -> None:
    """Addresses and ports that the server chose may be taken here, or lie outside of this cluster's ranges.

    A headless Service stays headless. A node port or IP family that a person wrote stays: managedFields and kubectl's
    last applied configuration tell, since they hold what was sent, not what was chosen.
    """
    spec = body.get("spec", {})
    if spec.get("clusterIP") != "None":
        spec.pop("clusterIP", None)
    spec.pop("clusterIPs", None)
    for key in ("ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"):
        if not written(key):
            spec.pop(key, None)
    if not written("nodePort"):
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)


EVERY_KIND: tuple[Rule, ...] = (server_metadata, owner_references, finalizers, status, earlier_restore)
RULES: dict[tuple[str, str], tuple[Rule, ...]] = {
    ("", "PersistentVolumeClaim"): (claim_binding,),
    ("", "Pod"): (pod_placement, pod_token_volume),
    ("", "Secret"): (token_secret,),
    ("", "ServiceAccount"): (account_tokens,),
    ("apps", "DaemonSet"): (revision,),
    ("apps", "Deployment"): (revision,),
    ("apps", "ReplicaSet"): (revision,),
    ("apps", "StatefulSet"): (claim_template_state,),
    ("batch", "Job"): (job_selector,),
}


# --- how the rules look and cut --------------------------------------------------------------------------------------


def _is_default_toleration(toleration: Object) -> bool:
    return (
        toleration.get("key") in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        and toleration.get("operator") == "Exists"
        and toleration.get("effect") == "NoExecute"
        and toleration.get("tolerationSeconds") == 300
    )


def _written_by_hand(body: Object) -> Callable[[str], bool]:
    """Whether somebody sent a field of this name in the object's spec."""
    metadata = body.get("metadata", {})
    sent: set[str] = set()
    for entry in metadata.get("managedFields") or ():
        if entry.get("subresource") != "status":
            sent.update(_field_names(entry.get("fieldsV1") or {}))
    applied = (metadata.get("annotations") or {}).get(LAST_APPLIED)
    if applied:
        with contextlib.suppress(msgspec.DecodeError):  # anybody may write an annotation; what is no JSON says nothing
            sent.update(_keys(msgspec.json.decode(applied)))
    return sent.__contains__


def _field_names(fields: Object) -> Iterator[str]:
    for key, below in fields.items():
        if key.startswith("f:"):
            yield key[2:]
        if isinstance(below, dict):
            yield from _field_names(below)


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield key
            yield from _keys(below)
    elif isinstance(value, list):
        for below in value:
            yield from _keys(below)


def _drop_annotations(metadata: Object, drops: Callable[[str], bool]) -> None:
    _drop(metadata, "annotations", drops)


def _drop_labels(metadata: Object, drops: Callable[[str], bool]) -> None:
    _drop(metadata, "labels", drops)


def _drop(metadata: Object, field: str, drops: Callable[[str], bool]) -> None:
    kept = {key: value for key, value in (metadata.get(field) or {}).items() if not drops(key)}
    metadata.pop(field, None)
    if kept:
        metadata[field] = kept
