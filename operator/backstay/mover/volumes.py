"""Carrying volumes: each backed up as a snapshot of its own, or filled from one.

A mover may be killed and started again at any moment, so a volume whose snapshot exists already is not stored twice: it
is adopted, by the tags of this backup and claim. What a later reader must know of it stands in the tags too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from backstay.mover.order import BackupOrder, RestoreOrder, SourceVolume, TargetVolume
from backstay.repository.archive.writer import Writer
from backstay.repository.crew import Crew
from backstay.repository.errors import Corrupted, SnapshotNotFound
from backstay.repository.format.snapshot import Snapshot
from backstay.repository.format.tree import Node
from backstay.repository.outcome import Progress
from backstay.repository.repository import Repository

BACKUP_TAG = "backstay.dev/backup="
CLAIM_TAG = "backstay.dev/claim="
WARNINGS_TAG = "backstay.dev/warnings="
INCONSISTENT_TAG = "backstay.dev/changed-while-read"

Tell = Callable[[str, Progress], None]
Clock = Callable[[], datetime]


def back_up(
    repository: Repository,
    order: BackupOrder,
    holder: str,
    crew: Crew,
    tell: Tell,
    clock: Clock,
    log: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Store all volumes; what the result says of each."""
    wanted_paths = {f"/{volume.claim}" for volume in order.volumes}
    found = repository.snapshots(on_error=lambda _, error: log(f"passed over as a parent: {error}"))
    known = [s for s in found if s.hostname == order.host and wanted_paths.intersection(s.paths)]
    results = []
    with repository.writer(holder) as writer:
        for volume in order.volumes:
            adopted = find_adopted(known, order.tags, volume)
            if adopted is not None:
                log(f"volume {volume.claim} was stored by an earlier attempt already, as snapshot {adopted.id}")
                results.append(_adopted_result(volume, adopted))
            else:
                results.append(_back_up_one(writer, order, volume, find_parent(known, volume), crew, tell, clock, log))
    return results


def find_adopted(known: Sequence[Snapshot], tags: Sequence[str], volume: SourceVolume) -> Snapshot | None:
    """The snapshot that an earlier attempt at the same backup of the same claim has committed."""
    backup = [tag for tag in tags if tag.startswith(BACKUP_TAG)]
    if not backup:
        return None
    wanted = {*backup, CLAIM_TAG + volume.claim_uid}
    return next((s for s in known if wanted <= set(s.tags) and f"/{volume.claim}" in s.paths), None)


def find_parent(known: Sequence[Snapshot], volume: SourceVolume) -> Snapshot | None:
    """The newest snapshot of the same claim."""
    same = [s for s in known if f"/{volume.claim}" in s.paths and CLAIM_TAG + volume.claim_uid in s.tags]
    return max(same, key=lambda s: s.time, default=None)


def _back_up_one(
    writer: Writer,
    order: BackupOrder,
    volume: SourceVolume,
    parent: Snapshot | None,
    crew: Crew,
    tell: Tell,
    clock: Clock,
    log: Callable[[str], None],
) -> dict[str, Any]:
    log(f"storing volume {volume.claim}" + (f", parent {parent.id}" if parent else ""))
    started = clock()
    total = parent.summary.total_bytes_processed if parent and parent.summary else None

    def progress(at: Progress) -> None:
        tell(volume.claim, Progress(at.files, at.bytes, None, max(total, at.bytes) if total else None))

    archive = writer.backup(volume.path, name=volume.claim, progress=progress, parent=parent, crew=crew)
    for warning in (*archive.notes, *archive.warnings):
        log(f"volume {volume.claim}: {warning.path}: {warning.message}")
    tags = [*order.tags, CLAIM_TAG + volume.claim_uid]
    if archive.warning_count:
        tags.append(f"{WARNINGS_TAG}{archive.warning_count}")
    if archive.changed_while_read:
        tags.append(INCONSISTENT_TAG)
    snapshot_id = writer.commit(
        Snapshot(
            time=started,
            tree=archive.tree,
            paths=(f"/{volume.claim}",),
            hostname=order.host,
            username="backstay",
            tags=tuple(tags),
            parent=parent.id if parent else "",
            program_version="backstay",
            summary=archive.summary(started, clock()),
        )
    )
    return {
        "claim": volume.claim,
        "snapshot": snapshot_id,
        "tree": archive.tree,
        "files": archive.files,
        "bytes": archive.bytes,
        "addedBytes": archive.added_bytes,
        "warningCount": archive.warning_count,
        "warnings": [f"{warning.path}: {warning.message}" for warning in archive.warnings],
        "consistencyLost": archive.changed_while_read > 0,
    }


