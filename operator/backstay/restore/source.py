"""Where the data come from: the named Backup, its storage, and the restore point that lies there."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from backstay.api.backup import Backup
from backstay.api.meta import find_condition, parse
from backstay.api.names import RESOURCES_DIRECTORY, RESTORE_POINT_FILE, TAG_RESTORE_POINT, tag
from backstay.api.restore import Restore
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


class RecentContents:
    """The contents of the last few restore points in use, by the UID of the Restore that reads them.

    Each look at a running Restore needs them. They are only a copy: after a restart they are read again.
    """

    def __init__(self, size: int = 4) -> None:
        self._size = size
        self._entries: OrderedDict[str, Contents] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, restore_uid: str) -> Contents | None:
        """The contents, if they are still here."""
        with self._lock:
            if restore_uid in self._entries:
                self._entries.move_to_end(restore_uid)
            return self._entries.get(restore_uid)

    def keep(self, restore_uid: str, contents: Contents) -> None:
        """Keep them in place of those that were not asked for the longest."""
        with self._lock:
            self._entries[restore_uid] = contents
            self._entries.move_to_end(restore_uid)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)

    def drop(self, restore_uid: str) -> None:
        """Let them go."""
        with self._lock:
            self._entries.pop(restore_uid, None)


recent = RecentContents()


def load_contents(runtime: Runtime, restore: Restore, origin: Origin) -> Contents:
    """The restore point, read and checked. Raises RestoreError, StorageError or RepositoryError."""
    contents = recent.find(restore.metadata.uid)
    if contents is None:
        repository = open_repository(runtime, restore.metadata.namespace, origin.storage, write=False)
        contents = read_contents(repository, origin)
        recent.keep(restore.metadata.uid, contents)
    return contents


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
        raise RestoreError(
            "InvalidRestorePoint", f"Snapshot {snapshot.id[:12]} has no {RESTORE_POINT_FILE}: it is no restore point."
        ) from error
    point = parse_description(_read(repository, described, LARGEST_DESCRIPTION, RESTORE_POINT_FILE))
    nodes = _object_nodes(repository, snapshot)
    restored: list[StoredObject] = []
    left_out: list[str] = []
    total = 0
    for captured in point.objects:
        node = nodes.get(captured.path)
        if node is None:
            raise RestoreError("InvalidRestorePoint", f"The restore point names {captured.path}, but does not hold it.")
        stored = check_object(captured, _read(repository, node, LARGEST_OBJECT, captured.path))
        total += len(stored.document)
        if total > LARGEST_SUM:
            raise RestoreError("InvalidRestorePoint", f"The restore point's objects exceed {LARGEST_SUM >> 20} MiB.")
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


def _object_nodes(repository: Repository, snapshot: Snapshot) -> dict[str, Node]:
    prefix = f"{RESOURCES_DIRECTORY}/"
    walked = repository.walk(snapshot.tree)
    return {
        path.lstrip("/"): node for path, node in walked if node.type == "file" and path.lstrip("/").startswith(prefix)
    }


def _read(repository: Repository, node: Node, limit: int, path: str) -> bytes:
    """A whole file, but never more than the limit: a size in a tree is only a claim."""
    content = bytearray()
    for blob in repository.read_file(node):
        content += blob
        if len(content) > limit:
            raise RestoreError("InvalidRestorePoint", f"{path} in the restore point is larger than {limit >> 20} MiB.")
    return bytes(content)
