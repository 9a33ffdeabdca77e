"""One look at a Restore: gather, decide and act by its stage, report."""

from __future__ import annotations

import logging
from typing import Any

from msgspec.structs import replace

from backstay.api.meta import Condition, find_condition, parse, set_condition, to_json
from backstay.api.names import API_VERSION
from backstay.api.restore import Restore, RestoreStatus
from backstay.kube.enrolment import ensure_enrolled
from backstay.kube.errors import ApiError, ConflictError, UnavailableError
from backstay.kube.resource import RESTORES
from backstay.kube.runtime import Runtime
from backstay.repository import RepositoryError
from backstay.restore.errors import RestoreError, WaitError
from backstay.restore.progress import SUCCEEDED, VOLUMES_FILLED, Stage, failed, phase_of, stage_of, waiting
from backstay.restore.source import load_source, recent
from backstay.restore.stages import SOON, STAGES, Result, Work, remove_movers
from backstay.storage import StorageError

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0


def reconcile(runtime: Runtime, namespace: str, name: str) -> float | None:
    """Bring a Restore one stage further; seconds until the next look, or None when only an event calls for one."""
    found = runtime.client.find(RESTORES, name, namespace)
    if found is None or found["metadata"].get("deletionTimestamp"):
        return None
    restore = parse(Restore, found)
    if stage_of(restore.status, restore.spec.approve) == Stage.END:
        recent.drop(restore.metadata.uid)
        return None
    result = advance(runtime, restore)
    return report(runtime, found, restore, result)


def advance(runtime: Runtime, restore: Restore) -> Result:
    """Do what the Restore's stage is about; every way in which it cannot be done is a status, too."""
    status, now = restore.status, runtime.now()
    try:
        enrolment = ensure_enrolled(runtime, restore.metadata.namespace)
        if enrolment.reason in ("NamespaceNotFound", "NamespaceTerminating"):
            return Result(status, _RETRY_SECONDS)  # the Restore goes with it, and nothing can be written there
        if not enrolment.ok:
            return Result(waiting(status, enrolment.reason, enrolment.message, now), _RETRY_SECONDS)
        source = load_source(runtime, restore)
        work = Work(runtime, restore, source.origin, source.contents)
        return STAGES[stage_of(status, restore.spec.approve)](work)
    except WaitError as error:
        return Result(waiting(status, error.reason, str(error), now), SOON)
    except RestoreError as error:
        return Result(failed(status, error.reason, str(error), now), SOON)
    except (StorageError, RepositoryError) as error:
        end = failed if error.permanent else waiting
        return Result(end(status, error.reason, str(error), now), _RETRY_SECONDS)
    except ConflictError:
        raise  # something moved between look and act; the next look is due at once
    except UnavailableError as error:
        return Result(waiting(status, "ApiUnavailable", str(error), now), _RETRY_SECONDS)
    except ApiError as error:
        return Result(failed(status, error.reason or "ApiRefused", str(error), now), SOON)


def report(runtime: Runtime, found: dict[str, Any], restore: Restore, result: Result) -> float | None:
    """Write the status if it changed, with an event on each transition; an ended Restore leaves no mover behind."""
    status = _observed(result.status, restore, runtime)
    ended = stage_of(status, restore.spec.approve) == Stage.END
    if ended and find_condition(restore.status.conditions, VOLUMES_FILLED):  # no mover is started before
        # Before the status: once that tells the end, nobody looks at this Restore again.
        remove_movers(runtime, restore)
    if status != restore.status:
        runtime.leading()
        runtime.client.replace_status(RESTORES, found, to_json(status))
        _tell(runtime, restore, status)
    return None if ended else result.again


def _observed(status: RestoreStatus, restore: Restore, runtime: Runtime) -> RestoreStatus:
    """The status with the generation that was looked at in each condition, and the derived phase."""
    conditions: tuple[Condition, ...] = ()
    for condition in status.conditions:
        seen = replace(condition, observed_generation=restore.metadata.generation)
        conditions = set_condition((*conditions, condition), seen, runtime.now())
    status = replace(status, conditions=conditions)
    return replace(status, phase=phase_of(status))


def _tell(runtime: Runtime, restore: Restore, status: RestoreStatus) -> None:
    old = find_condition(restore.status.conditions, SUCCEEDED)
    new = find_condition(status.conditions, SUCCEEDED)
    if new is None or (old and (old.status, old.reason) == (new.status, new.reason)):
        return
    metadata = restore.metadata
    reference = {
        "apiVersion": API_VERSION,
        "kind": "Restore",
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid,
    }
    grave = new.status == "False" or new.reason == "CompletedWithWarnings" or new.message.startswith("Waiting: ")
    runtime.client.event(reference, "Warning" if grave else "Normal", new.reason, new.message, "Restore")
    logger.info("Restore %s/%s: %s: %s", metadata.namespace, metadata.name, new.reason, new.message)
