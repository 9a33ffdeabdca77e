"""Whether restored workloads run, and what keeps their pods from it."""

from __future__ import annotations

from typing import Any

import pytest

from backstay.restore.readiness import unready
from tests.unit.restore.objects import obj


def workload(kind: str, status: dict[str, Any], replicas: int | None = 2) -> Any:
    spec: dict[str, Any] = {"selector": {"matchLabels": {"app": "web"}}}
    if replicas is not None:
        spec["replicas"] = replicas
    return obj(kind, "web", "apps/v1", metadata={"generation": 1}, spec=spec, status=status)


def pod(status: dict[str, Any], labels: dict[str, str] | None = None) -> Any:
    return obj("Pod", "web-0", metadata={"labels": labels or {"app": "web"}}, spec={}, status=status)


READY = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}


@pytest.mark.parametrize(
    "running",
    [
        workload("Deployment", {"observedGeneration": 1, "readyReplicas": 2}),
        workload("StatefulSet", {"observedGeneration": 1, "readyReplicas": 1}, None),
        workload("Deployment", {}, 0),
        workload("DaemonSet", {"observedGeneration": 1, "desiredNumberScheduled": 3, "numberReady": 3}, None),
        workload("DaemonSet", {"observedGeneration": 1, "desiredNumberScheduled": 0}, None),
        pod(READY),
        pod({"phase": "Succeeded"}),
    ],
)
def test_a_workload_with_all_its_pods_ready_runs(running: Any) -> None:
    assert unready([running], []) == []


@pytest.mark.parametrize(
    "waiting", [workload("Deployment", {"readyReplicas": 2}), workload("DaemonSet", {}, None)], ids=lambda w: w["kind"]
)
def test_numbers_from_before_the_controller_looked_do_not_count(waiting: Any) -> None:
    assert len(unready([waiting], [])) == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]},
            "pod web-0: not scheduled: 0/1 nodes are available",
        ),
        (
            {
                "containerStatuses": [
                    {"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
                ]
            },
            "pod web-0: ImagePullBackOff in container c: no such image",
        ),
        ({"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, "is starting"),
    ],
)
def test_the_first_unready_pod_tells_the_reason(status: dict[str, Any], words: str) -> None:
    (line,) = unready([workload("Deployment", {"observedGeneration": 1, "readyReplicas": 1})], [pod(status)])
    assert line.startswith("Deployment web has 1 of 2 pods ready")
    assert words in line


def test_pods_of_others_are_not_blamed() -> None:
    (line,) = unready([workload("Deployment", {"observedGeneration": 1})], [pod({}, {"app": "other"})])
    assert "it has no pods" in line
