"""The catalogue over a repository and an API server in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest

from backstay.api.meta import Meta
from backstay.api.restore_point import ApplicationIdentity, RestorePoint
from backstay.api.storage import S3, BackupStorage, BackupStorageSpec, PasswordReference
from backstay.kube.client import Client
from backstay.kube.resource import BACKUPS
from backstay.kube.runtime import Runtime, Settings
from backstay.repository import Repository, Snapshot
from backstay.storage.catalogue import Round, Seen, show
from tests.unit.capture.application import MemoryStore
from tests.unit.restore.fake_cluster import FakeCluster, Killed

TIME = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


class Bucket:
    """A repository in memory, a cluster that shows what is in it, and another one that writes into it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.writing = Repository.init(self.store, "password")
        self.reading = Repository.open(self.store, "password")
        self.cluster = FakeCluster()
        self.seen = Seen()

    def add(self, uid: str, name: str = "", **changes: Any) -> str:
        """Another cluster commits a restore point; its snapshot's id."""
        point = RestorePoint(
            backstay="0.1.0",
            backup=name or f"web-{uid}",
            backup_uid=uid,
            application=ApplicationIdentity("elsewhere", "shop", "web"),
            start_time=TIME,
            cut_time=TIME,
            completion_time=TIME,
            outcome="Completed",
        )
        description = msgspec.json.encode(msgspec.structs.replace(point, **changes))
        with self.writing.writer("other") as writer:
            tree = writer.save_files({"backstay/restore-point.json": description}, TIME)
            tags = (f"backstay.dev/backup={uid}", f"backstay.dev/restore-point={uid}")
            return writer.commit(Snapshot(TIME, tree, ("/resources",), hostname="elsewhere/shop", tags=tags))

    def look(self) -> Round:
        runtime = Runtime(cast(Client, self.cluster), Settings(), "here", now=lambda: TIME)
        spec = BackupStorageSpec(S3("b"), PasswordReference("p"))
        return show(runtime, BackupStorage(Meta("main", "shop"), spec), self.reading, self.seen)

    def phases(self) -> dict[str, str]:
        return {
            backup["metadata"]["name"]: backup.get("status", {}).get("phase", "")
            for backup in self.cluster.list(BACKUPS, "shop")
        }


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def test_points_that_come_while_the_repository_is_open_are_shown_too(bucket: Bucket) -> None:
    bucket.add("one")
    assert bucket.look() == Round(1, 1, {})
    bucket.add("two")
    assert bucket.look() == Round(2, 1, {})
    assert bucket.look() == Round(2, 0, {})

    assert bucket.phases() == {"web-one": "Completed", "web-two": "Completed"}


def test_a_broken_or_forged_point_hides_no_other(bucket: Bucket) -> None:
    bucket.store.put("snapshots/" + "0" * 64, b"garbage")
    forged = bucket.add("forged", backup_uid="another")
    bucket.add("good")

    result = bucket.look()

    assert (result.count, result.added) == (1, 1)
    assert set(result.broken) == {"0" * 64, forged}
    assert bucket.phases() == {"web-good": "Completed"}


@pytest.mark.parametrize(
    "step", ["create Backup web-one", "created Backup web-one", "status Backup", "wrote status Backup"]
)
def test_killed_at_any_step_the_next_look_completes_the_work_and_doubles_nothing(bucket: Bucket, step: str) -> None:
    bucket.add("one")

    def kill(call: str) -> None:
        if call == step:
            raise Killed

    bucket.cluster.interrupt = kill
    with pytest.raises(Killed):
        bucket.look()
    bucket.cluster.interrupt = lambda call: None
    bucket.seen = Seen()
    bucket.look()

    assert bucket.phases() == {"web-one": "Completed"}


def test_two_points_of_one_name_are_both_shown(bucket: Bucket) -> None:
    bucket.add("one", name="same")
    bucket.add("two", name="same")

    assert bucket.look().added == 2
    assert len(bucket.phases()) == 2


def test_a_backup_of_a_point_that_is_not_there_fails_and_says_so(bucket: Bucket) -> None:
    spec = {"restorePoint": {"storage": "main", "snapshot": "1" * 64}}
    bucket.cluster.put(BACKUPS, {"metadata": {"name": "by-hand", "namespace": "shop"}, "spec": spec})

    bucket.look()

    status = bucket.cluster.get(BACKUPS, "by-hand", "shop")["status"]
    assert status["conditions"][0]["reason"] == "RestorePointUnreadable"
    assert "holds no restore point with this snapshot" in status["message"]


def test_what_is_gone_from_the_repository_is_forgotten(bucket: Bucket) -> None:
    snapshot = bucket.add("one")
    bucket.look()
    bucket.store.delete(f"snapshots/{snapshot}")

    bucket.seen.refresh(bucket.reading)

    assert bucket.look() == Round(0, 0, {})
