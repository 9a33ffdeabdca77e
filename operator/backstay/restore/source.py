"""Where the data come from: the named Backup, its storage, and the restore point that lies there."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from backstay.api.backup import Backup
from backstay.api.meta import find_condition, parse
from backstay.api.names import RESTORE_POINT_FILE, TAG_RESTORE_POINT, tag
from backstay.api.restore import Restore
from backstay.api.restore_point import CapturedObject, RestorePoint
from backstay.kube.resource import BACKUPS
from backstay.kube.runtime import Runtime
from backstay.repository import Node, NodeNotFound, Repository, Snapshot, SnapshotNotFound
from backstay.restore.contents import (
    LARGEST_DESCRIPTION,
    LARGEST_OBJECT,
    LARGEST_SUM,
    Contents,
    StoredObject,
    check_claims,
    check_object,
    parse_description,
    reason_left_out,
)
from backstay.restore.errors import RestoreError
from backstay.storage import open_repository


@dataclass(frozen=True)
class Origin:
    """The storage and the committing snapshot of a Backup; ``backup_uid`` is empty for one that the catalogue found."""

    storage: str
    snapshot: str
    backup_uid: str = ""


def find_origin(runtime: Runtime, restore: Restore) -> Origin:
    """Read the Backup that the Restore names. Raises RestoreError when it is absent or has no restore point."""
    namespace, name = restore.metadata.namespace, restore.spec.source.backup
    found = runtime.client.find(BACKUPS, name, namespace)
    if found is None:
        raise RestoreError(
            "BackupNotFound",
            f"Backup {name} does not exist in namespace {namespace}: see `kubectl -n {namespace} get backups`. Backups"
            " that lie in a bucket appear there some seconds after their BackupStorage is Ready.",
        )
    return origin_of(parse(Backup, found))


def origin_of(backup: Backup) -> Origin:
    """Where a Backup's restore point lies. Raises RestoreError when it has none (yet)."""
    name, status = backup.metadata.name, backup.status
    succeeded = find_condition(status.conditions, "Succeeded")
    if succeeded and succeeded.status == "False":
        raise RestoreError(
            "BackupFailed",
            f"Backup {name} failed and has no restore point ({succeeded.message}). Choose another Backup.",
        )
    if backup.spec.restore_point:
        return Origin(backup.spec.restore_point.storage, backup.spec.restore_point.snapshot)
    if not succeeded or succeeded.status != "True" or not status.snapshot:
        phase = status.phase or "Pending"
        raise RestoreError(
            "BackupNotCompleted",
            f"Backup {name} is {phase}: it has no restore point yet. Restore from it when it has completed, or choose"
            " another Backup.",
        )
    return Origin(status.storage, status.snapshot, backup.metadata.uid)


@dataclass(frozen=True)
class Source:
    """What a Restore restores from: where it lies, and what it holds."""

    origin: Origin
    contents: Contents


class RecentSources:
    """The last few sources in use, by the UID of the Restore that reads them.

    Each look at a running Restore needs its source, also after somebody has deleted the Backup object. They are only
    copies: after a restart they are read again.
    """

    def __init__(self, size: int = 4) -> None:
        self._size = size
        self._entries: OrderedDict[str, Source] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, restore_uid: str) -> Source | None:
        """The source, if it is still here."""
        with self._lock:
            if restore_uid in self._entries:
                self._entries.move_to_end(restore_uid)
            return self._entries.get(restore_uid)

    def keep(self, restore_uid: str, source: Source) -> Source:
        """Keep it in place of the one that was not asked for the longest."""
        with self._lock:
            self._entries[restore_uid] = source
            self._entries.move_to_end(restore_uid)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
        return source

    def drop(self, restore_uid: str) -> None:
        """Let it go."""
        with self._lock:
            self._entries.pop(restore_uid, None)


recent = RecentSources()


def load_source(runtime: Runtime, restore: Restore) -> Source:
    """The restore point, read and checked. Raises RestoreError, StorageError, RepositoryError or ApiError."""
    known = recent.find(restore.metadata.uid)
    if known is not None:
        return known
    origin = find_origin(runtime, restore)
    repository = open_repository(runtime, restore.metadata.namespace, origin.storage, write=False)
    return recent.keep(restore.metadata.uid, Source(origin, read_contents(repository, origin)))


