"""A whole Backup against an API server and a repository in memory, cut off everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest

from backstay.api.backup import Backup
from backstay.api.meta import find_condition, parse
from backstay.capture import commit, work
from backstay.capture.reconcile import reconcile
from backstay.kube import resource as kinds
from backstay.kube.errors import ForbiddenError, UnavailableError
from backstay.kube.runtime import Runtime, Settings
from backstay.repository import BucketNotFound, Repository, Unreachable, keys
from tests.unit.capture.application import (
    NOW,
    CaptureCluster,
    MemoryStore,
    bucket_is_gone,
    read_json,
    set_up,
    unavailable,
)
from tests.unit.restore.fake_cluster import Killed

PASSWORD = "secret"


@pytest.fixture(scope="module")
def empty_repository() -> Iterator[dict[str, bytes]]:
    """An empty repository's files; its key is derived once, since that is slow by design."""
    store = MemoryStore()
    Repository.init(store, PASSWORD)
    found = keys.search(store, PASSWORD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "search", lambda store, password: found)
        yield store.objects


class Place:
    """A cluster and a repository, and an operator that looks at the Backup until it has ended."""

    def __init__(self, empty: dict[str, bytes]) -> None:
        self.cluster = CaptureCluster()
        self.store = MemoryStore(empty)
        self.repository = Repository.open(self.store, PASSWORD)
        self.time = NOW
        self.runtime = Runtime(self.cluster, Settings(), "cluster", now=self.now)  # type: ignore[arg-type]

    def now(self) -> datetime:
        return self.time

    def open(self, *_: Any, **__: Any) -> Repository:
        return self.repository

    def look(self) -> float | None:
        again = reconcile(self.runtime, "shop", "b")
        self.time += timedelta(seconds=max(again or 0, 1))
        return again

    def run(self, looks: int = 100) -> Backup:
        for _ in range(looks):
            if self.look() is None:
                break
        return self.backup()

    def backup(self) -> Backup:
        return parse(Backup, self.cluster.objects["backstay.dev", "Backup", "shop", "b"])

    def restore_points(self) -> list[Any]:
        return [s for s in self.repository.snapshots() if "backstay.dev/restore-point=u1" in s.tags]

    def read(self, tree: str, path: str) -> Any:
        return read_json(b"".join(self.repository.read_file(self.repository.find(tree, path))))

    def interrupt(self, interruption: Callable[[str], None]) -> None:
        self.cluster.interrupt = self.store.interrupt = interruption


