"""When a storage is tried: on its own time, and when somebody touches it, but not because we wrote its status."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from backstay.api.storage import BackupStorage
from backstay.kube.client import Client
from backstay.kube.resource import NAMESPACES, STORAGES, Resource
from backstay.kube.runtime import Runtime, Settings
from backstay.repository import Repository
from backstay.storage import reconcile as module
from backstay.storage.errors import StorageError
from tests.unit.capture.application import MemoryStore
from tests.unit.restore.fake_cluster import FakeCluster


class Cluster(FakeCluster):
    def apply(self, resource: Resource, body: dict[str, Any]) -> dict[str, Any]:
        return self.put(resource, body)


class Lab:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
        self.cluster = Cluster()
        self.repository = Repository.init(MemoryStore(), "password")
        self.failure: StorageError | None = None
        self.probes = 0
        spec = {"s3": {"bucket": "b"}, "passwordSecretRef": {"name": "p"}}
        self.cluster.put(STORAGES, {"metadata": {"name": "main", "namespace": "shop", "generation": 1}, "spec": spec})

    def prove(self, runtime: Runtime, storage: BackupStorage, known_id: str) -> Repository:
        self.probes += 1
        if self.failure:
            raise self.failure
        return self.repository

    def look(self, after: float = 0.0) -> float | None:
        self.now += timedelta(seconds=after)
        runtime = Runtime(cast(Client, self.cluster), Settings(), "here", now=lambda: self.now)
        return module.reconcile(runtime, "shop", "main")

    def touch(self) -> None:
        found = self.cluster.get(STORAGES, "main", "shop")
        found["metadata"]["annotations"] = {"look": "again"}
        self.cluster.put(STORAGES, found)

    @property
    def ready(self) -> dict[str, Any]:
        (ready,) = self.cluster.get(STORAGES, "main", "shop")["status"]["conditions"]
        return cast(dict[str, Any], ready)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab()
    monkeypatch.setattr(module, "prove", lab.prove)
    monkeypatch.setattr(module, "open_to_read", lambda runtime, storage: lab.repository)
    monkeypatch.setattr(module, "_memories", {})
    return lab


def test_a_good_storage_is_ready_at_once_and_looked_through_every_minute(lab: Lab) -> None:
    assert lab.look() == 60.0

    assert lab.ready["status"] == "True"
    assert lab.cluster.events == [("Normal", "Ready")]
    assert "backstay-mover-main" in {key[3] for key in lab.cluster.objects}
    for _ in range(4):
        lab.look(after=60)
    assert lab.probes == 1
    lab.look(after=60)
    assert lab.probes == 2


def test_our_own_status_is_no_reason_to_try_again_but_a_users_touch_is(lab: Lab) -> None:
    lab.failure = StorageError("AccessDenied", "wrong keys", permanent=True)
    assert lab.look() == 15.0
    assert lab.look() == 15.0
    assert lab.probes == 1

    lab.failure = None
    lab.touch()
    lab.look()

    assert lab.probes == 2
    assert lab.cluster.events == [("Warning", "AccessDenied"), ("Normal", "Ready")]


def test_the_same_failure_again_is_no_new_event(lab: Lab) -> None:
    lab.failure = StorageError("AccessDenied", "wrong keys", permanent=True)
    lab.look()
    lab.look(after=15)
    lab.look(after=15)

    assert lab.probes == 3
    assert lab.cluster.events == [("Warning", "AccessDenied")]


def test_a_namespace_that_is_closed_again_stops_everything(lab: Lab) -> None:
    lab.look()
    lab.cluster.put(NAMESPACES, {"metadata": {"name": "shop"}})
    lab.look(after=1)

    assert lab.ready["reason"] == "NotEnrolled"
    assert lab.probes == 1


def test_a_deleted_storage_is_not_looked_at_again(lab: Lab) -> None:
    lab.look()
    lab.cluster.delete(STORAGES, "main", "shop")

    assert lab.look() is None
