"""An application on an API server in memory, with snapshots and movers that answer at once, and a bucket in memory."""

from __future__ import annotations

import copy
import json
import threading
from typing import Any

from backstay.api.names import COMPONENT_LABEL
from backstay.kube import resource as kinds
from backstay.kube.errors import UnavailableError
from backstay.kube.resource import Resource
from backstay.repository.errors import ObjectNotFound
from tests.unit.restore.fake_cluster import FakeCluster
from tests.unit.restore.objects import NOW

Object = dict[str, Any]

CREATED = NOW.isoformat().replace("+00:00", "Z")


class MemoryStore:
    """A bucket; `interrupt` is called before and after each write."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = dict(objects or {})
        self.interrupt: Any = lambda call: None
        self._lock = threading.Lock()

    def put(self, name: str, data: Any, *, sha256: bytes | None = None) -> None:
        kind = name.partition("/")[0]
        # A lock is no step of the story, and a process that dies with one leaves it to become stale.
        if kind != "locks":
            self.interrupt(f"put {kind}")
        with self._lock:
            self.objects[name] = bytes(data)
        if kind != "locks":
            self.interrupt(f"has put {kind}")

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name not in self.objects:
            raise ObjectNotFound(name)
        end = None if length is None else offset + length
        return self.objects[name][offset:end]

    def list(self, prefix: str) -> Any:
        return [(name, len(data)) for name, data in sorted(self.objects.items()) if name.startswith(prefix)]

    def delete(self, name: str) -> None:
        self.objects.pop(name, None)

    def exists(self, name: str) -> bool:
        return name in self.objects


class CaptureCluster(FakeCluster):
    """Snapshots are cut and ready when created; a Backup's mover tells the tree that its order was for."""

    def __init__(self) -> None:
        super().__init__()
        self.mover = reads_well
        self.cut = {"creationTime": CREATED, "readyToUse": True, "restoreSize": "1Gi"}
        self.made: list[str] = []

    def create(self, resource: Resource, body: Object, *, namespace: str = "", dry_run: bool = False) -> Object:
        created = super().create(resource, body, namespace=namespace, dry_run=dry_run)
        self.made.append(f"{resource.kind} {body['metadata']['name']}")
        return created

    def put(self, resource: Resource, body: Object) -> Object:
        body = copy.deepcopy(body)
        metadata = body["metadata"]
        metadata.setdefault("creationTimestamp", CREATED)
        if resource == kinds.VOLUME_SNAPSHOTS:
            body.setdefault("status", self.cut)
        if resource == kinds.PODS and COMPONENT_LABEL in (metadata.get("labels") or {}):
            metadata["labels"]["batch.kubernetes.io/job-name"] = metadata["name"].removesuffix("-x")
        return super().put(resource, body)

    def version(self) -> str:
        return "v1.37.2"

    def temporaries(self) -> list[str]:
        """What is there that serves a Backup."""
        return [
            f"{kind} {name}"
            for (_, kind, _, name), body in sorted(self.objects.items())
            if (body["metadata"].get("labels") or {}).get(COMPONENT_LABEL) in ("mover", "temporary")
        ]


def reads_well(order: Object) -> Object:
    """The mover's last words when all went well; its data are not in the repository, which nothing here looks for."""
    volumes = [
        {"claim": v["claim"], "snapshot": "5" * 64, "tree": "7" * 64, "files": 3, "bytes": 2048, "addedBytes": 9}
        for v in order["volumes"]
    ]
    return {"ok": True, "volumes": volumes}


def bucket_is_gone(order: Object) -> Object:
    """The mover's last words when somebody has deleted the bucket."""
    return {"ok": False, "reason": "BucketNotFound", "message": "bucket 'b' does not exist", "permanent": True}


def unavailable(call: str) -> UnavailableError:
    """The API server does not answer."""
    return UnavailableError(call, 503, "ServiceUnavailable", "try later")


def set_up(cluster: FakeCluster, *, driver: str = "csi.example.com") -> None:
    """A database with a claim, its pod, a Secret that the pod needs, a policy and a storage; and a Backup ordered."""
    shop = {"namespace": "shop"}
    labels = {"app": "db"}
    pod_spec = {
        "nodeName": "n1",
        "securityContext": {"runAsUser": 999, "runAsGroup": 999},
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}},
            {"name": "conf", "secret": {"secretName": "db"}},
        ],
        "containers": [{"name": "c", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
    }
    owner = [{"kind": "StatefulSet", "name": "db", "controller": True}]
    cluster.put(
        kinds.PODS,
        {
            "metadata": {"name": "db-0", **shop, "labels": labels, "ownerReferences": owner},
            "spec": pod_spec,
            "status": {"phase": "Running"},
        },
    )
    template = {"metadata": {"labels": labels}, "spec": {**pod_spec, "volumes": pod_spec["volumes"][1:]}}
    template["spec"].pop("nodeName")
    cluster.put(
        kinds.STATEFUL_SETS,
        {
            "metadata": {"name": "db", **shop, "labels": labels},
            "spec": {"template": template, "volumeClaimTemplates": [{"metadata": {"name": "data"}}]},
        },
    )
    cluster.put(kinds.SECRETS, {"metadata": {"name": "db", **shop}, "data": {}})
    cluster.put(
        kinds.CLAIMS,
        {
            "metadata": {"name": "data-db-0", **shop},
            "spec": {"volumeName": "pv1", "storageClassName": "fast", "accessModes": ["ReadWriteOnce"]},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
        },
    )
    cluster.put(kinds.VOLUMES, {"metadata": {"name": "pv1"}, "spec": {"csi": {"driver": driver}}})
    cluster.put(kinds.STORAGE_CLASSES, {"metadata": {"name": "fast"}, "provisioner": "csi.example.com"})
    cluster.put(
        kinds.VOLUME_SNAPSHOT_CLASSES,
        {"metadata": {"name": "snap"}, "driver": "csi.example.com", "deletionPolicy": "Delete"},
    )
    cluster.put(
        kinds.STORAGES,
        {
            "metadata": {"name": "main", **shop},
            "spec": {"s3": {"bucket": "b"}, "passwordSecretRef": {"name": "pw"}},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}]},
        },
    )
    cluster.put(
        kinds.POLICIES,
        {
            "metadata": {"name": "shop", **shop},
            "spec": {"storage": {"name": "main"}, "selector": {"matchLabels": labels}},
        },
    )
    metadata = {"name": "b", **shop, "uid": "u1", "generation": 1}
    cluster.put(kinds.BACKUPS, {"metadata": metadata, "spec": {"capture": {"policy": "shop"}}})


def read_json(data: bytes) -> Object:
    """A file of a restore point."""
    document: Object = json.loads(data)
    return document
