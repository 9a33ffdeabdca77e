"""In which order objects are made: each wave needs what stands in those before it."""

from __future__ import annotations

from enum import IntEnum

RBAC = "rbac.authorization.k8s.io"


class Wave(IntEnum):
    """The waves. Those up to SERVICES do not wait for the volumes' data; the rest does.

    PREREQUISITES: what pods refer to. CLAIMS: volumes, and the filling of them. SERVICES: addresses and bounds that
    act on pods only. CUSTOM: everything of unknown kind; a custom resource may make its controller start pods, and a
    quota, limit range or network policy would hold up the movers that fill the volumes. WORKLOADS: what starts pods.
    """

    PREREQUISITES = 0
    CLAIMS = 1
    SERVICES = 2
    CUSTOM = 3
    WORKLOADS = 4


_WAVES = {
    ("", "ServiceAccount"): Wave.PREREQUISITES,
    ("", "Secret"): Wave.PREREQUISITES,
    ("", "ConfigMap"): Wave.PREREQUISITES,
    (RBAC, "Role"): Wave.PREREQUISITES,
    (RBAC, "RoleBinding"): Wave.PREREQUISITES,
    ("", "PersistentVolumeClaim"): Wave.CLAIMS,
    ("", "Service"): Wave.SERVICES,
    ("networking.k8s.io", "Ingress"): Wave.SERVICES,
    ("policy", "PodDisruptionBudget"): Wave.SERVICES,
    ("", "Pod"): Wave.WORKLOADS,
    ("", "ReplicationController"): Wave.WORKLOADS,
    ("apps", "ReplicaSet"): Wave.WORKLOADS,
    ("apps", "Deployment"): Wave.WORKLOADS,
    ("apps", "StatefulSet"): Wave.WORKLOADS,
    ("apps", "DaemonSet"): Wave.WORKLOADS,
    ("batch", "Job"): Wave.WORKLOADS,
    ("batch", "CronJob"): Wave.WORKLOADS,
}


def wave_of(group: str, kind: str) -> Wave:
    """The wave of a kind."""
    return _WAVES.get((group, kind), Wave.CUSTOM)
