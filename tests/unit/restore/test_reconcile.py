"""A whole Restore against an API server in memory, cut off everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from backstay.api.meta import find_condition, parse
from backstay.api.names import RESTORED_LABEL
from backstay.api.restore import Restore
from backstay.kube import resource as kinds
from backstay.kube.errors import InvalidError, UnavailableError
from backstay.kube.runtime import Runtime, Settings
from backstay.restore import source
from backstay.restore.reconcile import reconcile
from backstay.restore.source import Origin, Source
from tests.unit.restore.fake_cluster import FakeCluster, Killed, runs_out_of_space
from tests.unit.restore.objects import NOW, claim, contents, obj, volume

PODS_OF_WEB = {"selector": {"matchLabels": {"app": "web"}}, "replicas": 0}
APPLICATION = (
    obj("ConfigMap", "settings", data={"a": "b"}),
    claim("data"),
    obj("Service", "web", spec={"clusterIP": "10.0.0.1"}),
    obj("Deployment", "web", "apps/v1", spec=PODS_OF_WEB),
)


class Operator:
    """Looks at the Restore until it has ended, with a clock that moves on by what each look asks for."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.time = NOW
        self.runtime = Runtime(cluster, Settings(), "cluster", now=self.now)  # type: ignore[arg-type]

    def now(self) -> datetime:
        return self.time

    def run(self, looks: int = 40) -> Restore:
        for _ in range(looks):
            again = reconcile(self.runtime, "shop", "r")
            if again is None or (again >= 60 and self.status_phase() == "AwaitingApproval"):
                break
            self.time += timedelta(seconds=max(again, 1))
        return self.restore()

    def status_phase(self) -> str:
        return self.restore().status.phase

    def restore(self) -> Restore:
        return parse(Restore, self.cluster.objects["backstay.dev", "Restore", "shop", "r"])


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    yield _new_cluster()
    source.recent.drop("r-uid")


def order(cluster: FakeCluster, approve: str = "Create") -> None:
    metadata = {"name": "r", "namespace": "shop", "uid": "r-uid", "generation": 1}
    cluster.put(kinds.RESTORES, {"metadata": metadata, "spec": {"source": {"backup": "b"}, "approve": approve}})


def succeeded(restore: Restore) -> Any:
    return find_condition(restore.status.conditions, "Succeeded")


def test_everything_is_created_in_order_and_the_claim_is_filled_before_the_workload_starts(
    cluster: FakeCluster,
) -> None:
    restore = Operator(cluster).run()

    assert restore.status.phase == "Completed", restore.status.message
    made = [call for call in cluster.calls if call.startswith("created ") and "backstay" not in call]
    assert made == [
        "created ConfigMap settings",
        "created PersistentVolumeClaim data",
        "created Service web",
        "created Deployment web",
    ]
    assert restore.status.resources is not None
    assert (restore.status.resources.planned, restore.status.resources.created) == (4, 4)
    assert [(v.claim, v.phase, v.bytes) for v in restore.status.volumes] == [("data", "Filled", 2048)]
    assert cluster.names(kinds.JOBS) == []
    filled = next(n for n, call in enumerate(cluster.calls) if call.startswith("created Job backstay-fill"))
    assert filled < cluster.calls.index("created Deployment web")
    assert cluster.events[-1] == ("Normal", "Completed")


def test_without_approval_only_a_count_is_made(cluster: FakeCluster) -> None:
    order(cluster, approve="")
    before = {key for key in cluster.objects if key[1] not in ("ServiceAccount", "RoleBinding")}

    restore = Operator(cluster).run()

    assert restore.status.phase == "AwaitingApproval"
    assert "Would create 4 objects and fill 1 volumes with 2.0 KiB" in restore.status.message
    assert 'patch restore r --type merge -p \'{"spec":{"approve":"Create"}}\'' in restore.status.message
    assert {key for key in cluster.objects if key[1] not in ("ServiceAccount", "RoleBinding")} == before


def test_what_exists_is_kept_and_the_data_of_a_kept_claim_are_told_not_restored(cluster: FakeCluster) -> None:
    cluster.put(kinds.CONFIG_MAPS, obj("ConfigMap", "settings", data={"a": "mine"}))
    cluster.put(kinds.CLAIMS, claim("data"))

    restore = Operator(cluster).run()

    assert restore.status.phase == "CompletedWithWarnings"
    assert restore.status.kept == ("ConfigMap settings", "PersistentVolumeClaim data")
    assert "PersistentVolumeClaim data existed and was kept: its data were NOT restored" in restore.status.warnings
    assert not any("backstay-fill" in call for call in cluster.calls)
    assert cluster.objects["", "ConfigMap", "shop", "settings"]["data"] == {"a": "mine"}


def test_a_full_disk_fails_the_restore_before_any_workload_starts(cluster: FakeCluster) -> None:
    cluster.mover = runs_out_of_space
    restore = Operator(cluster).run()
    assert succeeded(restore).reason == "FillingFailed"
    assert "too small" in restore.status.message
    assert cluster.names(kinds.DEPLOYMENTS) == []
    assert cluster.names(kinds.CLAIMS) == ["data"]
    assert cluster.names(kinds.JOBS) == []