def read_contents(repository: Repository, origin: Origin) -> Contents:
    """Read a restore point from its repository, each object within its limit."""
    snapshot = find_snapshot(repository, origin)
    if not any(entry.startswith(f"{TAG_RESTORE_POINT}=") for entry in snapshot.tags):
        raise RestoreError(
            "InvalidRestorePoint",
            f"Snapshot {snapshot.id[:12]} is not the committing snapshot of a restore point (it has no tag"
            f" {TAG_RESTORE_POINT}). Choose a Backup that `kubectl get backups` shows as Completed.",
        )
    try:
        described = repository.find(snapshot.tree, RESTORE_POINT_FILE)
    except NodeNotFound as error:
        raise _invalid(f"snapshot {snapshot.id[:12]} has no {RESTORE_POINT_FILE}") from error
    point = parse_description(_read(repository, described, LARGEST_DESCRIPTION, RESTORE_POINT_FILE))
    restored: list[StoredObject] = []
    left_out: list[str] = []
    for captured, document in _documents(repository, snapshot, point):
        stored = check_object(captured, document)
        if reason := reason_left_out(stored):
            left_out.append(f"{stored.identity} {reason}")
        else:
            restored.append(stored)
    check_claims(point.volumes, restored)
    return Contents(snapshot.id, point, tuple(restored), tuple(left_out))


def find_snapshot(repository: Repository, origin: Origin) -> Snapshot:
    """The committing snapshot, also after `restic copy` or `restic tag` gave it another id."""
    try:
        return repository.snapshot(origin.snapshot)
    except SnapshotNotFound as error:
        ours = tag(TAG_RESTORE_POINT, origin.backup_uid)
        for snapshot in repository.snapshots():
            if snapshot.original == origin.snapshot or (origin.backup_uid and ours in snapshot.tags):
                return snapshot
        raise RestoreError(
            "RestorePointNotFound",
            f"Snapshot {origin.snapshot[:12]} is not in BackupStorage {origin.storage} any more: its retention, or"
            " somebody with access to the bucket, has removed it. Choose another Backup.",
        ) from error


def _documents(
    repository: Repository, snapshot: Snapshot, point: RestorePoint
) -> Iterator[tuple[CapturedObject, bytes]]:
    """The objects that the description names with their JSON, in the order in which they lie in the repository.

    All blobs are asked for as if they were one file's, so that neighbours come by one request and not by thousands.
    """
    described = {captured.path: captured for captured in point.objects}
    walked = ((path.lstrip("/"), node) for path, node in repository.walk(snapshot.tree))
    nodes = [(path, node) for path, node in walked if path in described and node.type == "file"]
    if absent := described.keys() - {path for path, _ in nodes}:
        raise _invalid(f"it names {min(absent)}, but does not hold it")
    everything = Node(name="", type="file", content=tuple(blob for _, node in nodes for blob in node.content or ()))
    blobs = repository.read_file(everything)
    total = 0
    for path, node in nodes:
        document = b"".join(_limited(blobs, len(node.content or ()), LARGEST_OBJECT, path))
        total += len(document)
        if total > LARGEST_SUM:
            raise _invalid(f"its objects exceed {LARGEST_SUM >> 20} MiB")
        yield described[path], document


def _read(repository: Repository, node: Node, limit: int, path: str) -> bytes:
    return b"".join(_limited(repository.read_file(node), len(node.content or ()), limit, path))


def _limited(blobs: Iterator[bytes], number: int, limit: int, path: str) -> Iterator[bytes]:
    """So many blobs, but never more bytes than the limit: a size in a tree is only a claim."""
    size = 0
    for blob in islice(blobs, number):
        size += len(blob)
        if size > limit:
            raise _invalid(f"{path} is larger than {limit >> 20} MiB")
        yield blob


def _invalid(what: str) -> RestoreError:
    return RestoreError("InvalidRestorePoint", f"The restore point cannot be used: {what}. Nothing of it is restored.")
