"""How far a Backup has come, told from its status alone.

The order of writing is what makes a killed operator's work resumable: each stage ends with one write of the status that
holds all that the next stages need, and whatever it did before that write can be done again without harm.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from backstay.api.backup import Backup, VolumeStatus
from backstay.api.meta import find_condition

#: True, False, or Unknown while the Backup runs.
SUCCEEDED = "Succeeded"
#: There while the outcome is decided but temporary objects are still being removed; its reason is the outcome's.
FINISHING = "Finishing"
#: There while something outside has to come right; since when, tells how long the Backup is patient.
WAITING = "Waiting"

PENDING, CUTTING, MOVING, DONE, SKIPPED, FAILED = "Pending", "Cutting", "Moving", "Done", "Skipped", "Failed"
_FINAL = frozenset({DONE, SKIPPED, FAILED})


class Stage(Enum):
    """What is to be done next."""

    START = "check the order and decide how each volume is read"
    CUT = "cut all snapshots together, then read the resources"
    MOVE = "carry the volumes' data into the repository"
    COMMIT = "write the restore point's own snapshot"
    FINISH = "remove what was temporary, then tell the outcome"
    OVER = "nothing"


def stage_of(backup: Backup) -> Stage:
    """The stage that a Backup is in."""
    status = backup.status
    if backup.spec.capture is None:
        return Stage.OVER  # found in a repository, not to be captured
    succeeded = find_condition(status.conditions, SUCCEEDED)
    if succeeded and succeeded.status != "Unknown":
        return Stage.OVER
    if find_condition(status.conditions, FINISHING):
        return Stage.FINISH
    if status.effective is None:
        return Stage.START
    if status.cut_time is None:
        return Stage.CUT
    if not all(is_final(volume) for volume in status.volumes):
        return Stage.MOVE
    return Stage.COMMIT


def is_final(volume: VolumeStatus) -> bool:
    """Whether nothing more will be done for this volume."""
    return volume.phase in _FINAL


def final_claims(volumes: Iterable[VolumeStatus]) -> frozenset[str]:
    """Names of the claims for which nothing more will be done."""
    return frozenset(volume.claim for volume in volumes if is_final(volume))
