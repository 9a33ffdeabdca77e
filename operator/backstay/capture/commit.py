"""The last write: the snapshot that makes a restore point exist.

Until it is there, everything else in the repository is only data that nobody refers to. An operator that was killed
between writing it and noting it in the status must not write a second one, so an attempt that may have happened is
looked for.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

import backstay
from backstay.api.meta import find_condition
from backstay.api.names import RESOURCES_DIRECTORY, TAG_RESTORE_POINT, tag
from backstay.capture import outcome, restore_point, stage
from backstay.capture.work import Step, Work
from backstay.repository import Repository, Snapshot

COMMITTING = "Committing"

#: UIDs of Backups whose first attempt this very process has noted and not begun: these need not be looked for.
_fresh: set[str] = set()


def commit(work: Work) -> Step:
    """Write the restore point, or adopt the one that an earlier attempt wrote."""
    succeeded = find_condition(work.status.conditions, stage.SUCCEEDED)
    attempted = succeeded is not None and succeeded.reason == COMMITTING
    if not attempted:
        # Noted before it is tried, so that only an attempt that was broken off costs a look at every snapshot.
        _fresh.add(work.backup.metadata.uid)
        return Step(work.running(work.status, COMMITTING, "writing the restore point"), 0.0)
    repository = work.repository(write=True)
    committing = tag(TAG_RESTORE_POINT, work.backup.metadata.uid)
    fresh = work.backup.metadata.uid in _fresh
    _fresh.discard(work.backup.metadata.uid)
    found = "" if fresh else adopted(repository.snapshots(), committing)
    snapshot_id = found or _write(work, repository, committing)
    reason, message = outcome.verdict(work.status)
    status = replace(work.status, snapshot=snapshot_id)
    return Step(work.finishing(status, reason, message), 0.1)


def adopted(snapshots: Iterable[Snapshot], committing: str) -> str:
    """Id of the snapshot with this tag, empty when there is none."""
    return next((snapshot.id for snapshot in snapshots if committing in snapshot.tags), "")


def _write(work: Work, repository: Repository, committing: str) -> str:
    resources, cut_time = work.status.resources, work.status.cut_time
    assert resources is not None
    assert cut_time is not None
    reason, _ = outcome.verdict(work.status)
    drafted = restore_point.read_draft(repository, resources.tree)
    point = restore_point.complete(drafted, work.backup, reason, work.now.replace(microsecond=0))
    files = restore_point.final_files(repository, resources.tree, point)
    with repository.writer(work.holder) as writer:
        tree = writer.save_files(files, cut_time)
        writer.flush()
        work.runtime.leading()
        return writer.commit(
            Snapshot(
                # Later than its volumes' snapshots, for restic's `latest` to be the restore point; the cut is inside.
                time=work.now,
                tree=tree,
                paths=(f"/{RESOURCES_DIRECTORY}",),
                hostname=work.host,
                tags=(*work.tags, committing),
                program_version=f"backstay {backstay.__version__}",
            )
        )
