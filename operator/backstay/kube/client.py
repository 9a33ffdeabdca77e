"""Verbs on Kubernetes objects, as plain dicts, with the operator's own rights or an account's."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from backstay.api.names import ACCOUNT, ACCOUNT_GROUP
from backstay.kube.discovery import AGGREGATED, resources_of
from backstay.kube.errors import AlreadyExistsError, ApiError, ConflictError, ExpiredError, NotFoundError
from backstay.kube.event import build_event, count_again
from backstay.kube.resource import EVENTS, PODS, Resource
from backstay.kube.transport import Transport

logger = logging.getLogger(__name__)

Object = dict[str, Any]
# Named here, since inside the class `list` is the method.
Objects = list[Object]
Resources = list[Resource]

#: Objects in one page of a list: few enough that the API server answers at once.
PAGE = 500
_RESTARTS = 5


@dataclass(frozen=True)
class Client:
    """The API server, seen with one identity. Thread-safe; every method raises ApiError unless it says otherwise."""

    transport: Transport
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def connect(cls) -> Client:
        """With the pod's service account, or outside of a cluster with KUBECONFIG."""
        return cls(Transport.connect())

    def as_account(self, namespace: str, name: str = ACCOUNT) -> Client:
        """The same connections, with the rights of a service account; the operator must hold ``impersonate`` on it."""
        headers = {"Impersonate-User": f"system:serviceaccount:{namespace}:{name}"}
        if name == ACCOUNT:
            headers["Impersonate-Group"] = ACCOUNT_GROUP
        # Others without groups: naming them would need rights on each; without them the server adds the account's own.
        return replace(self, headers=headers)

    def limited_to(self, seconds: float) -> Client:
        """The same identity, but each call gives up after about so many seconds, without a second try."""
        return replace(self, transport=self.transport.limited_to(seconds))

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        """One object. Raises NotFoundError."""
        return self._call("get", "GET", resource, namespace, name)

    def find(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        """One object, or None when there is none (or when the cluster does not serve its kind)."""
        try:
            return self.get(resource, name, namespace)
        except NotFoundError:
            return None

    def list(self, resource: Resource, namespace: str = "", labels: str = "") -> Objects:
        """All objects of one namespace (empty: of the cluster) that the label selector names. Never only a part."""
        for _ in range(_RESTARTS):
            try:
                return self._pages(resource, namespace, labels)
            except ExpiredError:
                logger.debug("list of %s expired on the way and is started anew", resource.title(namespace))
        return self._pages(resource, namespace, labels, limit=0)

    def create(self, resource: Resource, body: Object, *, namespace: str = "", dry_run: bool = False) -> Object:
        """Create an object. Raises AlreadyExistsError."""
        namespace, name = _place(body, namespace)
        query = {"dryRun": "All"} if dry_run else {}
        return self._call("create", "POST", resource, namespace, name, body=body, query=query, path_name=False)

    def ensure(self, resource: Resource, body: Object, *, namespace: str = "") -> Object:
        """The object of this deterministic name: created now, or the one that an earlier try created."""
        namespace, name = _place(body, namespace)
        try:
            return self.create(resource, body, namespace=namespace)
        except AlreadyExistsError:
            return self.get(resource, name, namespace)

    def replace(self, resource: Resource, body: Object, namespace: str = "") -> Object:
        """Write an object whole. Raises ConflictError when it has changed since ``body`` was read."""
        namespace, name = _place(body, namespace)
        return self._call("replace", "PUT", resource, namespace, name, body=body)

    def apply(self, resource: Resource, body: Object, namespace: str = "", field_manager: str = "backstay") -> Object:
        """Server-side apply, taking over fields that others set."""
        namespace, name = _place(body, namespace)
        query = {"fieldManager": field_manager, "force": "true"}
        return self._call(
            "apply",
            "PATCH",
            resource,
            namespace,
            name,
            body=body,
            query=query,
            content_type="application/apply-patch+yaml",
        )

    def patch(self, resource: Resource, name: str, patch: Object, namespace: str = "") -> Object:
        """Change some fields by a JSON merge patch."""
        content_type = "application/merge-patch+json"
        return self._call("patch", "PATCH", resource, namespace, name, body=patch, content_type=content_type)

    def replace_status(self, resource: Resource, obj: Object, status: Object) -> Object:
        """Write the status whole. Raises ConflictError when the object has changed since ``obj`` was read.

        Whole, since fields with default values are left out of ours: a merge would keep their old values.
        """
        namespace, name = _place(obj, "")
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **obj, "status": status}
        return self._call("write status of", "PUT", resource, namespace, name, body=body, subresource="status")

    def delete(self, resource: Resource, name: str, namespace: str = "", uid: str | None = None) -> bool:
        """Delete an object, its dependents by the garbage collector. False when it is gone, or not of this ``uid``."""
        body: Object = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            self._call("delete", "DELETE", resource, namespace, name, body=body)
        except NotFoundError:
            return False
        except ConflictError:
            if uid:
                return False
            raise
        return True

    def discover(self) -> Resources:
        """Every kind that the cluster serves and lists, each in the version that the cluster prefers."""
        found: Resources = []
        for path in ("/api", "/apis"):
            answer = self.transport.request(
                "discover the served kinds", "GET", path, headers={**self.headers, "Accept": AGGREGATED}
            )
            found += resources_of(json.loads(answer))
        return found

    def version(self) -> str:
        """The cluster's version, as in ``v1.37.0``."""
        answer = self.transport.request("read the cluster's version", "GET", "/version", headers=self.headers)
        return str(json.loads(answer).get("gitVersion", ""))

    def log(self, namespace: str, pod: str, container: str, tail_lines: int) -> str:
        """The last lines that a container wrote."""
        answer = self.transport.request(
            f"read log of Pod {namespace}/{pod}",
            "GET",
            PODS.path(namespace, pod, "log"),
            query={"container": container, "tailLines": str(tail_lines)},
            headers={**self.headers, "Accept": "*/*"},
        )
        return answer.decode(errors="replace")

    def event(self, reference: Mapping[str, Any], type: str, reason: str, message: str, action: str) -> None:
        """Tell the user what happened to an object, where ``kubectl describe`` shows it.

        ``reference`` has apiVersion, kind, name, namespace, uid; ``type`` is Normal or Warning. The same event again
        only counts up. A failure to write it is logged and nothing else: status is the truth, events are the story.
        """
        event = build_event(reference, type, reason, message, action, datetime.now(UTC))
        place = event["metadata"]["namespace"], event["metadata"]["name"]
        try:
            try:
                self.create(EVENTS, event)
            except AlreadyExistsError:
                old = self.get(EVENTS, place[1], place[0])
                self.patch(EVENTS, place[1], count_again(old, datetime.now(UTC)), place[0])
        except ApiError as error:
            logger.warning("event %s of %s/%s not written: %s", reason, *place, error)

    def _pages(self, resource: Resource, namespace: str, labels: str, limit: int = PAGE) -> Objects:
        items: Objects = []
        query = {"limit": str(limit)} if limit else {}
        if labels:
            query["labelSelector"] = labels
        while True:
            page = self._call("list", "GET", resource, namespace, "", query=query, path_name=False)
            for item in page.get("items") or []:
                # Lists leave them out of their items; whoever gets an item needs them.
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
                items.append(item)
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return items
            query["continue"] = token

    def _call(
        self,
        verb: str,
        method: str,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        subresource: str | None = None,
        path_name: bool = True,
    ) -> Object:
        answer = self.transport.request(
            f"{verb} {resource.title(namespace, name)}",
            method,
            resource.path(namespace, name if path_name else None, subresource),
            query=query,
            body=body,
            content_type=content_type,
            headers=self.headers,
        )
        document: Object = json.loads(answer) if answer else {}
        return document


def _place(body: Mapping[str, Any], namespace: str) -> tuple[str, str]:
    """Namespace and name of an object; a namespace given beside it wins."""
    metadata = body.get("metadata") or {}
    return namespace or metadata.get("namespace") or "", metadata.get("name") or ""
