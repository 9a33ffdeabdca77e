"""The catalogue: restore points that lie in a repository appear as Backup objects.

So a cluster that has lost everything, or never had it, needs nothing but a storage and its password. Each point is
looked at on its own: a broken or forged one hides no other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backstay.api.backup import Backup
from backstay.api.meta import parse, to_json
from backstay.api.restore_point import RestorePoint
from backstay.api.storage import BackupStorage
from backstay.kube.errors import AlreadyExistsError, InvalidError
from backstay.kube.resource import BACKUPS
from backstay.kube.runtime import Runtime
from backstay.repository import Repository, RepositoryError
from backstay.storage.restore_points import (
    Head,
    RestorePointError,
    build_backup,
    build_refusal,
    build_status,
    choose_name,
    decide,
    head_of,
    read_restore_point,
    visible,
)

#: Errors that concern the repository as a whole, not one point in it.
_WHOLE = frozenset({"AccessDenied", "BucketNotFound", "StoreRefused", "RepositoryNotFound", "WrongPassword"})


@dataclass
class Seen:
    """What is known already of one repository, so that each snapshot is downloaded once.

    ``known`` are all snapshots that need no second look; ``broken`` tells why some points cannot be shown. Losing it
    costs only time.
    """

    repository: str = ""
    known: set[str] = field(default_factory=set)
    heads: dict[str, Head] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def refresh(self, repository: Repository) -> None:
        """Forget what the repository does not hold any more, and give what was broken another chance."""
        if self.repository != repository.id:
            self.repository = repository.id
            self.known.clear()
            self.heads.clear()
        self.broken.clear()
        self.known.intersection_update(repository.snapshot_ids())
        self.heads = {snapshot: head for snapshot, head in self.heads.items() if snapshot in self.known}


@dataclass(frozen=True)
class Round:
    """The outcome of one look: ``count`` points are visible, ``added`` of them new; ``broken``: why, by snapshot."""

    count: int
    added: int
    broken: dict[str, str]


def show(runtime: Runtime, storage: BackupStorage, repository: Repository, seen: Seen) -> Round:
    """Make the Backup objects that lack. Raises RepositoryError when the repository cannot be read at all, ApiError."""
    _look(repository, seen)
    namespace = storage.metadata.namespace
    heads = visible(seen.heads.values(), namespace, storage.spec.catalogue)
    backups = [parse(Backup, found) for found in runtime.client.list(BACKUPS, namespace)]
    shown = decide(heads, backups, storage.metadata.name)
    if shown.new or shown.unfinished:
        repository.load_index()  # what was written since it was opened is found by that only
    taken = {backup.metadata.name for backup in backups}
    added = 0
    for head in shown.new:
        if head.snapshot not in seen.broken and _add(runtime, storage, repository, seen, head, taken):
            added += 1
    for backup, snapshot in shown.unfinished:
        _finish(runtime, storage, repository, seen, backup, snapshot)
    return Round(shown.count - sum(head.snapshot in seen.broken for head in heads), added, dict(seen.broken))


def _look(repository: Repository, seen: Seen) -> None:
    """Download the snapshots that are not known yet."""

    def note(snapshot_id: str, error: RepositoryError) -> None:
        seen.broken[snapshot_id] = str(error)

    for snapshot in repository.snapshots(seen.known | seen.broken.keys(), on_error=note):
        seen.known.add(snapshot.id)
        if head := head_of(snapshot):
            seen.heads[snapshot.id] = head


def _add(
    runtime: Runtime, storage: BackupStorage, repository: Repository, seen: Seen, head: Head, taken: set[str]
) -> bool:
    """Create the Backup of one point, and its status; killed between the two, the next round finds it unfinished."""
    point = _read(repository, seen, head)
    if point is None:
        return False
    namespace = storage.metadata.namespace
    account = runtime.client.as_account(namespace)
    runtime.leading()
    try:
        for _ in range(2):
            name = choose_name(point, head.snapshot, taken)
            taken.add(name)
            body = build_backup(name, namespace, storage.metadata.name, head.snapshot, point.application.policy)
            try:
                created = account.create(BACKUPS, body, namespace=namespace)
            except AlreadyExistsError:
                continue  # somebody took the name just now
            _write_status(runtime, storage, created, point, head)
            return True
    except InvalidError as error:
        seen.broken[head.snapshot] = f"the API server refuses it: {error.message}"
    return False


def _finish(
    runtime: Runtime, storage: BackupStorage, repository: Repository, seen: Seen, backup: Backup, snapshot: str
) -> None:
    """Give a Backup that names a point its status: an earlier try of ours, or somebody's own."""
    head = seen.heads.get(snapshot)
    point = _read(repository, seen, head) if head else None
    found = runtime.client.find(BACKUPS, backup.metadata.name, backup.metadata.namespace)
    if found is None or found["metadata"]["uid"] != backup.metadata.uid:
        return
    if head and point:
        try:
            _write_status(runtime, storage, found, point, head)
            return
        except InvalidError as error:
            seen.broken[snapshot] = f"the API server refuses it: {error.message}"
    why = seen.broken.get(snapshot, "the repository holds no restore point with this snapshot")
    status = build_refusal(snapshot, storage.metadata.name, backup.metadata.generation, why, runtime.now())
    runtime.client.replace_status(BACKUPS, found, to_json(status))


def _read(repository: Repository, seen: Seen, head: Head) -> RestorePoint | None:
    """The description of a point, or None, with the reason noted, when it is not fit to be shown."""
    try:
        return read_restore_point(repository, head)
    except RestorePointError as error:
        seen.broken[head.snapshot] = str(error)
    except RepositoryError as error:
        if not error.permanent or error.reason in _WHOLE:
            raise
        seen.broken[head.snapshot] = str(error)
    return None


def _write_status(
    runtime: Runtime, storage: BackupStorage, obj: dict[str, Any], point: RestorePoint, head: Head
) -> None:
    generation = int(obj["metadata"].get("generation") or 0)
    status = build_status(point, head.snapshot, storage.metadata.name, generation)
    runtime.client.replace_status(BACKUPS, obj, to_json(status))
