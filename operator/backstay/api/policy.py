"""BackupPolicy: which application, when, and how its volumes are read."""

from __future__ import annotations

from datetime import datetime

from backstay.api.meta import Condition, LabelSelector, Meta, Reference, Struct
from backstay.api.names import ACCOUNT


class Schedule(Struct, frozen=True):
    """Five cron fields, or a macro such as ``@daily``, read in an IANA time zone."""

    cron: str
    time_zone: str = "UTC"


class VolumeRule(Struct, frozen=True):
    """How claims are read that this rule's selector matches (absent: all). ``method``: Auto, Snapshot, Live or Skip."""

    selector: LabelSelector = LabelSelector()
    method: str = "Auto"


class BackupPolicySpec(Struct, frozen=True):
    """The wish."""

    storage: Reference
    service_account_name: str = ACCOUNT
    selector: LabelSelector | None = None
    schedule: Schedule | None = None
    suspend: bool = False
    volumes: tuple[VolumeRule, ...] = ()


class BackupPolicyStatus(Struct, frozen=True):
    """The state; times are UTC."""

    conditions: tuple[Condition, ...] = ()
    last_schedule_time: datetime | None = None
    next_schedule_time: datetime | None = None
    last_backup: str = ""
    last_success_time: datetime | None = None


class BackupPolicy(Struct, frozen=True):
    """A BackupPolicy object."""

    metadata: Meta
    spec: BackupPolicySpec
    status: BackupPolicyStatus = BackupPolicyStatus()
