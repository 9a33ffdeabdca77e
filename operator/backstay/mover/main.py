"""A mover's life: read the order, do it, leave a result, and exit with a code that the Job's failure policy reads.

Exit codes: 0 done, 1 failed but another try may help, 10 failed and none will, 143 told to stop. Told to stop, a mover
names in an index what it has uploaded, so that the next attempt goes on there, and removes its lock.
"""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any, NoReturn

from backstay.mover.report import Report, encode_result

EXIT_TRANSIENT = 1
EXIT_PERMANENT = 10
EXIT_TERMINATED = 143


class Terminated(BaseException):
    """The kubelet asks the process to stop. No Exception, so that nothing on the way takes it for an ordinary one."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; a second must not cut the cleaning up short
    raise Terminated


def main() -> int:
    """Entry point of `backstay-mover`; the process's exit code."""
    report = Report()
    gc.disable()  # what the start makes is there to stay, so looking for cycles in it is time lost
    try:
        signal.signal(signal.SIGTERM, _terminate)
        result, code = _run(os.environ, report)
    except Terminated:
        message = "the mover was told to stop before it was done; the next attempt goes on where this one was"
        result, code = _failure("Terminated", message, permanent=False), EXIT_TERMINATED
    finally:
        report.stop()
    report.line(result)
    _leave(os.environ.get("BACKSTAY_RESULT_FILE", "/dev/termination-log"), result, report)
    return code


def _failure(reason: str, message: str, *, permanent: bool) -> dict[str, Any]:
    return {"ok": False, "reason": reason, "message": message, "permanent": permanent}


def _run(environment: Mapping[str, str], report: Report) -> tuple[dict[str, Any], int]:
    """Do the order; the result and the exit code."""
    from backstay.mover.order import OrderError
    from backstay.repository.errors import RepositoryError

    try:
        return {"ok": True, "volumes": _carry_out(environment, report)}, 0
    except OrderError as error:
        return _failure("InvalidOrder", str(error), permanent=True), EXIT_PERMANENT
    except RepositoryError as error:
        code = EXIT_PERMANENT if error.permanent else EXIT_TRANSIENT
        return _failure(error.reason, str(error), permanent=error.permanent), code
    except Exception as error:  # noqa: BLE001  (a mover always leaves a result; the log has the traceback)
        report.log(traceback.format_exc(), "error")
        told = f"unexpected failure: {type(error).__name__}: {error}; the mover's log has the details"
        return _failure("InternalError", told, permanent=False), EXIT_TRANSIENT


def _carry_out(environment: Mapping[str, str], report: Report) -> list[dict[str, Any]]:
    from backstay.mover import credentials, volumes
    from backstay.mover.order import BackupOrder, OrderError, parse
    from backstay.repository.crew import Crew
    from backstay.repository.format.snapshot import now
    from backstay.repository.outcome import Progress
    from backstay.repository.repository import Repository
    from backstay.repository.stores.s3 import S3Location, S3Store

    text = environment.get("BACKSTAY_ORDER")
    if not text:
        raise OrderError("the mover has no order: BACKSTAY_ORDER is empty")
    order = parse(text)
    secrets = credentials.read(environment)
    place = order.repository
    location = S3Location(place.bucket, place.prefix, place.endpoint, place.region, place.force_path_style)
    latest: dict[str, Any] = {}

    def tell(claim: str, at: Progress) -> None:
        latest["progress"] = {"volume": claim, "files": at.files, "bytes": at.bytes, "totalBytes": at.total_bytes}

    with Crew() as crew:  # before there is a second thread
        # Keys are read anew when the server refuses them: the kubelet brings a Secret's changes into the pod.
        keys = functools.partial(credentials.s3_keys, environment) if secrets.s3 else None
        repository = Repository.open(S3Store(location, keys, secrets.ca_file), secrets.password)
        gc.freeze()
        gc.enable()
        report.start(lambda: latest.get("progress"))
        if isinstance(order, BackupOrder):
            holder = environment.get("BACKSTAY_HOLDER", "")
            return volumes.back_up(repository, order, holder, crew, tell, now, report.log)
        return volumes.restore(repository, order, crew, tell, report.log)


def _leave(path: str, result: dict[str, Any], report: Report) -> None:
    """Write the termination message. What cannot be written is in the log."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(encode_result(result))
    except OSError as error:
        report.log(f"the result cannot be written to {path}: {error.strerror}", "error")


if __name__ == "__main__":
    sys.exit(main())