@pytest.fixture
def place(empty_repository: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(empty_repository)
    monkeypatch.setattr(work, "open_repository", made.open)
    yield made
    commit._fresh.clear()


def succeeded(backup: Backup) -> Any:
    return find_condition(backup.status.conditions, "Succeeded")


def test_an_application_becomes_a_restore_point_and_nothing_else_is_left(place: Place) -> None:
    set_up(place.cluster)

    backup = place.run()

    assert backup.status.phase == "Completed", backup.status.message
    (point,) = place.restore_points()
    assert point.hostname == "cluster/shop"
    assert point.paths == ("/resources",)
    assert backup.status.snapshot == point.id
    described = place.read(point.tree, "backstay/restore-point.json")
    assert [f"{o['kind']} {o['name']}: {o['reason']}" for o in described["objects"]] == [
        "StatefulSet db: selected by label",
        "Secret db: referenced by StatefulSet db",
        "PersistentVolumeClaim data-db-0: referenced by StatefulSet db",
    ]
    assert described["outcome"] == "Completed"
    (volume,) = described["volumes"]
    assert (volume["claim"], volume["method"], volume["tree"], volume["bytes"]) == (
        "data-db-0", "Snapshot", "7" * 64, 2048,
    )  # fmt: skip
    assert volume["user"]["runAs"] == {"runAsUser": 999, "runAsGroup": 999}
    assert place.read(point.tree, "resources/apps/StatefulSet/db/object.json")["kind"] == "StatefulSet"
    assert place.cluster.temporaries() == []
    told = [reason for _, reason in place.cluster.events]
    assert told == ["Cutting", "Moving", "Committing", "CleaningUp", "Completed"]


def test_a_live_volume_under_its_running_pod_is_completed_with_a_warning(place: Place) -> None:
    set_up(place.cluster, driver="csi.without-snapshots.example.com")

    backup = place.run()

    assert backup.status.phase == "CompletedWithWarnings"
    assert backup.status.volumes[0].consistency == "Live"
    assert "read live while pods may have written to it" in backup.status.volumes[0].warnings[0]
    assert not any("VolumeSnapshot" in made for made in place.cluster.made)


def test_the_policy_may_go_once_the_backup_runs(place: Place) -> None:
    set_up(place.cluster)
    place.look()
    del place.cluster.objects["backstay.dev", "BackupPolicy", "shop", "shop"]

    assert place.run().status.phase == "Completed"


@pytest.mark.parametrize(
    ("missing", "reason", "words"),
    [
        ("BackupPolicy", "PolicyNotFound", "'shop' does not exist"),
        ("BackupStorage", "StorageNotFound", "names BackupStorage 'main', which does not exist"),
    ],
)
def test_an_order_for_what_does_not_exist_fails_soon_and_says_what(
    place: Place, missing: str, reason: str, words: str
) -> None:
    set_up(place.cluster)
    name = "shop" if missing == "BackupPolicy" else "main"
    del place.cluster.objects["backstay.dev", missing, "shop", name]

    backup = place.run()

    assert (backup.status.phase, succeeded(backup).reason) == ("Failed", reason)
    assert words in backup.status.message
    assert place.time - NOW < timedelta(seconds=30)


def test_a_bucket_that_vanishes_under_a_mover_fails_the_backup_and_leaves_nothing(place: Place) -> None:
    set_up(place.cluster)
    place.cluster.mover = bucket_is_gone

    backup = place.run()

    assert (backup.status.phase, succeeded(backup).reason) == ("Failed", "BucketNotFound")
    assert "claim data-db-0: bucket 'b' does not exist" in backup.status.message
    assert place.restore_points() == []
    assert place.cluster.temporaries() == []


def test_a_bucket_that_vanishes_before_the_commit_fails_the_backup(place: Place) -> None:
    set_up(place.cluster)
    while place.backup().status.cut_time is None:
        place.look()
    place.store.interrupt = lambda call: raise_(BucketNotFound("bucket 'b' does not exist"))

    backup = place.run()

    assert (backup.status.phase, succeeded(backup).reason) == ("Failed", "BucketNotFound")
    assert place.cluster.temporaries() == []


def test_an_unreachable_storage_is_waited_for_and_then_given_up(place: Place) -> None:
    set_up(place.cluster)
    place.store.interrupt = lambda call: raise_(Unreachable("no answer"))

    while succeeded(place.backup()) is None or succeeded(place.backup()).reason != "Unreachable":
        place.look()
    place.time += timedelta(minutes=20)
    place.look()
    waiting = place.backup()
    place.time += timedelta(minutes=20)
    backup = place.run()

    assert succeeded(waiting).status == "Unknown"
    assert (succeeded(waiting).reason, waiting.status.message) == ("Unreachable", "no answer")
    assert (backup.status.phase, succeeded(backup).reason) == ("Failed", "Unreachable")
    assert place.cluster.temporaries() == []


def test_a_storage_that_comes_back_in_time_completes_the_backup(place: Place) -> None:
    set_up(place.cluster)
    place.store.interrupt = lambda call: raise_(Unreachable("no answer"))
    for _ in range(8):
        place.look()
    assert succeeded(place.backup()).reason == "Unreachable"
    place.store.interrupt = lambda call: None

    assert place.run().status.phase == "Completed"


def test_a_quota_that_forbids_the_mover_is_told_while_it_lasts(place: Place) -> None:
    set_up(place.cluster)
    place.cluster.refuse = lambda body: (
        ForbiddenError("create Job", 403, "Forbidden", "exceeded quota") if body["kind"] == "Job" else None
    )
    for _ in range(10):
        place.look()

    assert "exceeded quota" in place.backup().status.message
    place.cluster.refuse = lambda body: None
    assert place.run().status.phase == "Completed"


def test_a_namespace_that_is_being_deleted_is_left_alone(place: Place) -> None:
    set_up(place.cluster)
    place.cluster.objects["", "Namespace", "", "shop"]["metadata"]["deletionTimestamp"] = "now"

    assert place.look() is None
    assert place.backup().status.phase == ""


def test_a_claim_that_appears_after_the_plan_is_told(place: Place) -> None:
    set_up(place.cluster)
    place.look()
    claim = place.cluster.objects["", "PersistentVolumeClaim", "shop", "data-db-0"]
    place.cluster.put(kinds.CLAIMS, {**claim, "metadata": {"name": "data-db-1", "namespace": "shop"}})

    backup = place.run()

    assert backup.status.phase == "CompletedWithWarnings"
    assert "claim data-db-1 appeared while the Backup was cut" in backup.status.warnings[0]


#: Only these change anything: to die at another call is to die after the last of these.
WRITES = ("create", "created", "status", "wrote", "delete", "put", "has")


def is_write(call: str) -> bool:
    return call.partition(" ")[0] in WRITES


def writes_of_a_whole_backup(empty: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> int:
    place = Place(empty)
    monkeypatch.setattr(work, "open_repository", place.open)
    set_up(place.cluster)
    count = 0

    def counting(call: str) -> None:
        nonlocal count
        count += is_write(call)

    place.interrupt(counting)
    assert place.run().status.phase == "Completed"
    return count


@pytest.mark.exhaustive
def test_an_operator_killed_at_any_call_ends_with_one_restore_point_and_no_leftovers(
    empty_repository: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    total = writes_of_a_whole_backup(empty_repository, monkeypatch)
    assert total > 30
    for fatal in range(total):
        place = Place(empty_repository)
        monkeypatch.setattr(work, "open_repository", place.open)
        set_up(place.cluster)
        left = fatal
        died_at = ""

        def killing(call: str) -> None:
            nonlocal left, died_at
            left -= is_write(call)
            if left == -1 and not died_at:
                died_at = call
                raise Killed(call)

        place.interrupt(killing)
        with pytest.raises(Killed):
            place.run()
        commit._fresh.clear()  # memory goes with the process
        place.repository = Repository.open(place.store, PASSWORD)
        place.interrupt(lambda call: None)

        backup = place.run()

        assert backup.status.phase == "Completed", f"killed at {died_at}: {backup.status.message}"
        assert [s.id for s in place.restore_points()] == [backup.status.snapshot], f"killed at {died_at}"
        assert place.cluster.temporaries() == [], f"killed at {died_at}"
        made = [name for name in place.cluster.made if name.startswith(("Job", "VolumeSnapshot"))]
        assert len(made) == len(set(made)), f"killed at {died_at}: {made}"


@pytest.mark.parametrize(
    "failing",
    [
        "list BackupStorage",
        "list Pod",
        "get Namespace",
        "created VolumeSnapshot",
        "create Job",
        "list Event",
        "delete Job",
        "status Backup",
    ],
)
def test_an_api_server_that_fails_for_a_while_changes_nothing_in_the_end(place: Place, failing: str) -> None:
    set_up(place.cluster)
    left = 3

    def fail(call: str) -> None:
        nonlocal left
        if call.startswith(failing) and left:
            left -= 1
            raise unavailable(call)

    place.cluster.interrupt = fail
    for _ in range(5):
        with suppress(UnavailableError):  # the work queue's part: it looks again
            place.run()
    backup = place.backup()

    assert backup.status.phase == "Completed", backup.status.message
    assert len(place.restore_points()) == 1
    assert place.cluster.temporaries() == []


def raise_(error: Exception) -> None:
    raise error
