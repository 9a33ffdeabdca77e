"""Looking at the cluster: what a Restore's decisions are made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backstay.api.names import COMPONENT_LABEL, OWNER_LABEL, RESTORED_LABEL
from backstay.api.restore import Restore
from backstay.kube.client import Client
from backstay.kube.errors import ApiError, ForbiddenError, NotFoundError
from backstay.kube.resource import DAEMON_SETS, DEPLOYMENTS, EVENTS, JOBS, NAMESPACES, PODS, STATEFUL_SETS, Resource
from backstay.kube.runtime import Runtime
from backstay.restore.contents import Contents, Identity
from backstay.restore.errors import RestoreError
from backstay.restore.plan import Observed, claim_users
from backstay.restore.strip import Object
from backstay.volumes.identity import PSA_ENFORCE_LABEL
from backstay.volumes.mover_job import CONTAINER
from backstay.volumes.mover_state import MoverState, mover_state

_LOG_LINES = 20


@dataclass(frozen=True)
class Movers:
    """This Restore's mover Jobs by name, their pods, and what is told about them."""

    jobs: dict[str, Object]
    pods: list[Object]
    events: list[Object]


def applier(runtime: Runtime, restore: Restore) -> Client:
    """The client with the rights of the account that the Restore names: for the application's objects."""
    return runtime.client.as_account(restore.metadata.namespace, restore.spec.service_account_name)


def keeper(runtime: Runtime, restore: Restore) -> Client:
    """The client with the rights of the namespace's own account: for movers, and for looking."""
    return runtime.client.as_account(restore.metadata.namespace)


def observe(runtime: Runtime, restore: Restore, contents: Contents) -> Observed:
    """The kinds that are served, the live objects of the point's identities, and who uses claims.

    Raises RestoreError when the Restore's account may not look.
    """
    client, namespace = applier(runtime, restore), restore.metadata.namespace
    served = {(r.group, r.kind): r for r in runtime.client.discover()}
    wanted: dict[tuple[str, str], set[str]] = {}
    for stored in contents.objects:
        wanted.setdefault((stored.identity.group, stored.identity.kind), set()).add(stored.identity.name)
    existing: dict[Identity, Object] = {}
    try:
        for (group, kind), names in wanted.items():
            resource = served.get((group, kind))
            if resource is None or not resource.namespaced:
                continue
            for item in _list(client, resource, namespace):
                name = item["metadata"]["name"]
                if name in names:
                    existing[Identity(group, kind, name)] = item
    except ForbiddenError as error:
        raise RestoreError(
            "AccountForbidden",
            f"ServiceAccount {restore.spec.service_account_name} lacks a right that the Restore needs: {error.message}",
        ) from error
    pods = keeper(runtime, restore).list(PODS, namespace)
    return Observed(served, existing, claim_users(pods))


def _list(client: Client, resource: Resource, namespace: str) -> list[Object]:
    try:
        return client.list(resource, namespace)
    except NotFoundError:  # its CustomResourceDefinition went away since discovery
        return []


def observe_movers(runtime: Runtime, restore: Restore) -> Movers:
    """The mover Jobs that this Restore has, found by label, so that those of a run before a restart are among them."""
    client, namespace = keeper(runtime, restore), restore.metadata.namespace
    labels = f"{OWNER_LABEL}={restore.metadata.uid},{COMPONENT_LABEL}=mover"
    jobs = {job["metadata"]["name"]: job for job in client.list(JOBS, namespace, labels)}
    pods = client.list(PODS, namespace, labels) if jobs else []
    waits = any((pod.get("status") or {}).get("phase", "Pending") == "Pending" for pod in pods) or len(pods) < len(jobs)
    return Movers(jobs, pods, client.list(EVENTS, namespace) if waits else [])


def look_at(runtime: Runtime, restore: Restore, movers: Movers, name: str, claims: Iterable[str]) -> MoverState:
    """What the mover Job of this name is doing."""
    pods = [pod for pod in movers.pods if _job_of(pod) == name]
    about = {name, *claims, *(pod["metadata"]["name"] for pod in pods)}
    events = [event for event in movers.events if (event.get("regarding") or {}).get("name") in about]
    return mover_state(movers.jobs[name], pods, events, _log_tail(runtime, restore, pods), now=runtime.now())


def _job_of(pod: Object) -> str:
    owners = pod["metadata"].get("ownerReferences") or ()
    return next((owner["name"] for owner in owners if owner.get("kind") == "Job"), "")


def _log_tail(runtime: Runtime, restore: Restore, pods: list[Object]) -> str:
    running = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
    if not running:
        return ""
    try:
        name = running[-1]["metadata"]["name"]
        return keeper(runtime, restore).log(restore.metadata.namespace, name, CONTAINER, _LOG_LINES)
    except ApiError:  # progress is a courtesy: a node that does not answer must not end a Restore that goes well
        return ""


def observe_workloads(runtime: Runtime, restore: Restore) -> tuple[list[Object], list[Object]]:
    """The workloads that this Restore made, and all pods of the namespace."""
    client, namespace = keeper(runtime, restore), restore.metadata.namespace
    labels = f"{RESTORED_LABEL}={restore.metadata.uid}"
    kinds = (DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS, PODS)
    workloads = [item for resource in kinds for item in client.list(resource, namespace, labels)]
    return workloads, client.list(PODS, namespace)


def pod_security(runtime: Runtime, namespace: str) -> str:
    """The Pod Security level that the namespace enforces; empty for none."""
    found = runtime.client.get(NAMESPACES, namespace)
    return str((found["metadata"].get("labels") or {}).get(PSA_ENFORCE_LABEL, ""))
