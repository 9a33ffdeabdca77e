"""The facts of a claim: what it is, what lies under it, and who uses it.

Everything here is read from API objects that somebody else has fetched; nothing is decided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backstay.api.names import COMPONENT_LABEL

Object = Mapping[str, Any]

#: Kinds that hold a pod template, with the path to it.
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Deployment": ("spec", "template"),
    "Job": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
}

_FINISHED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class ClaimFacts:
    """One PersistentVolumeClaim.

    ``phase`` is the claim's own: Pending, Bound or Lost. ``capacity`` is a Kubernetes quantity. ``driver`` is the CSI
    driver of the volume behind it, empty when there is none. ``node_terms`` are the ``nodeSelectorTerms`` that say
    where the volume can be reached. ``pods`` are the live pods that mount it, ``workloads`` stand for those that would
    (a scaled-down StatefulSet, say), in the form of pods without status.
    """

    name: str
    uid: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    phase: str = "Bound"
    storage_class: str = ""
    capacity: str = ""
    access_modes: tuple[str, ...] = ()
    volume_mode: str = "Filesystem"
    driver: str = ""
    node_terms: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    workloads: tuple[Object, ...] = ()

    @property
    def user(self) -> Object | None:
        """The pod whose identity and place a mover copies: a running one before a waiting one before a template."""
        running = [pod for pod in self.pods if pod.get("status", {}).get("phase") == "Running"]
        return next(iter((*running, *self.pods, *self.workloads)), None)

    @property
    def node(self) -> str:
        """The node where a pod mounts it now, empty when none does."""
        return next((pod["spec"]["nodeName"] for pod in self.pods if pod["spec"].get("nodeName")), "")

    @property
    def written(self) -> bool:
        """Whether a pod that is on a node may be writing to it."""
        return any(pod["spec"].get("nodeName") and _writes(pod, self.name) for pod in self.pods)


def claim_facts(
    claim: Object, volume: Object | None, pods: Iterable[Object], workloads: Iterable[Object] = ()
) -> ClaimFacts:
    """The facts of a claim from its object, its PersistentVolume (None while unbound), and the namespace's pods."""
    name = claim["metadata"]["name"]
    spec, status = claim.get("spec", {}), claim.get("status", {})
    volume_spec = (volume or {}).get("spec", {})
    required = volume_spec.get("nodeAffinity", {}).get("required", {})
    return ClaimFacts(
        name=name,
        uid=claim["metadata"].get("uid", ""),
        labels=claim["metadata"].get("labels") or {},
        phase=status.get("phase", "Pending"),
        storage_class=spec.get("storageClassName") or "",
        capacity=status.get("capacity", {}).get("storage")
        or spec.get("resources", {}).get("requests", {}).get("storage", ""),
        access_modes=tuple(status.get("accessModes") or spec.get("accessModes") or ()),
        volume_mode=spec.get("volumeMode") or "Filesystem",
        driver=volume_spec.get("csi", {}).get("driver", ""),
        node_terms=tuple(required.get("nodeSelectorTerms") or ()),
        pods=tuple(pod for pod in pods if _is_user(pod) and name in claims_of_pod(pod)),
        workloads=tuple(workload for workload in workloads if name in claims_of_pod(workload)),
    )


def claims_of_pod(pod: Object) -> list[str]:
    """Names of the claims that a pod (or a pod template) mounts; those of its ephemeral volumes are not among them."""
    volumes = pod.get("spec", {}).get("volumes") or ()
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if v.get("persistentVolumeClaim")]


def volume_names(pod: Object, claim: str) -> frozenset[str]:
    """The names under which a pod's containers know this claim."""
    volumes = pod.get("spec", {}).get("volumes") or ()
    return frozenset(v["name"] for v in volumes if v.get("persistentVolumeClaim", {}).get("claimName") == claim)


def pod_template(workload: Object) -> Object | None:
    """The pod template inside a workload, or None when the kind has none."""
    path = TEMPLATES.get(workload.get("kind", ""))
    if path is None:
        return None
    found: Any = workload
    for step in path:
        found = found.get(step) or {}
    return found or None


def as_idle_pods(workload: Object, claims: Iterable[str]) -> list[Object]:
    """The pods that a workload would make, for reading their identity and place while none runs.

    Those of the named claims that a StatefulSet's claim templates have made are mounted under the template's name, by
    one pod for each ordinal, as the StatefulSet would do it.
    """
    template = pod_template(workload)
    if template is None:
        return []
    name, spec = workload["metadata"]["name"], template.get("spec") or {}
    by_ordinal: dict[str, list[Object]] = {}
    if workload.get("kind") == "StatefulSet":
        for volume in claim_template_names(workload):
            for claim in filter(claim_pattern(workload, volume).fullmatch, claims):
                mounted = {"name": volume, "persistentVolumeClaim": {"claimName": claim}}
                by_ordinal.setdefault(claim.rpartition("-")[2], []).append(mounted)
    if not by_ordinal:
        return [_idle_pod(template, name, spec)]
    return [
        _idle_pod(template, f"{name}-{ordinal}", {**spec, "volumes": [*(spec.get("volumes") or ()), *volumes]})
        for ordinal, volumes in by_ordinal.items()
    ]


def _idle_pod(template: Object, name: str, spec: Object) -> Object:
    return {"metadata": {**(template.get("metadata") or {}), "name": name}, "spec": spec}


def claim_template_names(stateful_set: Object) -> list[str]:
    """Names of a StatefulSet's claim templates."""
    templates: Sequence[Object] = stateful_set.get("spec", {}).get("volumeClaimTemplates") or ()
    return [template["metadata"]["name"] for template in templates]


def claim_pattern(stateful_set: Object, template: str) -> re.Pattern[str]:
    """What the names of the claims look like that a StatefulSet makes from one of its templates."""
    return re.compile(rf"{re.escape(template)}-{re.escape(stateful_set['metadata']['name'])}-\d+")


def _is_user(pod: Object) -> bool:
    finished = pod.get("status", {}).get("phase") in _FINISHED
    return not finished and COMPONENT_LABEL not in (pod["metadata"].get("labels") or {})


def _writes(pod: Object, claim: str) -> bool:
    """Whether any of the pod's mounts of the claim lets it write."""
    writable = {
        v["name"]
        for v in pod["spec"].get("volumes") or ()
        if v.get("persistentVolumeClaim", {}).get("claimName") == claim
        and not v["persistentVolumeClaim"].get("readOnly")
    }
    containers = [*(pod["spec"].get("containers") or ()), *(pod["spec"].get("initContainers") or ())]
    return any(
        mount["name"] in writable and not mount.get("readOnly")
        for container in containers
        for mount in container.get("volumeMounts") or ()
    )
