"""How a request is made, tried again and given up.

Permanent refusals (credentials, bucket) fail at once. Transient trouble (timeouts, resets, throttling) is retried with
growing pauses: for a few seconds while the server has not answered once, since then the address is likely wrong, and
for `patience` seconds later on, since then a backup that is under way is worth waiting for.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from backstay.repository.errors import AccessDenied, RepositoryError, Unreachable
from backstay.repository.stores.s3_client import make_client
from backstay.repository.stores.s3_errors import Trouble, judge

if TYPE_CHECKING:
    from backstay.repository.stores.s3 import S3Credentials, S3Location

Result = TypeVar("Result")

FIRST_PATIENCE = 8.0  # seconds of retries while the server has never answered
_DOUBTFUL_PATIENCE = 4.0  # seconds of retries while what answers does not speak S3
_LEAST_ATTEMPTS = 3  # of a request that takes longer than all patience, such as an upload on a slow link
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0  # seconds


class S3Connection:
    """Requests to one bucket, `connections` of them at a time. Safe to use from several threads."""

    def __init__(
        self,
        location: S3Location,
        credentials: S3Credentials | Callable[[], S3Credentials] | None,
        ca_file: str | None,
        *,
        patience: float,
        connections: int,
    ) -> None:
        self.where = f"bucket {location.bucket!r} at {location.endpoint or 'AWS'}"
        if location.endpoint and not re.match(r"https?://[^/]", location.endpoint):
            raise Unreachable(
                f"using {self.where}: the endpoint is no http or https address; write it as https://host or"
                " https://host:port"
            )
        self.connections = connections
        self._location = location
        self._credentials = credentials
        self._ca_file = ca_file
        self._patience = patience
        self._answered = False
        self._slots = threading.BoundedSemaphore(connections)
        self._mutex = threading.Lock()
        # By process: after a fork, the connections of the parent's client are not touched, since its requests and ours
        # would be mixed on them.
        self._clients: dict[int, Any] = {}
        self._keys: S3Credentials | None = None

    def do(self, doing: str, request: Callable[[Any], Result]) -> Result:
        """What `request` returns, which is given a client of botocore and is called again when that may help.

        Raises the errors of `errors`, in which `doing` tells what was being done.
        """
        told = f"{doing} {self.where}"
        pause = _FIRST_PAUSE
        attempts = 0
        troubled_since: float | None = None
        renewed = False
        with self._slots:  # kept while pausing: a server that is overloaded is not helped by others in our stead
            while True:
                client = self._current()
                attempts += 1
                try:
                    result = request(client)
                except RepositoryError:
                    raise
                except Exception as error:
                    verdict = judge(told, error, datetime.now(UTC))
                    if isinstance(verdict, RepositoryError):
                        self._answered = self._answered or not isinstance(verdict, Unreachable)
                        raise verdict from error
                    self._answered = self._answered or verdict.answered
                    if verdict.stale:
                        if renewed or not self._renew(client):
                            raise AccessDenied(verdict.what) from error
                        renewed = True
                        continue
                    troubled_since = troubled_since if troubled_since is not None else time.monotonic()
                    wait = max(pause * random.uniform(0.75, 1.25), verdict.wait)
                    if self._given_up(verdict, attempts, time.monotonic() - troubled_since + wait):
                        raise Unreachable(f"{told}: {verdict.what}; {verdict.hint}") from error
                    time.sleep(wait)
                    pause = min(pause * 2, _LONGEST_PAUSE)
                else:
                    self._answered = True
                    return result

    def _given_up(self, trouble: Trouble, attempts: int, after: float) -> bool:
        if trouble.doubtful:
            return after > _DOUBTFUL_PATIENCE
        if not self._answered:
            return after > FIRST_PATIENCE
        return after > self._patience and attempts >= _LEAST_ATTEMPTS

    # --- clients and keys -----------------------------------------------------------------------------------------

    def _current(self) -> Any:
        process = os.getpid()
        client = self._clients.get(process)
        if client is not None:
            return client
        with self._mutex:
            if process not in self._clients:
                self._keys = self._credentials() if callable(self._credentials) else self._credentials
                self._make()
            return self._clients[process]

    def _make(self) -> None:
        client = make_client(self._location, self._keys, self._ca_file, connections=self.connections)
        self._clients[os.getpid()] = client

    def _renew(self, refused: Any) -> bool:
        """Whether there is a client with other keys than those of the `refused` one."""
        if not callable(self._credentials):
            return False
        with self._mutex:
            if self._clients[os.getpid()] is refused:
                keys = self._credentials()
                if keys == self._keys:
                    return False
                self._keys = keys
                self._make()
            return True