def test_refused_objects_fail_the_restore_at_its_end_with_the_servers_words(cluster: FakeCluster) -> None:
    def refuse(body: Any) -> InvalidError | None:
        words = "admission webhook denied it"
        return InvalidError("create", 422, "Invalid", words) if body["kind"] == "Service" else None

    cluster.refuse = refuse
    restore = Operator(cluster).run()
    assert succeeded(restore).reason == "ObjectsRefused"
    assert "1 of 4 objects could not be created: Service web (admission webhook denied it)" in restore.status.message
    assert cluster.names(kinds.DEPLOYMENTS) == ["web"]


def test_a_refused_claim_fails_the_restore_before_any_workload_starts(cluster: FakeCluster) -> None:
    def refuse(body: Any) -> InvalidError | None:
        return InvalidError("create", 403, "Forbidden", "exceeded quota") if "Volume" in body["kind"] else None

    cluster.refuse = refuse
    restore = Operator(cluster).run()
    assert succeeded(restore).reason == "ClaimsRefused"
    assert "exceeded quota" in restore.status.message
    assert cluster.names(kinds.DEPLOYMENTS) == []


def test_a_server_that_asks_to_come_back_later_is_asked_again(cluster: FakeCluster) -> None:
    answers = iter([UnavailableError("create Service", 503, "", "try later")])
    cluster.refuse = lambda body: next(answers, None) if body["kind"] == "Service" else None
    assert Operator(cluster).run().status.phase == "Completed"


def test_a_missing_storage_class_fails_the_restore_before_anything_is_created(cluster: FakeCluster) -> None:
    cluster.delete(kinds.STORAGE_CLASSES, "fast")
    restore = Operator(cluster).run()
    assert succeeded(restore).reason == "StorageClassNotFound"
    assert "There is no StorageClass fast here" in restore.status.message
    assert cluster.names(kinds.CONFIG_MAPS) == []


def test_a_claim_that_was_deleted_after_it_was_filled_is_not_made_again_empty(cluster: FakeCluster) -> None:
    def lose(call: str) -> None:
        if call.startswith("delete Job"):
            cluster.objects.pop(("", "PersistentVolumeClaim", "shop", "data"), None)

    cluster.interrupt = lose
    restore = Operator(cluster).run()
    assert succeeded(restore).reason == "ClaimLost"
    assert cluster.names(kinds.DEPLOYMENTS) == []


def test_a_workload_that_does_not_become_ready_is_a_warning(cluster: FakeCluster) -> None:
    waiting = obj("Deployment", "web", "apps/v1", spec={**PODS_OF_WEB, "replicas": 1})
    source.recent.keep("r-uid", Source(Origin("main", "5" * 64), contents(waiting)))
    restore = Operator(cluster).run(looks=400)
    assert restore.status.phase == "CompletedWithWarnings"
    assert restore.status.warnings[0].startswith("Not ready after 5 minutes: Deployment web has 0 of 1 pods ready")


def test_a_namespace_that_is_not_enrolled_is_waited_for(cluster: FakeCluster) -> None:
    cluster.put(kinds.NAMESPACES, {"metadata": {"name": "shop"}})
    restore = Operator(cluster).run(looks=2)
    assert restore.status.phase == "Pending"
    assert "kubectl label namespace shop" in restore.status.message


def test_an_operator_that_is_killed_at_any_call_is_followed_by_one_that_ends_the_work() -> None:
    steps = len(_calls_of_a_whole_run())
    assert steps > 50
    for death in range(steps):
        made = _new_cluster()
        made.interrupt = _dies_at(death)
        with pytest.raises(Killed):
            Operator(made).run()
        made.interrupt = lambda call: None

        restore = Operator(made).run()

        assert restore.status.phase == "Completed", (death, restore.status.message)
        assert restore.status.resources is not None
        assert restore.status.resources.created == 4
        assert made.names(kinds.JOBS) == [], death
        labels = made.objects["apps", "Deployment", "shop", "web"]["metadata"]["labels"]
        assert labels == {RESTORED_LABEL: "r-uid"}


def _new_cluster() -> FakeCluster:
    made = FakeCluster()
    made.put(kinds.STORAGE_CLASSES, {"metadata": {"name": "fast"}})
    spec = {"s3": {"bucket": "b"}, "passwordSecretRef": {"name": "p"}}
    made.put(kinds.STORAGES, {"metadata": {"name": "main", "namespace": "shop"}, "spec": spec})
    order(made)
    source.recent.keep("r-uid", Source(Origin("main", "5" * 64), contents(*APPLICATION, volumes=(volume("data"),))))
    return made


def _calls_of_a_whole_run() -> list[str]:
    made = _new_cluster()
    assert Operator(made).run().status.phase == "Completed"
    return made.calls


def _dies_at(number: int) -> Callable[[str], None]:
    left = iter(range(number))

    def interrupt(call: str) -> None:
        if next(left, None) is None:
            raise Killed

    return interrupt
