"""Who may take the Lease, and what happens to a holder that cannot keep it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from backstay.kube.client import Client
from backstay.kube.errors import ConflictError, NotFoundError, UnavailableError
from backstay.kube.lease import DURATION_SECONDS, MARGIN_SECONDS, Lease, LostLeaseError, Take, Wait, decide

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


def held_by(holder: str, **spec: Any) -> dict[str, Any]:
    return {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 4, "acquireTime": "then", **spec}


def test_a_lease_that_does_not_exist_is_taken() -> None:
    decision = decide(None, "me", 0.0, NOW)

    assert isinstance(decision, Take)
    assert decision.spec["holderIdentity"] == "me"
    assert decision.spec["leaseTransitions"] == 0
    assert decision.spec["renewTime"] == "2026-11-24T02:00:00.000000Z"


def test_another_holders_lease_is_waited_for_from_when_it_was_last_seen_to_change() -> None:
    assert decide(held_by("other"), "me", 4.0, NOW) == Wait("other", 11.0)


@pytest.mark.parametrize("spec", [held_by("other"), held_by("")])
def test_an_expired_or_released_lease_changes_hands(spec: dict[str, Any]) -> None:
    decision = decide(spec, "me", 15.0, NOW)

    assert isinstance(decision, Take)
    assert decision.spec["leaseTransitions"] == 5
    assert decision.spec["acquireTime"] != "then"


def test_a_released_lease_is_taken_at_once() -> None:
    assert isinstance(decide(held_by("", leaseDurationSeconds=1), "me", 0.0, NOW), Take)


def test_our_own_lease_is_renewed_and_keeps_its_history() -> None:
    decision = decide(held_by("me"), "me", 3.0, NOW)

    assert isinstance(decision, Take)
    assert decision.spec["acquireTime"] == "then"
    assert decision.spec["leaseTransitions"] == 4


class Cluster:
    """As much of a client as a Lease uses, over one Lease in memory."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.away = False

    def limited_to(self, seconds: float) -> Cluster:
        return self

    def find(self, *_: Any) -> dict[str, Any] | None:
        if self.away:
            raise UnavailableError("get Lease", 0, "", "no answer")
        return self.lease

    def get(self, *_: Any) -> dict[str, Any]:
        found = self.find()
        if found is None:
            raise NotFoundError("get Lease", 404, "", "")
        return found

    def create(self, _: Any, body: dict[str, Any]) -> dict[str, Any]:
        return self._write(body)

    def replace(self, _: Any, body: dict[str, Any]) -> dict[str, Any]:
        if self.lease and body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ConflictError("replace Lease", 409, "Conflict", "")
        return self._write(body)

    def _write(self, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return self.lease


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def claim(cluster: Cluster, identity: str, clock: Clock) -> Lease:
    return Lease(cast(Client, cluster), "backstay", identity, clock=clock, die=lambda status: None)


def test_a_holder_stops_before_its_successor_can_begin() -> None:
    cluster, clock = Cluster(), Clock()
    first, second = claim(cluster, "first", clock), claim(cluster, "second", clock)
    assert first.acquire(threading.Event())

    assert second._attempt() == Wait("first", 15.0)
    clock.now = DURATION_SECONDS - MARGIN_SECONDS - 0.1
    first.leading()
    clock.now = DURATION_SECONDS - MARGIN_SECONDS
    with pytest.raises(LostLeaseError):
        first.leading()
    assert isinstance(second._attempt(), Wait)
    clock.now = DURATION_SECONDS
    assert second._attempt() is None
    second.leading()


def test_a_released_lease_needs_no_waiting() -> None:
    cluster, clock = Cluster(), Clock()
    first, second = claim(cluster, "first", clock), claim(cluster, "second", clock)
    assert first.acquire(threading.Event())

    first.release()

    assert second.acquire(threading.Event())


def test_nobody_leads_before_the_lease_is_taken() -> None:
    with pytest.raises(LostLeaseError):
        claim(Cluster(), "me", Clock()).leading()


def test_a_lease_that_cannot_be_renewed_ends_the_process() -> None:
    cluster, clock, died = Cluster(), Clock(), threading.Event()
    lease = Lease(cast(Client, cluster), "backstay", "me", clock=clock, die=lambda status: died.set())
    assert lease.acquire(threading.Event())
    cluster.away = True

    clock.now = DURATION_SECONDS
    lease.keep()

    assert died.wait(5)
