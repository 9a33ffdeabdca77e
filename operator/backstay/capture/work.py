"""What every stage of a capture works with, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backstay.api.backup import Backup, BackupStatus, Effective
from backstay.api.meta import object_reference
from backstay.api.names import TAG_BACKUP, TAG_POLICY, tag
from backstay.capture import outcome
from backstay.kube.client import Client
from backstay.kube.runtime import Runtime
from backstay.repository import Repository
from backstay.storage import open_repository

#: Seconds between looks at what is under way.
POLL = 1.5
#: Seconds between looks at what somebody else has to put right.
SLOW_POLL = 5.0


@dataclass(frozen=True)
class Work:
    """One look at one Backup, with the time of the look."""

    runtime: Runtime
    backup: Backup
    now: datetime

    @property
    def namespace(self) -> str:
        return self.backup.metadata.namespace

    @property
    def status(self) -> BackupStatus:
        return self.backup.status

    @property
    def policy(self) -> str:
        """Name of the policy that was ordered."""
        assert self.backup.spec.capture is not None
        return self.backup.spec.capture.policy

    @property
    def effective(self) -> Effective:
        """The policy's fields, frozen when the Backup started."""
        assert self.status.effective is not None
        return self.status.effective

    @property
    def account(self) -> Client:
        """The API with the rights of the namespace's account: for what Backstay makes there."""
        return self.runtime.client.as_account(self.namespace)

    @property
    def reader(self) -> Client:
        """The API with the rights of the account that the policy names: for what is the application's."""
        return self.runtime.client.as_account(self.namespace, self.effective.service_account_name)

    @property
    def owner(self) -> dict[str, Any]:
        """The ownerReference by which temporary objects go with the Backup."""
        return object_reference("Backup", self.backup.metadata)

    @property
    def host(self) -> str:
        """The host under which this namespace's snapshots are kept in a repository."""
        return f"{self.runtime.cluster_id}/{self.namespace}"

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of every snapshot of this restore point."""
        return tag(TAG_BACKUP, self.backup.metadata.uid), tag(TAG_POLICY, self.policy)

    @property
    def holder(self) -> str:
        """In whose name this process locks a repository."""
        return self.runtime.settings.identity

    def repository(self, *, write: bool) -> Repository:
        """The Backup's repository. Raises StorageError, UnavailableError."""
        return open_repository(self.runtime, self.namespace, self.effective.storage, write=write)

    def running(self, status: BackupStatus, reason: str, message: str) -> BackupStatus:
        return outcome.running(self.backup, status, reason, message, self.now)

    def waiting(self, status: BackupStatus, reason: str, message: str) -> BackupStatus:
        return outcome.waiting(self.backup, status, reason, message, self.now)

    def finishing(self, status: BackupStatus, reason: str, message: str) -> BackupStatus:
        return outcome.finishing(self.backup, status, reason, message, self.now)


@dataclass(frozen=True)
class Step:
    """A stage's answer: the status to write, and the seconds until the next look (None: on the next event)."""

    status: BackupStatus
    again: float | None = POLL
