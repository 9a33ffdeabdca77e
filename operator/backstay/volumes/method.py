"""How a claim's data are read: by snapshot, live, or not at all, and in words why.

A snapshot is one moment of the volume, so Auto prefers it wherever the driver can make one that we are able to remove
again: classes that retain what they made would leave a disk behind with every Backup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backstay.api.policy import VolumeRule
from backstay.volumes.claims import ClaimFacts

SNAPSHOT, LIVE, SKIP = "Snapshot", "Live", "Skip"

_DEFAULT_CLASS = "snapshot.storage.kubernetes.io/is-default-class"


@dataclass(frozen=True)
class SnapshotClass:
    """A VolumeSnapshotClass."""

    name: str
    driver: str
    deletion_policy: str = "Delete"
    default: bool = False

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> SnapshotClass:
        """From the API object."""
        annotations = source["metadata"].get("annotations") or {}
        default = annotations.get(_DEFAULT_CLASS) == "true"
        return cls(source["metadata"]["name"], source["driver"], source.get("deletionPolicy", ""), default)


@dataclass(frozen=True)
class StorageClass:
    """A StorageClass."""

    name: str
    provisioner: str
    reclaim_policy: str = "Delete"
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> StorageClass:
        """From the API object."""
        return cls(
            source["metadata"]["name"],
            source["provisioner"],
            source.get("reclaimPolicy") or "Delete",
            source.get("parameters") or {},
        )


@dataclass(frozen=True)
class Classes:
    """What the cluster offers."""

    snapshot: tuple[SnapshotClass, ...] = ()
    storage: tuple[StorageClass, ...] = ()


@dataclass(frozen=True)
class MethodDecision:
    """What to do with one claim.

    ``method`` is Snapshot, Live or Skip, or empty when it is impossible; then ``reason`` says why and what would help.
    ``degraded`` marks a result that is less than what was asked for: the Backup warns with the reason.
    """

    method: str
    reason: str = ""
    degraded: bool = False
    snapshot_class: str = ""
    storage_class: str = ""


def decide_method(claim: ClaimFacts, rules: Sequence[VolumeRule], classes: Classes) -> MethodDecision:
    """How this claim is read: what the first matching rule says, else Auto."""
    wish = wished_method(claim.labels, rules)
    if wish == SKIP:
        return MethodDecision(SKIP, "skipped by the policy")
    if claim.phase == "Pending":
        return MethodDecision(
            SKIP,
            "the claim is not bound to a volume yet, so it has no data; its first pod brings them into being",
            degraded=True,
        )
    if claim.phase == "Lost":
        return _impossible("the volume behind the claim is gone; delete the claim, or skip it by a rule in the policy")
    if claim.volume_mode == "Block":
        return _impossible(
            "the claim's volumeMode is Block, which is not supported yet; skip it by a rule in the policy's volumes"
        )
    if wish == LIVE:
        return _live(claim, "")
    chosen, obstacle = _snapshot(claim, classes)
    if chosen:
        return chosen
    if wish == SNAPSHOT:
        return _impossible(f"the policy asks for a snapshot, but {obstacle}")
    # A driver that cannot snapshot is normal; one whose classes keep us from it is worth saying.
    capable = any(c.driver == claim.driver for c in classes.snapshot)
    return _live(claim, f"read live, because {obstacle}" if capable else "")


def wished_method(labels: Mapping[str, str], rules: Iterable[VolumeRule]) -> str:
    """The method that the first matching rule asks for; Auto when none matches."""
    return next((rule.method for rule in rules if rule.selector.matches(labels)), "Auto")


def _impossible(reason: str) -> MethodDecision:
    return MethodDecision("", reason)


def _live(claim: ClaimFacts, reason: str) -> MethodDecision:
    if "ReadWriteOncePod" in claim.access_modes and claim.pods:
        pod = claim.pods[0]["metadata"]["name"]
        return _impossible(
            f"the claim is ReadWriteOncePod and pod {pod} has it, so no mover can read it live; "
            "use a driver with a VolumeSnapshotClass, or skip the claim by a rule in the policy's volumes"
        )
    return MethodDecision(LIVE, reason, degraded=bool(reason))


def _snapshot(claim: ClaimFacts, classes: Classes) -> tuple[MethodDecision | None, str]:
    """The decision for a snapshot, or None and what stands against it."""
    if not claim.driver:
        return None, "its volume does not come from a CSI driver"
    fitting = [c for c in classes.snapshot if c.driver == claim.driver]
    if not fitting:
        return None, f"there is no VolumeSnapshotClass for the CSI driver {claim.driver}"
    removable = [c for c in fitting if c.deletion_policy == "Delete"]
    if not removable:
        names = ", ".join(sorted(c.name for c in fitting))
        return None, (
            f"every VolumeSnapshotClass of the CSI driver {claim.driver} ({names}) has deletionPolicy Retain, which "
            "would leave a snapshot behind with each Backup; add a class with deletionPolicy Delete"
        )
    storage_class = temporary_class(claim.storage_class, claim.driver, classes.storage)
    if storage_class is None:
        return None, (
            f"its storage class {claim.storage_class or '(none)'} cannot make a temporary claim that goes when "
            f"deleted; add a StorageClass with provisioner {claim.driver}, the same parameters and reclaimPolicy Delete"
        )
    chosen = min(removable, key=lambda c: (not c.default, c.name))
    return MethodDecision(SNAPSHOT, snapshot_class=chosen.name, storage_class=storage_class), ""


def temporary_class(storage_class: str, driver: str, classes: Sequence[StorageClass]) -> str | None:
    """The class for a claim from a snapshot: the source's own if its volumes are deleted with their claims, else one
    that differs in nothing else; None when there is none.
    """
    own = next((c for c in classes if c.name == storage_class), None)
    if own and own.provisioner == driver and own.reclaim_policy == "Delete":
        return own.name
    alike = [
        c.name
        for c in classes
        if c.provisioner == driver
        and c.reclaim_policy == "Delete"
        and (own is None or dict(c.parameters) == dict(own.parameters))
    ]
    return min(alike, default=None)
