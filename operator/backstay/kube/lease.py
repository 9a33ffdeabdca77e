"""The Lease that makes this process the only operator, and ends it before another can begin.

kopf's peering only pauses handlers, and knows nothing of a reconcile in mid-flight; so the Lease is our own. Its rule:
a holder that could not renew stops as a process some seconds before others may take the Lease over.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backstay.kube.client import Client
from backstay.kube.errors import AlreadyExistsError, ApiError, ConflictError
from backstay.kube.event import micro_time
from backstay.kube.resource import LEASES

logger = logging.getLogger(__name__)

NAME = "backstay-operator"
DURATION_SECONDS = 15
RENEW_SECONDS = 5.0
#: How long before the Lease's end its holder stops: room for a request that is under way, and for a paused process.
MARGIN_SECONDS = 4.0
_CALL_SECONDS = 4.0

Object = dict[str, Any]


class LostLeaseError(Exception):
    """Another operator may be at work: nothing may be done any more."""


@dataclass(frozen=True)
class Take:
    """The Lease is free, ours or expired: write this spec."""

    spec: Object


@dataclass(frozen=True)
class Wait:
    """Another process holds the Lease, for at least so many seconds more unless it goes on renewing."""

    holder: str
    seconds: float


def decide(spec: Object | None, identity: str, unchanged_for: float, now: datetime) -> Take | Wait:
    """Whether the Lease may be taken.

    ``spec`` is the Lease's (None: there is none); ``unchanged_for`` is for how many seconds this process has watched
    it without seeing it renewed. The holder's own timestamps are not used: its clock may differ from ours.
    """
    old = spec or {}
    holder = old.get("holderIdentity") or ""
    if holder and holder != identity:
        left = float(old.get("leaseDurationSeconds") or DURATION_SECONDS) - unchanged_for
        if left > 0:
            return Wait(holder, left)
    changes_hands = holder != identity
    return Take(
        {
            "holderIdentity": identity,
            "leaseDurationSeconds": DURATION_SECONDS,
            "acquireTime": micro_time(now) if changes_hands else old.get("acquireTime", micro_time(now)),
            "renewTime": micro_time(now),
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if changes_hands and spec else 0),
        }
    )


def uptime() -> float:
    """Seconds of a clock that also runs while the machine is suspended, unlike ``time.monotonic`` on Linux."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Lease:
    """This process's claim to be the operator."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        identity: str,
        *,
        clock: Callable[[], float] = uptime,
        die: Callable[[int], None] = os._exit,
    ) -> None:
        """`die` ends the process at once; it is called with the exit status when the Lease cannot be kept."""
        self._client = client.limited_to(_CALL_SECONDS)
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._die = die
        self._held_until = float("-inf")
        self._seen: tuple[str, float] = ("", clock())
        self._stopped = threading.Event()

    def acquire(self, stopped: threading.Event) -> bool:
        """Wait until the Lease is ours; False when `stopped` was set meanwhile."""
        told = ""
        while not stopped.is_set():
            pause = 1.0
            try:
                decision = self._attempt()
                if decision is None:
                    logger.info("holding Lease %s/%s as %s", self._namespace, NAME, self._identity)
                    return True
                pause = min(pause, decision.seconds)
                if told != decision.holder:
                    told = decision.holder
                    logger.info("waiting for Lease %s/%s, held by %s", self._namespace, NAME, told)
            except ApiError as error:
                logger.warning("Lease not acquired yet: %s", error)
            stopped.wait(pause)
        return False

    def keep(self) -> None:
        """Renew from now on in threads of its own, and end the process when that fails for too long."""
        threading.Thread(target=self._renew, name="lease-renew", daemon=True).start()
        # A thread of its own: a renewal that hangs must not hold up the end.
        threading.Thread(target=self._watch, name="lease-watch", daemon=True).start()

    def leading(self) -> None:
        """Raise LostLeaseError unless the Lease is surely still ours."""
        if self._clock() >= self._held_until:
            raise LostLeaseError(
                f"Lease {self._namespace}/{NAME} could not be renewed: another operator may be at work"
            )

    def release(self) -> None:
        """Give the Lease away at once, so that a successor need not wait. No work may be under way any more."""
        self._stopped.set()
        try:
            lease = self._client.get(LEASES, NAME, self._namespace)
            if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                self._client.replace(LEASES, {**lease, "spec": spec})
                logger.info("released Lease %s/%s", self._namespace, NAME)
        except ApiError as error:
            logger.warning("Lease not released, a successor has to wait for its end: %s", error)

    def _attempt(self) -> Wait | None:
        """Take or renew the Lease; None when that succeeded. Raises ApiError."""
        asked = self._clock()
        lease = self._client.find(LEASES, NAME, self._namespace)
        version = lease["metadata"]["resourceVersion"] if lease else ""
        if version != self._seen[0]:
            self._seen = (version, asked)
        decision = decide((lease.get("spec") or {}) if lease else None, self._identity, asked - self._seen[1], _now())
        if isinstance(decision, Wait):
            return decision
        try:
            if lease is None:
                metadata = {"name": NAME, "namespace": self._namespace}
                body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata}
                self._client.create(LEASES, {**body, "spec": decision.spec})
            else:
                self._client.replace(LEASES, {**lease, "spec": decision.spec})
        except (AlreadyExistsError, ConflictError):
            return Wait("another operator", 1.0)
        # Counted from before the call: others count from when they see the write, which is later.
        self._held_until = asked + DURATION_SECONDS - MARGIN_SECONDS
        return None

    def _renew(self) -> None:
        pause = RENEW_SECONDS
        while not self._stopped.wait(pause):
            try:
                taken_by = self._attempt()
            except ApiError as error:
                logger.warning("Lease not renewed, trying again: %s", error)
                pause = 1.0
                continue
            if taken_by is not None and taken_by.holder != "another operator":
                self._end(f"Lease taken over by {taken_by.holder}")
                return
            pause = RENEW_SECONDS if taken_by is None else 0.5

    def _watch(self) -> None:
        while not self._stopped.wait(0.25):
            if self._clock() >= self._held_until:
                self._end("Lease could not be renewed in time")
                return

    def _end(self, why: str) -> None:
        if self._stopped.is_set():
            return
        logger.critical("%s: this operator ends now, its successor goes on with the work", why)
        self._die(1)


def _now() -> datetime:
    return datetime.now(UTC)
