"""Restore: bring a restore point back into the Restore's own namespace."""

from __future__ import annotations

from datetime import datetime

from backstay.api.meta import Condition, Meta, Struct
from backstay.api.names import ACCOUNT


class Source(Struct, frozen=True):
    """The Backup, in the same namespace, whose restore point is brought back."""

    backup: str


class RestoreSpec(Struct, frozen=True):
    """The wish. ``approve``: empty only counts what would be done; Create does it, touching nothing that exists."""

    source: Source
    approve: str = ""
    service_account_name: str = ACCOUNT
    storage_classes: dict[str, str] = {}


class RestoredResources(Struct, frozen=True):
    """Counts of objects; ``planned`` is the sum that the restore point holds for this namespace."""

    planned: int
    created: int
    kept: int
    failed: int


class RestoredVolume(Struct, frozen=True):
    """One claim. ``phase``: Pending, Filling, Filled, Kept, Empty, Failed. Sizes in bytes."""

    claim: str
    phase: str = ""
    storage_class: str = ""
    files: int = 0
    bytes: int = 0
    total_bytes: int | None = None
    warnings: tuple[str, ...] = ()
    warning_count: int = 0
    message: str = ""


class RestoreStatus(Struct, frozen=True):
    """The state. ``kept`` and ``warnings`` are cut to the first few; the counts are exact."""

    conditions: tuple[Condition, ...] = ()
    phase: str = ""
    message: str = ""
    snapshot: str = ""
    start_time: datetime | None = None
    completion_time: datetime | None = None
    resources: RestoredResources | None = None
    volumes: tuple[RestoredVolume, ...] = ()
    kept: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    progress: str = ""


class Restore(Struct, frozen=True):
    """A Restore object."""

    metadata: Meta
    spec: RestoreSpec
    status: RestoreStatus = RestoreStatus()
