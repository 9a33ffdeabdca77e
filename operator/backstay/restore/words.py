"""What a Restore tells people: counts, lists that are short enough to read, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from backstay.api.restore import Restore, RestoredResources, RestoreStatus
from backstay.restore.contents import Contents
from backstay.restore.plan import Action, Plan
from backstay.restore.progress import FIRST_FEW
from backstay.restore.waves import Wave
from backstay.volumes.amount import amount


def count(status: RestoreStatus, plan: Plan) -> RestoreStatus:
    """The status with the plan's numbers and the first few of what was kept."""
    kept = plan.names(Action.KEEP) + [f"{name} (equal)" for name in plan.names(Action.SAME)]
    resources = RestoredResources(
        planned=len(plan.steps),
        created=plan.count(Action.MADE),
        kept=len(kept),
        failed=plan.count(Action.REFUSE),
    )
    return replace(status, resources=resources, kept=tuple(kept[:FIRST_FEW]))


def proposal(restore: Restore, contents: Contents, plan: Plan) -> str:
    """What would be done, and how to have it done."""
    claims = {s.identity.name for s in plan.steps if s.wave == Wave.CLAIMS and s.action == Action.CREATE}
    volumes = [volume for volume in contents.point.volumes if volume.tree and volume.claim in claims]
    data = f" and fill {len(volumes)} volumes with {amount(sum(v.bytes for v in volumes))}" if volumes else ""
    parts = [f"Nothing has been changed. Would create {plan.count(Action.CREATE)} objects{data}"]
    if kept := plan.names(Action.KEEP):
        parts.append(f"Would keep {len(kept)} that exist and differ from the restore point: {listed(kept)}")
    if same := plan.count(Action.SAME):
        parts.append(f"{same} exist already as the restore point has them")
    if refused := refusals(plan):
        parts.append(f"Cannot create {len(refused)}: {listed(refused)}")
    if plan.left_out:
        parts.append(f"Leaves out {listed(plan.left_out)}")
    if plan.blockers:
        parts.append(f"Cannot be carried out yet: {blocked(plan)}")
    name, namespace = restore.metadata.name, restore.metadata.namespace
    patch = """'{"spec":{"approve":"Create"}}'"""
    parts.append(f"To carry it out: kubectl -n {namespace} patch restore {name} --type merge -p {patch}")
    return ". ".join(part.rstrip(".") for part in parts)


def result(status: RestoreStatus, plan_left_out: Sequence[str]) -> str:
    """What was done, in a sentence."""
    numbers = status.resources
    filled = sum(volume.phase == "Filled" for volume in status.volumes)
    parts = []
    if numbers:
        parts.append(f"Created {numbers.created} of {numbers.planned} objects")
        if numbers.kept:
            parts.append(f"kept {numbers.kept} that existed")
    if filled:
        parts.append(
            f"filled {filled} volumes with {amount(sum(v.bytes for v in status.volumes if v.phase == 'Filled'))}"
        )
    if plan_left_out:
        parts.append(f"left out {listed(plan_left_out)}")
    warned = sum(volume.warning_count for volume in status.volumes)
    if warned:
        parts.append(f"{warned} things in the volumes are not as they were, see status.volumes")
    if status.warnings:
        parts.append(f"warnings: {listed(status.warnings, 3)}")
    return "; ".join(part.rstrip(".") for part in parts) + "."


def blocked(plan: Plan) -> str:
    """Why nothing may be made."""
    return " ".join(blocker.message for blocker in plan.blockers[:3])


def refusals(plan: Plan) -> list[str]:
    """The steps that cannot be done, each with the server's words."""
    return [f"{step.identity} ({step.message})" for step in plan.steps if step.action == Action.REFUSE]


def refused(plan: Plan) -> str:
    """Why a Restore has failed though it went to its end."""
    lines = refusals(plan)
    return f"{len(lines)} of {len(plan.steps)} objects could not be created: {listed(lines)}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first few, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
