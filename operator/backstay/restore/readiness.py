"""Whether the restored workloads run, and if not, what keeps their pods from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backstay.api.meta import LabelSelector, parse

Object = Mapping[str, Any]


def unready(workloads: Iterable[Object], pods: Sequence[Object]) -> list[str]:
    """One line for each workload that does not run yet, with its first unready pod's reason; empty when all run."""
    lines = []
    for workload in workloads:
        ready, wanted = _replicas(workload)
        if ready < wanted:
            reason = _reason(workload, pods)
            title = f"{workload['kind']} {workload['metadata']['name']}"
            lines.append(f"{title} has {ready} of {wanted} pods ready" + (f": {reason}" if reason else ""))
    return lines


def _replicas(workload: Object) -> tuple[int, int]:
    """Ready and wanted pods. A controller that has not looked at the workload yet has no ready pod."""
    status = workload.get("status") or {}
    if workload["kind"] == "Pod":
        return int(_is_ready(workload)), 1
    spec = workload.get("spec") or {}
    seen = status.get("observedGeneration", 0) >= workload["metadata"].get("generation", 1)
    if workload["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0) if seen else 1
        return (status.get("numberReady", 0) if seen else 0), wanted
    wanted = 1 if spec.get("replicas") is None else spec["replicas"]
    return (status.get("readyReplicas", 0) if seen else 0), wanted


def _is_ready(pod: Object) -> bool:
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded":
        return True
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())


def _reason(workload: Object, pods: Sequence[Object]) -> str:
    if workload["kind"] == "Pod":
        return pod_reason(workload)
    selector = parse(LabelSelector, (workload.get("spec") or {}).get("selector") or {})
    own = [pod for pod in pods if selector.matches(pod["metadata"].get("labels")) and not _is_ready(pod)]
    for pod in own:
        if reason := pod_reason(pod):
            return f"pod {pod['metadata']['name']}: {reason}"
    if own:
        return f"pod {own[0]['metadata']['name']} is starting"
    for condition in (workload.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return str(condition.get("message", ""))
    return "it has no pods; kubectl describe shows why"


def pod_reason(pod: Object) -> str:
    """What keeps a pod from being ready, as the scheduler or the kubelet tells it; empty when they say nothing."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"not scheduled: {condition.get('message', '')}"
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            message = waiting.get("message", "")
            return f"{waiting['reason']} in container {container['name']}" + (f": {message}" if message else "")
    return str(status.get("message") or "")
