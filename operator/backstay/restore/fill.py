"""Bringing the data back into the restored claims, one mover Job for the claims of one pod.

Pure: which Jobs there must be, and what their state means for each volume. A claim that this Restore made is mounted by
nobody but its mover until all are filled, so a mover that starts anew over half a volume does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from backstay.api.names import short_hash
from backstay.api.restore import RestoredVolume
from backstay.api.restore_point import CapturedVolume
from backstay.restore import contents
from backstay.restore.plan import Action, Plan
from backstay.restore.waves import Wave
from backstay.volumes import mover_state as movers
from backstay.volumes.amount import amount
from backstay.volumes.identity import Identity, identity_for
from backstay.volumes.mover_job import mount_path
from backstay.volumes.mover_state import MoverState

PENDING, FILLING, FILLED, KEPT, EMPTY, FAILED = "Pending", "Filling", "Filled", "Kept", "Empty", "Failed"

#: Mover Jobs that run at the same time for one Restore.
LARGEST_NUMBER = 8


@dataclass(frozen=True)
class Filling:
    """One mover's task: volumes that one pod uses, so that they come into being where that pod can run."""

    job: str
    volumes: tuple[CapturedVolume, ...]

    @property
    def claims(self) -> frozenset[str]:
        """Names of the claims."""
        return frozenset(volume.claim for volume in self.volumes)


def first_look(
    captured: Iterable[CapturedVolume], plan: Plan, classes: Mapping[str, str]
) -> tuple[RestoredVolume, ...]:
    """The volumes as they are when their claims have been made. ``classes``: storage class by claim."""
    claims = {step.identity.name: step for step in plan.steps if step.wave == Wave.CLAIMS}
    volumes = []
    for volume in captured:
        step = claims.get(volume.claim)
        if step is None:
            continue
        phase, message = _first_phase(volume, step.action, step.message)
        volumes.append(
            RestoredVolume(
                claim=volume.claim,
                phase=phase,
                storage_class=classes.get(volume.claim, ""),
                total_bytes=volume.bytes if phase == PENDING else None,
                message=message,
            )
        )
    return tuple(volumes)


def _first_phase(volume: CapturedVolume, action: Action, message: str) -> tuple[str, str]:
    if action == Action.REFUSE:
        return FAILED, message
    if action != Action.MADE:
        return KEPT, "The claim existed and was kept; its data were not restored." if volume.tree else ""
    if not volume.tree:
        return EMPTY, f"The Backup did not read this volume (method {volume.method or 'none'}); it starts empty."
    return PENDING, ""


def fillings(
    restore_uid: str, captured: Iterable[CapturedVolume], volumes: Iterable[RestoredVolume]
) -> tuple[Filling, ...]:
    """The movers that are still needed; the same names on every look, also after a restart."""
    open_claims = {volume.claim for volume in volumes if volume.phase in (PENDING, FILLING)}
    groups: dict[str, list[CapturedVolume]] = {}
    for volume in captured:
        group = (volume.user.group if volume.user else "") or f"claim {volume.claim}"
        groups.setdefault(group, []).append(volume)
    return tuple(
        Filling(f"backstay-fill-{short_hash(restore_uid, group, length=12)}", wanted)
        for group, members in groups.items()
        if (wanted := tuple(volume for volume in members if volume.claim in open_claims))
    )


def build_order(filling: Filling, repository: Mapping[str, Any]) -> dict[str, Any]:
    """What the mover is told: which trees go to which mounts."""
    return {
        "action": "restore",
        "repository": dict(repository),
        "volumes": [
            {"claim": volume.claim, "path": mount_path(number), "tree": volume.tree, "snapshot": volume.snapshot}
            for number, volume in enumerate(filling.volumes)
        ],
    }


def run_as(filling: Filling, pod_security: str) -> Identity:
    """As whom the mover runs: as the pod that used the volumes, so that the files are that pod's.

    ``pod_security``: the level that the namespace enforces, which may not allow that.
    """
    user = next((volume.user for volume in filling.volumes if volume.user), None)
    return identity_for(user.run_as if user else None, pod_security)


def after_look(volumes: Iterable[RestoredVolume], filling: Filling, state: MoverState) -> tuple[RestoredVolume, ...]:
    """The volumes with what the mover of some of them tells."""
    by_claim = {volume.claim: volume for volume in filling.volumes}
    return tuple(
        _volume_after(volume, by_claim[volume.claim], state) if volume.claim in by_claim else volume
        for volume in volumes
    )


def _volume_after(volume: RestoredVolume, captured: CapturedVolume, state: MoverState) -> RestoredVolume:
    if state.phase == movers.FAILED:
        return replace(volume, phase=FAILED, message=_words(state, captured))
    if state.phase == movers.SUCCEEDED:
        found = next((r for r in state.result.volumes if r.claim == volume.claim), None) if state.result else None
        if found is None:
            return replace(volume, phase=FAILED, message="The mover's result does not name this claim.")
        return replace(
            volume,
            phase=FILLED,
            files=found.files,
            bytes=found.bytes,
            total_bytes=found.bytes,
            warnings=found.warnings,
            warning_count=found.warning_count,
            message="",
        )
    progress = state.progress.get(volume.claim)
    if progress is None:
        phase = PENDING if state.phase == movers.PENDING else FILLING
        return replace(volume, phase=phase, message=state.message)
    total = progress.total_bytes if progress.total_bytes is not None else volume.total_bytes
    return replace(
        volume, phase=FILLING, files=progress.files, bytes=progress.bytes, total_bytes=total, message=state.message
    )


def _words(state: MoverState, captured: CapturedVolume) -> str:
    if state.reason == "NoSpace":
        return (
            f"The volume is too small: the claim has {captured.capacity or 'too little'}, the data are"
            f" {amount(captured.bytes)}, and the file system needs some itself ({state.message})."
        )
    return f"{state.reason}: {state.message}" if state.message else state.reason


def is_filled(volumes: Iterable[RestoredVolume]) -> bool:
    """Whether no volume waits for its data."""
    return all(volume.phase in (FILLED, KEPT, EMPTY) for volume in volumes)


def failure(volumes: Sequence[RestoredVolume], made: Iterable[contents.Identity]) -> str:
    """The words for a Restore whose volumes could not all be filled; empty when none failed."""
    broken = [volume for volume in volumes if volume.phase == FAILED]
    if not broken:
        return ""
    first = "; ".join(f"{volume.claim}: {volume.message.rstrip('.')}" for volume in broken[:3])
    left = ", ".join(identity.name for identity in made)
    advice = f" The claims that it made are left for you to look at: {left}." if left else ""
    return (
        f"{len(broken)} of {len(volumes)} volumes could not be filled, so no workload was started. {first}.{advice}"
        " Mend the cause, delete what this Restore made (label backstay.dev/restored-by), and create a new Restore."
    )


def summary(volumes: Sequence[RestoredVolume]) -> str:
    """Progress for people: ``1 of 2 volumes, 3.0 MiB of 1.2 GiB``."""
    moving = [volume for volume in volumes if volume.phase in (PENDING, FILLING, FILLED)]
    if not moving:
        return ""
    done = sum(volume.phase == FILLED for volume in moving)
    total = sum(volume.total_bytes or 0 for volume in moving)
    return f"{done} of {len(moving)} volumes, {amount(sum(v.bytes for v in moving))} of {amount(total)}"
