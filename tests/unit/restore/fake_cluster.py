"""An API server in memory, as small as a Restore needs it, with a mover that ends well or badly as told."""

from __future__ import annotations

import copy
import itertools
import json
import threading
from collections.abc import Callable
from typing import Any

from backstay.api.names import COMPONENT_LABEL, ENROLLED_LABEL
from backstay.kube import resource as kinds
from backstay.kube.errors import AlreadyExistsError, ApiError, NotFoundError
from backstay.kube.resource import Resource
from tests.unit.restore.objects import NOW

Object = dict[str, Any]


class Killed(BaseException):
    """The operator's process ends here."""


class FakeCluster:
    """Objects by kind, namespace and name; every call goes through ``interrupt`` first, which may raise.

    ``mover`` turns an order into a termination message; ``refuse`` says for a created object what error it meets.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str, str], Object] = {}
        self.events: list[tuple[str, str]] = []
        self.calls: list[str] = []
        self.interrupt: Callable[[str], None] = lambda call: None
        self.refuse: Callable[[Object], ApiError | None] = lambda body: None
        self.mover: Callable[[Object], Object] = ends_well
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self.put(kinds.NAMESPACES, {"metadata": {"name": "shop", "labels": {ENROLLED_LABEL: "true"}}})

    def put(self, resource: Resource, body: Object) -> Object:
        """Have an object there, as if somebody had created it."""
        body = copy.deepcopy(body)
        body.setdefault("apiVersion", resource.api_version)
        body.setdefault("kind", resource.kind)
        metadata = body["metadata"]
        number = str(next(self._numbers))
        metadata.setdefault("uid", f"uid-{number}")
        metadata["resourceVersion"] = number
        metadata.setdefault("creationTimestamp", NOW.isoformat())
        self.objects[_key(resource, metadata.get("namespace", ""), metadata["name"])] = body
        return copy.deepcopy(body)

    def names(self, resource: Resource) -> list[str]:
        """Names of all objects of a kind."""
        return sorted(key[3] for key in self.objects if key[:2] == (resource.group, resource.kind))

    def as_account(self, namespace: str, name: str = "backstay") -> FakeCluster:
        return self

    def find(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        self._call(f"get {resource.kind} {name}")
        found = self.objects.get(_key(resource, namespace, name))
        return copy.deepcopy(found)

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        found = self.find(resource, name, namespace)
        if found is None:
            raise NotFoundError(f"get {resource.kind} {name}", 404, "NotFound", "not found")
        return found

    def list(self, resource: Resource, namespace: str = "", labels: str = "") -> list[Object]:
        self._call(f"list {resource.kind}")
        wanted = dict(part.split("=", 1) for part in labels.split(",") if part)
        return [
            copy.deepcopy(body)
            for (group, kind, place, _), body in sorted(self.objects.items())
            if (group, kind) == (resource.group, resource.kind)
            and namespace in ("", place)
            and wanted.items() <= (body["metadata"].get("labels") or {}).items()
        ]

    def create(self, resource: Resource, body: Object, *, namespace: str = "", dry_run: bool = False) -> Object:
        name = body["metadata"]["name"]
        with self._lock:
            self._call(f"create {resource.kind} {name}")
            if error := self.refuse(body):
                raise error
            if _key(resource, namespace, name) in self.objects:
                raise AlreadyExistsError(f"create {resource.kind} {name}", 409, "AlreadyExists", "already exists")
            created = self.put(resource, {**body, "metadata": {**body["metadata"], "namespace": namespace}})
            if resource.kind == "Job" and COMPONENT_LABEL in (created["metadata"].get("labels") or {}):
                self._run(created)
        self._call(f"created {resource.kind} {name}")
        return created

    def ensure(self, resource: Resource, body: Object, *, namespace: str = "") -> Object:
        namespace = namespace or body["metadata"].get("namespace", "")
        try:
            return self.create(resource, body, namespace=namespace)
        except AlreadyExistsError:
            return self.get(resource, body["metadata"]["name"], namespace)

    def replace_status(self, resource: Resource, obj: Object, status: Object) -> Object:
        self._call(f"status {resource.kind}")
        written = self.put(resource, {**obj, "status": json.loads(json.dumps(status, default=lambda d: d.isoformat()))})
        self._call(f"wrote status {resource.kind}")
        return written

    def delete(self, resource: Resource, name: str, namespace: str = "", uid: str | None = None) -> bool:
        self._call(f"delete {resource.kind} {name}")
        gone = self.objects.pop(_key(resource, namespace, name), None) is not None
        for key in [k for k, body in self.objects.items() if _owner(body) == name]:
            del self.objects[key]
        return gone

    def discover(self) -> list[Resource]:
        return [value for value in vars(kinds).values() if isinstance(value, Resource)]

    def event(self, reference: Object, type: str, reason: str, message: str, action: str) -> None:
        self.events.append((type, reason))

    def log(self, namespace: str, pod: str, container: str, tail_lines: int) -> str:
        return ""

    def _call(self, call: str) -> None:
        self.calls.append(call)
        self.interrupt(call)

    def _run(self, job: Object) -> None:
        """The Job ends at once, as its mover says."""
        order = json.loads(job["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"])
        result = self.mover(order)
        ended = {"exitCode": 0 if result["ok"] else 10, "message": json.dumps(result)}
        metadata = job["metadata"]
        pod = {
            "metadata": {
                "name": f"{metadata['name']}-x",
                "namespace": metadata["namespace"],
                "labels": metadata["labels"],
                "ownerReferences": [{"kind": "Job", "name": metadata["name"]}],
            },
            "spec": {},
            "status": {
                "phase": "Succeeded" if result["ok"] else "Failed",
                "containerStatuses": [{"name": "mover", "state": {"terminated": ended}}],
            },
        }
        self.put(kinds.PODS, pod)
        condition = {"type": "Complete" if result["ok"] else "Failed", "status": "True"}
        self.put(kinds.JOBS, {**job, "status": {"conditions": [condition]}})


def ends_well(order: Object) -> Object:
    """The mover's last words when all went well."""
    volumes = [{"claim": v["claim"], "tree": v["tree"], "files": 1, "bytes": 2048} for v in order["volumes"]]
    return {"ok": True, "volumes": volumes}


def runs_out_of_space(order: Object) -> Object:
    """The mover's last words on a full disk."""
    return {"ok": False, "reason": "NoSpace", "message": "no space left on device", "permanent": True}


def _key(resource: Resource, namespace: str, name: str) -> tuple[str, str, str, str]:
    return resource.group, resource.kind, namespace, name


def _owner(body: Object) -> str:
    return next((owner["name"] for owner in body["metadata"].get("ownerReferences") or ()), "")
