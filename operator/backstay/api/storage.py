"""BackupStorage: a repository in S3-compatible storage, and the Secrets that open it."""

from __future__ import annotations

from datetime import datetime

from backstay.api.meta import Condition, KeyReference, Meta, Reference, Struct


class PasswordReference(Struct, frozen=True):
    """The key of a Secret that holds the repository's password."""

    name: str
    key: str = "password"


class S3(Struct, frozen=True):
    """Where the repository lies. No credentials: the pod's own identity is used."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    force_path_style: bool = False
    credentials_secret_ref: Reference | None = None
    ca_secret_ref: KeyReference | None = None


class BackupStorageSpec(Struct, frozen=True):
    """The wish. ``access_mode`` is ReadWrite or ReadOnly, ``catalogue`` is Own or All."""

    s3: S3
    password_secret_ref: PasswordReference
    access_mode: str = "ReadWrite"
    catalogue: str = "Own"


class BackupStorageStatus(Struct, frozen=True):
    """The state. ``restore_points`` counts those that the catalogue shows in this namespace."""

    conditions: tuple[Condition, ...] = ()
    repository_id: str = ""
    restore_points: int | None = None
    last_probe_time: datetime | None = None


class BackupStorage(Struct, frozen=True):
    """A BackupStorage object."""

    metadata: Meta
    spec: BackupStorageSpec
    status: BackupStorageStatus = BackupStorageStatus()
