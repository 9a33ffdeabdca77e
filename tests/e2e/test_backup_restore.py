"""The main job: an application is backed up, destroyed and brought back, and stock restic reads all of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import application
from tests.e2e.conftest import remove_bucket
from tests.e2e.place import (
    ENDED,
    PASSWORD,
    Place,
    backup,
    condition,
    message,
    no_temporaries,
    phase,
    policy,
    restore,
    storage_with_secrets,
)
from tests.repository.restic_binary import restic

Places = Callable[..., Place]


class Protected:
    """An application with one Backup, and what its volume held."""

    def __init__(self, place: Place, bucket: str) -> None:
        self.place = place
        self.bucket = bucket
        place.apply(*storage_with_secrets(bucket), *application.shop())
        place.wait("statefulset", "database", lambda s: s["status"].get("readyReplicas") == 1)
        place.wait("deployment", "web", lambda d: d["status"].get("readyReplicas") == 1)
        place.wait("pod", "database-0", lambda _: "seeded" in place.run("database-0", "ls /data"), seconds=20)
        place.apply(policy(), backup("first"))
        self.backup = place.completed("backup", "first")
        self.fingerprint = place.run("database-0", application.FINGERPRINT)

    def objects(self, s3: Any, prefix: str) -> set[str]:
        """Keys of everything below a prefix of the bucket, but locks, which come and go."""
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        keys = {found["Key"] for page in pages for found in page.get("Contents", ())}
        return {key for key in keys if "/locks/" not in key}


@pytest.fixture(scope="module")
def protected(lost: Place, s3: Any) -> Iterator[Protected]:
    place = Place.make("shop", labels=("pod-security.kubernetes.io/enforce=restricted",))
    try:
        yield Protected(place, f"test-{lost.name}")
    finally:
        place.destroy()


@pytest.fixture(scope="module")
def lost(operator: None, s3: Any) -> Iterator[Place]:
    """An application with a schedule, begun early, since the next full minute may be nearly one away."""
    place = Place.make("lost")
    bucket = f"test-{place.name}"
    s3.create_bucket(Bucket=bucket)
    try:
        place.apply(*storage_with_secrets(bucket, "lost"), *application.shop("directory"))
        place.apply(policy(schedule={"cron": "* * * * *"}))
        yield place
    finally:
        place.destroy()
        remove_bucket(s3, bucket)


def test_a_backup_tells_what_it_holds_and_leaves_nothing_behind(protected: Protected) -> None:
    status = protected.backup["status"]
    (volume,) = status["volumes"]
    assert (volume["claim"], volume["method"], volume["phase"]) == ("data-database-0", "Snapshot", "Done")
    assert volume["files"] >= 300
    assert volume["bytes"] > 10_000_000
    assert status["resources"]["count"] >= 10
    assert condition(protected.backup, "Succeeded")["status"] == "True"
    no_temporaries(protected.place)


def test_a_restore_without_approval_counts_and_changes_nothing(protected: Protected, places: Places) -> None:
    place = places()
    place.apply(*storage_with_secrets(protected.bucket, catalogue="All"))
    found = catalogued(place)
    place.apply(restore("look", found, approve=""))
    seen = place.wait("restore", "look", lambda r: phase(r) == "AwaitingApproval", seconds=30)
    assert "Would create" in message(seen)
    assert "fill 1 volumes" in message(seen)
    assert not place.names("statefulsets", "deployments", "persistentvolumeclaims", "services")

    place.kubectl("patch", "restore", "look", "--type=merge", "--patch", '{"spec":{"approve":"Create"}}')
    place.completed("restore", "look")
    assert place.run("database-0", application.FINGERPRINT) == protected.fingerprint
    assert "found data" in place.kubectl("logs", "database-0")
    no_temporaries(place)


def test_an_application_comes_back_after_its_namespace_was_destroyed(
    protected: Protected, lost: Place, s3: Any
) -> None:
    made = scheduled(lost)
    lost.kubectl("patch", "backuppolicy", "shop", "--type=merge", "--patch", '{"spec":{"suspend":true}}')
    lost.wait("backup", made, lambda _: not running_backups(lost), what="the only one that ran")
    fingerprint = lost.run("database-0", application.FINGERPRINT)
    web = lost.get("deployment", "web")["spec"]
    before = protected.objects(s3, "lost/")

    lost.destroy(wait=True)

    assert protected.objects(s3, "lost/") == before
    kubectl_create_again(lost)
    lost.apply(*storage_with_secrets(protected.bucket, "lost"))
    lost.wait("backup", made, lambda b: phase(b) in ("Completed", "CompletedWithWarnings"), seconds=30)
    lost.apply(restore("back", made))
    done = lost.completed("restore", "back")
    assert lost.run("database-0", application.FINGERPRINT) == fingerprint
    assert lost.get("deployment", "web")["spec"] == web
    assert done["status"]["resources"]["failed"] == 0
    assert done["status"]["volumes"][0]["phase"] == "Filled"
    service = lost.get("service", "web")
    assert service["spec"]["clusterIP"] != "None"
    assert lost.get("rolebinding", "shop")["subjects"][0].get("namespace", lost.name) == lost.name
    no_temporaries(lost)


def test_what_exists_is_kept_and_told(protected: Protected, places: Places) -> None:
    place = places()
    mine = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"greeting": "mine"}}
    place.apply(*storage_with_secrets(protected.bucket, catalogue="All"), mine)
    place.apply(restore("beside", catalogued(place), storageClasses={"standard": "plain"}))
    done = place.ended("restore", "beside")
    assert phase(done) == "CompletedWithWarnings", message(done)
    assert "ConfigMap settings" in done["status"]["kept"]
    assert place.get("configmap", "settings")["data"] == {"greeting": "mine"}
    assert place.get("pvc", "data-database-0")["spec"]["storageClassName"] == "plain"
    assert place.run("database-0", application.FINGERPRINT) == protected.fingerprint

    place.apply(restore("again", done["spec"]["source"]["backup"]))
    again = place.ended("restore", "again")
    assert phase(again) == "CompletedWithWarnings", message(again)
    assert "data were NOT restored" in " ".join(again["status"]["warnings"])
    assert again["status"]["resources"]["created"] == 0


def test_a_volume_without_snapshots_is_read_live(places: Places, bucket: str) -> None:
    place = places("live")
    place.apply(*storage_with_secrets(bucket), *application.shop("plain"))
    place.wait("statefulset", "database", lambda s: s["status"].get("readyReplicas") == 1)
    place.wait("pod", "database-0", lambda _: "seeded" in place.run("database-0", "ls /data"), seconds=20)
    place.apply(policy(), backup("live"))
    done = place.ended("backup", "live")
    (volume,) = done["status"]["volumes"]
    assert phase(done) in ("Completed", "CompletedWithWarnings"), message(done)
    assert (volume["method"], volume["phase"]) == ("Live", "Done")
    assert volume["files"] >= 300
    no_temporaries(place)


def test_stock_restic_reads_everything_with_nothing_but_the_password(protected: Protected, tmp_path: Path) -> None:
    snapshots = json.loads(run_restic(protected, "snapshots", "--json"))
    assert {tuple(snapshot["paths"]) for snapshot in snapshots} == {("/resources",), ("/data-database-0",)}
    point = json.loads(run_restic(protected, "dump", "--path", "/resources", "latest", "backstay/restore-point.json"))
    assert point["backup"] == "first"
    assert {"StatefulSet", "Deployment", "ConfigMap", "Secret"} <= {item["kind"] for item in point["objects"]}
    assert "no errors were found" in run_restic(protected, "check", "--read-data")
    run_restic(protected, "restore", "--path", "/data-database-0", "latest", "--target", str(tmp_path))
    assert len(list(tmp_path.rglob("tree/*/*"))) == 300


def catalogued(place: Place) -> str:
    """Name of the Backup that the catalogue shows in a namespace."""
    place.wait("backupstorage", "main", lambda s: condition(s, "Ready").get("status") == "True")
    place.wait("backupstorage", "main", lambda _: place.names("backups"), seconds=30, what="showing a Backup")
    return place.names("backups")[0].partition("/")[2]


def scheduled(place: Place) -> str:
    """Name of the first Backup that the schedule has made and that read the data, once it has completed."""

    def made() -> list[str]:
        items = json.loads(place.kubectl("get", "backups", "--output=json"))["items"]
        return [b["metadata"]["name"] for b in items if phase(b) == "Completed" and b["status"]["volumes"]]

    place.wait("backuppolicy", "shop", lambda _: made(), seconds=100, what="followed by a completed Backup")
    return made()[-1]


def running_backups(place: Place) -> bool:
    """Whether some Backup of a namespace has not ended."""
    items = json.loads(place.kubectl("get", "backups", "--output=json"))["items"]
    return any(phase(item) not in ENDED for item in items)


def kubectl_create_again(place: Place) -> None:
    """The namespace anew, as somebody makes it after a disaster."""
    document = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": place.name, "labels": {"backstay.dev/enrolled": "true"}},
    }
    place.kubectl("create", "--filename=-", document=document)


def run_restic(protected: Protected, *words: str) -> str:
    """What stock restic prints about the repository of the test's bucket."""
    repository = f"s3:{os.environ['BACKSTAY_S3_ENDPOINT']}/{protected.bucket}/shop"
    environment = {**os.environ, "RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": repository}
    command = [str(restic()), "--no-cache", "--option=s3.bucket-lookup=path", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"restic {' '.join(words)}: {done.stderr}"
    return done.stdout
