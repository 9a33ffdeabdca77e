"""Making the planned objects: the waves in order, each in parallel, with the rights of the Restore's account."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec

from backstay.kube.client import Client
from backstay.kube.errors import AlreadyExistsError, ApiError, UnavailableError
from backstay.restore.errors import WaitError
from backstay.restore.plan import Action, Plan, Step, is_made_by
from backstay.restore.waves import Wave

#: Characters of a refusal that reach the status.
REFUSAL = 300
#: Objects that are created at the same time.
THREADS = 16


def carry_out(
    client: Client, plan: Plan, namespace: str, restore_uid: str, *, until: Wave, leading: Callable[[], None]
) -> Plan:
    """Create what the plan says, up to the wave ``until``; the plan comes back with what became of each step.

    A CREATE step becomes MADE; KEEP, when somebody else was quicker; or REFUSE, with the server's words. Raises
    WaitError when the server asks to come back later: what was made until then is MADE in the next plan.
    """
    done: list[Step] = []
    with ThreadPoolExecutor(THREADS, thread_name_prefix="apply") as pool:
        for wave in Wave:
            steps = [step for step in plan.steps if step.wave == wave]
            if wave <= until and any(step.action == Action.CREATE for step in steps):
                leading()
                steps = list(pool.map(lambda step: _create(client, step, namespace, restore_uid), steps))
                _wait_if_pending(steps)
            done += steps
    return replace(plan, steps=tuple(done))


def _create(client: Client, step: Step, namespace: str, restore_uid: str) -> Step:
    if step.action != Action.CREATE or step.resource is None:
        return step
    try:
        client.create(step.resource, msgspec.json.decode(step.document), namespace=namespace)
    except AlreadyExistsError as error:
        return _existing(client, step, namespace, restore_uid, error)
    except UnavailableError as error:
        return replace(step, message=str(error))
    except ApiError as error:
        # RBAC's own words list every rule of a Role, over dozens of lines.
        return replace(step, action=Action.REFUSE, message=textwrap.shorten(error.message, REFUSAL, placeholder=" ..."))
    return replace(step, action=Action.MADE)


def _existing(client: Client, step: Step, namespace: str, restore_uid: str, error: AlreadyExistsError) -> Step:
    """Either our own create was carried out though its answer got lost, or somebody made the object since the plan."""
    assert step.resource is not None
    try:
        found = client.find(step.resource, step.identity.name, namespace)
    except ApiError as failed:
        return replace(step, message=str(failed))
    if found is None or found["metadata"].get("deletionTimestamp"):
        return replace(step, message=str(error))
    return replace(step, action=Action.MADE if is_made_by(found, restore_uid) else Action.KEEP)


def _wait_if_pending(steps: list[Step]) -> None:
    pending = [step for step in steps if step.action == Action.CREATE]
    if pending:
        raise WaitError(
            "CreateDelayed", f"{len(pending)} objects cannot be created yet; the first: {pending[0].message}"
        )