def _adopted_result(volume: SourceVolume, found: Snapshot) -> dict[str, Any]:
    counts = [tag.removeprefix(WARNINGS_TAG) for tag in found.tags if tag.startswith(WARNINGS_TAG)]
    warning_count = int(counts[0]) if counts and counts[0].isdigit() else 0
    return {
        "claim": volume.claim,
        "snapshot": found.id,
        "tree": found.tree,
        "files": found.summary.total_files_processed if found.summary else 0,
        "bytes": found.summary.total_bytes_processed if found.summary else 0,
        "addedBytes": found.summary.data_added_packed if found.summary else 0,
        "warningCount": warning_count,
        "warnings": ["/: stored by an earlier attempt, whose log has the warnings"] if warning_count else [],
        "consistencyLost": INCONSISTENT_TAG in found.tags,
    }


def restore(
    repository: Repository, order: RestoreOrder, crew: Crew, tell: Tell, log: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Fill all volumes; what the result says of each. Raises Corrupted when the repository lacks some of their data."""
    lost: list[tuple[str, int]] = []
    results = [_restore_one(repository, volume, crew, tell, log, lost) for volume in order.volumes]
    if lost:  # told only now, so that all is there that can be had
        count = sum(number for _, number in lost)
        what = "one entry is" if count == 1 else f"{count} entries are"
        raise Corrupted(
            f"filling volumes: {what} damaged in the repository: {'first ' if count > 1 else ''}{lost[0][0]}"
        )
    return results


def _restore_one(
    repository: Repository,
    volume: TargetVolume,
    crew: Crew,
    tell: Tell,
    log: Callable[[str], None],
    lost: list[tuple[str, int]],
) -> dict[str, Any]:
    log(f"filling volume {volume.claim} from tree {volume.tree}")
    tree_id, root = volume_root(repository, volume.tree)
    files, size = _totals(repository, volume.snapshot)
    done = repository.restore(
        tree_id,
        volume.path,
        root=root,
        progress=lambda at: tell(volume.claim, at),
        total_files=files,
        total_bytes=size,
        crew=crew,
    )
    for warning in done.warnings:
        log(f"volume {volume.claim}: {warning.path}: {warning.message}")
    if done.damaged:
        first = done.warnings[0]
        lost.append((f"{first.path} of volume {volume.claim}: {first.message}", done.damaged))
    return {
        "claim": volume.claim,
        "tree": volume.tree,
        "files": done.files,
        "bytes": done.bytes,
        "warningCount": done.warning_count,
        "warnings": [f"{warning.path}: {warning.message}" for warning in done.warnings],
    }


def volume_root(repository: Repository, tree_id: str) -> tuple[str, Node | None]:
    """The tree of a volume's entries, and the node of the volume's root directory.

    A backup reports the tree that holds the volume as its one directory, named by the claim. Any other tree is taken as
    the entries themselves.
    """
    nodes = repository.read_tree(tree_id)
    if len(nodes) == 1 and nodes[0].type == "dir":
        return nodes[0].subtree, nodes[0]
    return tree_id, None


def _totals(repository: Repository, snapshot_id: str) -> tuple[int | None, int | None]:
    if not snapshot_id:
        return None, None
    try:
        summary = repository.snapshot(snapshot_id).summary
    except SnapshotNotFound:  # copied or tagged anew since; the tree is what counts
        return None, None
    return (summary.total_files_processed, summary.total_bytes_processed) if summary else (None, None)
