"""The temporary objects of one Backup: which there are, and in which order they go.

Jobs first, since a pod holds its claims; then claims, since some drivers refuse to delete a snapshot that a volume
still depends on; then snapshots. An object that is being deleted counts until it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from backstay.api.names import OWNER_LABEL
from backstay.capture.inventory import list_if_served
from backstay.kube.client import Client
from backstay.kube.resource import CLAIMS, JOBS, PODS, VOLUME_SNAPSHOTS, Resource

Object = dict[str, Any]


@dataclass(frozen=True)
class Temporaries:
    """What exists now. Jobs, claims and snapshots are by name, which is the same for all that serve one claim."""

    jobs: dict[str, Object]
    pods: tuple[Object, ...]
    claims: dict[str, Object]
    snapshots: dict[str, Object]

    def pods_of(self, job: str) -> list[Object]:
        """The pods of the Job of this name."""
        return [pod for pod in self.pods if _job_of(pod) == job]

    def titles(self) -> list[str]:
        """All of them in words, for messages."""
        return [
            f"{kind} {name}"
            for kind, found in (
                ("Job", self.jobs),
                ("PersistentVolumeClaim", self.claims),
                ("VolumeSnapshot", self.snapshots),
            )
            for name in found
        ]


def find_temporaries(account: Client, namespace: str, owner_uid: str) -> Temporaries:
    """Everything that serves this Backup, with the rights of the namespace's account."""
    labels = f"{OWNER_LABEL}={owner_uid}"
    return Temporaries(
        jobs=_by_name(account.list(JOBS, namespace, labels)),
        pods=tuple(account.list(PODS, namespace, labels)),
        claims=_by_name(account.list(CLAIMS, namespace, labels)),
        snapshots=_by_name(list_if_served(account, VOLUME_SNAPSHOTS, namespace, labels)),
    )


def next_removals(found: Temporaries, names: Iterable[str] | None = None) -> list[tuple[Resource, Object]]:
    """What may be deleted now of the temporaries with these names (None: of all); those under way are left out."""
    wanted = _all_names(found) if names is None else set(names)
    return [removal for name in sorted(wanted) for removal in _next(found, name)]


def _next(found: Temporaries, name: str) -> Iterator[tuple[Resource, Object]]:
    stages: list[list[tuple[Resource, Object]]] = [
        [(JOBS, found.jobs[name])] if name in found.jobs else [],
        [(PODS, pod) for pod in found.pods_of(name)],
        [(CLAIMS, found.claims[name])] if name in found.claims else [],
        [(VOLUME_SNAPSHOTS, found.snapshots[name])] if name in found.snapshots else [],
    ]
    for stage in stages:
        if stage:
            yield from ((r, obj) for r, obj in stage if not obj["metadata"].get("deletionTimestamp"))
            return


def remove(account: Client, namespace: str, removals: Iterable[tuple[Resource, Object]]) -> None:
    """Delete these objects, and no others that may have taken their names."""
    for resource, obj in removals:
        account.delete(resource, obj["metadata"]["name"], namespace, uid=obj["metadata"]["uid"])


def _all_names(found: Temporaries) -> set[str]:
    return {*found.jobs, *found.claims, *found.snapshots, *(_job_of(pod) for pod in found.pods)}


def _job_of(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get("batch.kubernetes.io/job-name", ""))


def _by_name(objects: Iterable[Object]) -> dict[str, Object]:
    return {obj["metadata"]["name"]: obj for obj in objects}
