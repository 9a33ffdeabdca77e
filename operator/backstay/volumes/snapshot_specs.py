"""The temporary objects that make one moment of a volume readable: a VolumeSnapshot, and a claim made from it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from backstay.api.names import COMPONENT_LABEL, OWNER_LABEL, short_hash

_UNITS: Mapping[str, int | Decimal] = {
    "": 1,
    "m": Decimal("0.001"),
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
    "Ei": 2**60,
}


def temporary_name(owner_uid: str, claim: str) -> str:
    """The name of everything temporary that serves this claim for this owner, the same on every try.

    The claim's own name, as far as it fits, is there for the reader; the hash makes it unique.
    """
    return f"backstay-{claim[:30].rstrip('-.').replace('.', '-')}-{short_hash(owner_uid, claim, length=10)}"


def temporary_metadata(name: str, owner: Mapping[str, Any], component: str) -> dict[str, Any]:
    """Metadata by which a thing is found again, is never captured, and goes when its owner goes."""
    return {
        "name": name,
        "labels": {
            "app.kubernetes.io/managed-by": "backstay",
            COMPONENT_LABEL: component,
            OWNER_LABEL: owner["uid"],
        },
        "ownerReferences": [dict(owner)],
    }


def build_snapshot(owner: Mapping[str, Any], claim: str, snapshot_class: str) -> dict[str, Any]:
    """A VolumeSnapshot of the claim."""
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": temporary_metadata(temporary_name(owner["uid"], claim), owner, "temporary"),
        "spec": {"volumeSnapshotClassName": snapshot_class, "source": {"persistentVolumeClaimName": claim}},
    }


def build_temporary_claim(
    owner: Mapping[str, Any], claim: str, *, storage_class: str, capacity: str, restore_size: str
) -> dict[str, Any]:
    """A claim whose volume is filled from the claim's VolumeSnapshot.

    ``capacity`` is that of the source, ``restore_size`` what the snapshot says it needs at least (may be empty): a
    volume that was expanded needs the one, a driver that rounds up the other.
    """
    name = temporary_name(owner["uid"], claim)
    size = max((capacity, restore_size), key=quantity)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": temporary_metadata(name, owner, "temporary"),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": size}},
            "dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name},
        },
    }


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity as a number; empty is zero. Raises ValueError when it is none."""
    if not text:
        return Decimal(0)
    digits = text.rstrip("mkKMGTPEi")
    try:
        return Decimal(digits) * _UNITS[text[len(digits) :]]
    except (InvalidOperation, KeyError):
        raise ValueError(f"{text!r} is not a quantity") from None
