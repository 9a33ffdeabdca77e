"""The application's claims: which they are, and the facts of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from backstay.api.meta import LabelSelector
from backstay.capture.selection import selector_text
from backstay.capture.skipped import skip_reason
from backstay.kube.client import Client
from backstay.kube.errors import ForbiddenError, NotFoundError
from backstay.kube.resource import (
    CLAIMS,
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
    STORAGE_CLASSES,
    VOLUME_SNAPSHOT_CLASSES,
    VOLUMES,
    Resource,
)
from backstay.volumes.claims import ClaimFacts, as_idle_pods, claim_facts, claims_of_pod
from backstay.volumes.method import Classes, SnapshotClass, StorageClass

Object = dict[str, Any]

_WORKLOADS = (STATEFUL_SETS, DEPLOYMENTS, DAEMON_SETS, REPLICA_SETS, CRON_JOBS, JOBS)


@dataclass(frozen=True)
class NamespaceView:
    """What tells about claims in a namespace: all its claims and pods, and the workloads that are selected."""

    claims: tuple[Object, ...]
    pods: tuple[Object, ...]
    workloads: tuple[Object, ...]


def view_namespace(account: Client, namespace: str, selector: LabelSelector | None) -> NamespaceView:
    """Read the namespace with the account's rights. Raises ForbiddenError when it may not list claims or pods."""
    return NamespaceView(
        claims=tuple(account.list(CLAIMS, namespace)),
        pods=tuple(account.list(PODS, namespace)),
        workloads=tuple(
            workload
            for resource in _WORKLOADS
            for workload in _list_if_allowed(account, resource, namespace, selector_text(selector))
        ),
    )


def claims_of_application(view: NamespaceView, selector: LabelSelector | None) -> list[str]:
    """Names of the claims that are selected themselves, or that selected pods or workloads mount, in order."""
    selector = selector or LabelSelector()
    existing = {claim["metadata"]["name"]: claim for claim in view.claims if not skip_reason(CLAIMS, claim)}
    names = {name for name, claim in existing.items() if selector.matches(claim["metadata"].get("labels"))}
    selected = [pod for pod in view.pods if selector.matches(pod["metadata"].get("labels"))]
    for pod in [*selected, *_idle_pods(view)]:
        names.update(name for name in claims_of_pod(pod) if name in existing)
    return sorted(names)


def facts_of(client: Client, view: NamespaceView, names: Iterable[str]) -> dict[str, ClaimFacts]:
    """The facts of the named claims, as far as they exist. Volumes are read with the operator's own rights."""
    idle = _idle_pods(view)
    claims = {claim["metadata"]["name"]: claim for claim in view.claims}
    facts = {}
    for name in names:
        if claim := claims.get(name):
            volume_name = claim.get("spec", {}).get("volumeName")
            volume = client.find(VOLUMES, volume_name) if volume_name else None
            facts[name] = claim_facts(claim, volume, view.pods, idle)
    return facts


def read_classes(client: Client) -> Classes:
    """What the cluster offers for volumes and their snapshots."""
    return Classes(
        snapshot=tuple(SnapshotClass.of(c) for c in list_if_served(client, VOLUME_SNAPSHOT_CLASSES)),
        storage=tuple(StorageClass.of(c) for c in client.list(STORAGE_CLASSES)),
    )


def list_if_served(client: Client, resource: Resource, namespace: str = "", labels: str = "") -> list[Object]:
    """All objects of a kind that not every cluster has."""
    try:
        return client.list(resource, namespace, labels)
    except NotFoundError:
        return []


def _idle_pods(view: NamespaceView) -> list[Any]:
    names = [claim["metadata"]["name"] for claim in view.claims]
    return [pod for workload in view.workloads for pod in as_idle_pods(workload, names)]


def _list_if_allowed(account: Client, resource: Resource, namespace: str, labels: str) -> list[Object]:
    try:
        return account.list(resource, namespace, labels)
    except ForbiddenError:
        return []  # told as a warning when the resources are captured
