"""One look at a Backup: where it is, the next step, and the status that tells about it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from backstay.api.backup import Backup, BackupStatus
from backstay.api.meta import InvalidObjectError, find_condition, parse, to_json
from backstay.api.names import API_VERSION
from backstay.capture import outcome
from backstay.capture.commit import commit
from backstay.capture.cut import cut
from backstay.capture.moving import move
from backstay.capture.stage import FINISHING, SUCCEEDED, Stage, stage_of
from backstay.capture.start import start
from backstay.capture.temporaries import find_temporaries, next_removals, remove
from backstay.capture.work import POLL, SLOW_POLL, Step, Work
from backstay.kube.errors import ApiError, ConflictError, ForbiddenError, UnavailableError
from backstay.kube.resource import BACKUPS, NAMESPACES
from backstay.kube.runtime import Runtime
from backstay.repository import RepositoryError
from backstay.storage import StorageError

logger = logging.getLogger(__name__)


def reconcile(runtime: Runtime, namespace: str, name: str) -> float | None:
    """Take a Backup one step further; the answer is the seconds until the next look, None when nothing is to come.

    Safe to be called at any time and after any crash. Raises ApiError when the Backup itself cannot be read or
    written; the work queue tries again then.
    """
    found = runtime.client.find(BACKUPS, name, namespace)
    if found is None or found["metadata"].get("deletionTimestamp"):
        return None  # what was made for it goes with it, by owner references
    backup = parse(Backup, found)
    stage = stage_of(backup)
    if stage is Stage.OVER or _is_ending(runtime, namespace):
        return None
    work = Work(runtime, backup, runtime.now())
    step = _take(work, stage)
    _report(runtime, found, backup, step.status)
    return step.again


def finish(work: Work) -> Step:
    """Remove what is temporary; when nothing is left, or it will not go, tell the outcome."""
    if work.status.effective is None:
        return Step(outcome.over(work.backup, work.now), None)  # it never got as far as making anything
    decided = find_condition(work.status.conditions, FINISHING)
    since = decided.last_transition_time if decided else None
    patient = since is None or work.now - since < outcome.CLEANING_PATIENCE
    try:
        found = find_temporaries(work.account, work.namespace, work.backup.metadata.uid)
        work.runtime.leading()
        remove(work.account, work.namespace, next_removals(found))
    except (ForbiddenError, UnavailableError) as error:
        if patient:
            raise
        return Step(outcome.over(work.backup, work.now, [f"all that exist ({error})"]), None)
    left = [*found.titles(), *(f"Pod {pod['metadata']['name']}" for pod in found.pods)]
    if not left or not patient:
        return Step(outcome.over(work.backup, work.now, left), None)
    return Step(work.status, POLL)


_STEPS: Mapping[Stage, Callable[[Work], Step]] = {
    Stage.START: start,
    Stage.CUT: cut,
    Stage.MOVE: move,
    Stage.COMMIT: commit,
    Stage.FINISH: finish,
}


def _take(work: Work, stage: Stage) -> Step:
    """The stage's step, with every foreseeable failure turned into a state that a user can read."""
    try:
        return _STEPS[stage](work)
    except StorageError as error:
        return _after_failure(work, stage, error.reason, error.message, permanent=error.permanent)
    except RepositoryError as error:
        return _after_failure(work, stage, error.reason, str(error), permanent=error.permanent)
    except InvalidObjectError as error:
        return _after_failure(work, stage, "InvalidObject", str(error), permanent=True)
    except ConflictError:
        raise
    except ApiError as error:
        # Rights and quotas may be given at any time; only an object that the API server cannot take stays wrong.
        permanent = not isinstance(error, ForbiddenError | UnavailableError)
        return _after_failure(work, stage, error.reason or "ApiError", str(error), permanent=permanent)


def _after_failure(work: Work, stage: Stage, reason: str, message: str, *, permanent: bool) -> Step:
    logger.warning("Backup %s/%s: %s: %s", work.namespace, work.backup.metadata.name, reason, message)
    if stage is Stage.FINISH:
        return Step(work.status, SLOW_POLL)  # the outcome stands; only the cleaning goes on
    if permanent:
        return Step(work.finishing(work.status, reason, message), POLL)
    return Step(work.waiting(work.status, reason, message), SLOW_POLL)


def _is_ending(runtime: Runtime, namespace: str) -> bool:
    """Whether the namespace is being deleted: nothing can be made in it any more, and all goes with it."""
    found = runtime.client.find(NAMESPACES, namespace)
    return found is None or bool(found["metadata"].get("deletionTimestamp"))


def _report(runtime: Runtime, found: dict[str, Any], backup: Backup, status: BackupStatus) -> None:
    """Write the status if it has changed, and an event when the Backup has come to another step."""
    new = to_json(status)
    if new == found.get("status", {}):
        return
    runtime.client.replace_status(BACKUPS, found, new)
    before = find_condition(backup.status.conditions, SUCCEEDED)
    after = find_condition(status.conditions, SUCCEEDED)
    if after is None or (before and (before.status, before.reason) == (after.status, after.reason)):
        return
    reference = {"apiVersion": API_VERSION, "kind": "Backup", **_identity(found)}
    bad = after.status == "False" or after.reason == outcome.WITH_WARNINGS or outcome.waiting_since(status)
    runtime.client.event(reference, "Warning" if bad else "Normal", after.reason, after.message, "Capture")


def _identity(found: Mapping[str, Any]) -> dict[str, str]:
    metadata = found["metadata"]
    return {key: metadata[key] for key in ("name", "namespace", "uid")}
