"""Backup: one restore point, ordered (``capture``) or found in a repository (``restorePoint``)."""

from __future__ import annotations

from datetime import datetime

from backstay.api.meta import Condition, LabelSelector, Meta, Struct
from backstay.api.names import ACCOUNT
from backstay.api.policy import VolumeRule


class Capture(Struct, frozen=True):
    """An order: back up what this policy, in the same namespace, names."""

    policy: str


class RestorePointReference(Struct, frozen=True):
    """A restore point that the catalogue found: its committing snapshot (64 hex digits)."""

    storage: str
    snapshot: str


class BackupSpec(Struct, frozen=True):
    """Exactly one of the two is set."""

    capture: Capture | None = None
    restore_point: RestorePointReference | None = None


class Effective(Struct, frozen=True):
    """The policy's fields as they were when the Backup started: a later edit does not change a running Backup."""

    storage: str
    service_account_name: str = ACCOUNT
    selector: LabelSelector | None = None
    volumes: tuple[VolumeRule, ...] = ()


class ResourcesStatus(Struct, frozen=True):
    """The captured resources: their number, their size as JSON in bytes, and their tree in the repository."""

    count: int = 0
    bytes: int = 0
    tree: str = ""


class VolumeStatus(Struct, frozen=True):
    """One claim. ``phase``: Pending, Cutting, Moving, Done, Skipped, Failed. Sizes in bytes."""

    claim: str
    method: str = ""
    phase: str = ""
    consistency: str = ""
    snapshot: str = ""
    tree: str = ""
    files: int = 0
    bytes: int = 0
    total_bytes: int | None = None
    added_bytes: int = 0
    warnings: tuple[str, ...] = ()
    warning_count: int = 0
    message: str = ""


class BackupStatus(Struct, frozen=True):
    """The state. ``phase`` is derived from the condition Succeeded and is never read back."""

    conditions: tuple[Condition, ...] = ()
    phase: str = ""
    message: str = ""
    effective: Effective | None = None
    storage: str = ""
    application: str = ""
    snapshot: str = ""
    start_time: datetime | None = None
    cut_time: datetime | None = None
    completion_time: datetime | None = None
    resources: ResourcesStatus | None = None
    volumes: tuple[VolumeStatus, ...] = ()
    warnings: tuple[str, ...] = ()
    progress: str = ""


class Backup(Struct, frozen=True):
    """A Backup object."""

    metadata: Meta
    spec: BackupSpec
    status: BackupStatus = BackupStatus()
