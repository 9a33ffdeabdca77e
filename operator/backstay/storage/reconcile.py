"""BackupStorage: enrolled, Secrets there, bucket usable, repository open, and its restore points shown."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from backstay.api.meta import find_condition, parse, to_json
from backstay.api.storage import BackupStorage, BackupStorageStatus
from backstay.kube.enrolment import ensure_enrolled
from backstay.kube.errors import ForbiddenError
from backstay.kube.event import regarding
from backstay.kube.resource import NETWORK_POLICIES, STORAGES
from backstay.kube.runtime import Runtime
from backstay.repository import Repository, RepositoryError
from backstay.storage import catalogue, readiness
from backstay.storage.access import forget, open_to_read
from backstay.storage.errors import StorageError, explain
from backstay.storage.network import build_network_policy
from backstay.storage.probe import prove
from backstay.storage.readiness import READY, Refusal

logger = logging.getLogger(__name__)

CATALOGUE_INTERVAL = timedelta(seconds=60)
#: A namespace that is not enrolled is also noticed by the watch on namespaces.
ENROLMENT_SECONDS = 300.0


@dataclass
class _Memory:
    """What is kept of a storage between two looks. Losing it costs one probe and one download of the snapshots.

    ``version`` is the resourceVersion that the last look left behind: another one means that somebody touched the
    object, which is how a user asks for a look at once.
    """

    uid: str
    version: str = ""
    catalogued: datetime | None = None
    seen: catalogue.Seen = field(default_factory=catalogue.Seen)


_memories: dict[tuple[str, str], _Memory] = {}


def reconcile(runtime: Runtime, namespace: str, name: str) -> float | None:
    """Look at one BackupStorage; the result is the seconds until the next look, None when it is gone."""
    found = runtime.client.find(STORAGES, name, namespace)
    if found is None or found["metadata"].get("deletionTimestamp"):
        gone = _memories.pop((namespace, name), None)
        if gone:
            forget(gone.uid)
        return None
    storage = parse(BackupStorage, found)
    memory = _remember(storage)
    enrolment = ensure_enrolled(runtime, namespace)
    if not enrolment.ok:
        refusal = Refusal(enrolment.reason, enrolment.message)
        _report(runtime, found, storage, readiness.not_enrolled(storage, refusal, runtime.now()), memory)
        return ENROLMENT_SECONDS
    status = _look(runtime, storage, memory)
    storage = _report(runtime, found, storage, status, memory)
    return _next_look(storage, memory, runtime.now())


def _look(runtime: Runtime, storage: BackupStorage, memory: _Memory) -> BackupStorageStatus:
    """Try the storage and look through its catalogue, each when its time has come."""
    now = runtime.now()
    touched = memory.version != storage.metadata.resource_version
    try:
        if touched or readiness.next_probe(storage, now) <= now:
            repository = prove(runtime, storage, readiness.known_repository(storage))
            _protect_movers(runtime, storage)
            memory.seen.refresh(repository)
            now = runtime.now()
            storage = _with_status(storage, readiness.succeeded(storage, repository.id, now))
        elif not _is_ready(storage) or not _catalogue_due(memory, now):
            return storage.status
        else:
            repository = open_to_read(runtime, storage)
        return _catalogue(runtime, storage, repository, memory, now)
    except StorageError as error:
        return readiness.failed(storage, Refusal(error.reason, error.message), runtime.now())
    except RepositoryError as error:
        told = explain(error, storage)
        return readiness.failed(storage, Refusal(told.reason, told.message), runtime.now())


def _catalogue(
    runtime: Runtime, storage: BackupStorage, repository: Repository, memory: _Memory, now: datetime
) -> BackupStorageStatus:
    told = set(memory.seen.broken)
    shown = catalogue.show(runtime, storage, repository, memory.seen)
    memory.catalogued = now
    reference = regarding(STORAGES, storage.metadata)
    if shown.added:
        message = f"{shown.added} restore points of the repository appear as Backups"
        runtime.client.event(reference, "Normal", "RestorePointsFound", message, "Catalogue")
    for snapshot, why in [item for item in shown.broken.items() if item[0] not in told][:10]:
        message = f"snapshot {snapshot[:10]} cannot be shown: {why}"
        runtime.client.event(reference, "Warning", "RestorePointUnreadable", message, "Catalogue")
    integrity = getattr(repository.store, "integrity_found", None)
    return readiness.catalogued(storage, shown.count, shown.broken, now, integrity)


def _protect_movers(runtime: Runtime, storage: BackupStorage) -> None:
    """Fence the storage's movers in before the first of them can start."""
    account = runtime.client.as_account(storage.metadata.namespace)
    try:
        account.apply(NETWORK_POLICIES, build_network_policy(storage))
    except ForbiddenError as error:
        message = (
            f"the NetworkPolicy for movers cannot be made: {error.message}; check quotas and RoleBinding 'backstay'"
        )
        raise StorageError("NetworkPolicyForbidden", message, permanent=True) from error


def _report(
    runtime: Runtime, found: dict[str, Any], storage: BackupStorage, status: BackupStorageStatus, memory: _Memory
) -> BackupStorage:
    """Write the status when it has changed, and tell a change of readiness as an event."""
    memory.version = storage.metadata.resource_version
    if status == storage.status:
        return storage
    written = parse(BackupStorage, runtime.client.replace_status(STORAGES, found, to_json(status)))
    memory.version = written.metadata.resource_version
    old, new = find_condition(storage.status.conditions, READY), find_condition(status.conditions, READY)
    if new and (old is None or (old.status, old.reason) != (new.status, new.reason)):
        kind = "Normal" if new.status == "True" else "Warning"
        logger.info(
            "BackupStorage %s/%s: %s: %s", storage.metadata.namespace, storage.metadata.name, new.reason, new.message
        )
        runtime.client.event(regarding(STORAGES, storage.metadata), kind, new.reason, new.message, "Probe")
    return written


def _next_look(storage: BackupStorage, memory: _Memory, now: datetime) -> float:
    due = readiness.next_probe(storage, now)
    if _is_ready(storage) and memory.catalogued is not None:
        due = min(due, memory.catalogued + CATALOGUE_INTERVAL)
    return max(1.0, (due - now).total_seconds())


def _catalogue_due(memory: _Memory, now: datetime) -> bool:
    return memory.catalogued is None or memory.catalogued + CATALOGUE_INTERVAL <= now


def _is_ready(storage: BackupStorage) -> bool:
    ready = find_condition(storage.status.conditions, READY)
    return ready is not None and ready.status == "True"


def _with_status(storage: BackupStorage, status: BackupStorageStatus) -> BackupStorage:
    return BackupStorage(storage.metadata, storage.spec, status)


def _remember(storage: BackupStorage) -> _Memory:
    key = storage.metadata.namespace, storage.metadata.name
    memory = _memories.get(key)
    if memory is None or memory.uid != storage.metadata.uid:
        memory = _memories[key] = _Memory(storage.metadata.uid)
    return memory
