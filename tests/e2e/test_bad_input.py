"""Each mistake that people make is told where they look, in words that say what to do, and soon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.images import BUSYBOX_REFERENCE
from tests.e2e.conftest import remove_bucket
from tests.e2e.place import (
    Object,
    Place,
    backup,
    condition,
    message,
    no_temporaries,
    ours,
    phase,
    policy,
    restore,
    secret,
    storage_with_secrets,
)

Places = Callable[..., Place]


@pytest.fixture(scope="module")
def place(operator: None, s3: Any) -> Iterator[Place]:
    """A namespace with a good storage, ``main``, and some bad ones."""
    made = Place.make("bad")
    bucket = f"test-{made.name}"
    s3.create_bucket(Bucket=bucket)
    good = storage_with_secrets(bucket)
    made.apply(*good)
    made.wait("backupstorage", "main", lambda s: condition(s, "Ready").get("status") == "True")
    made.apply(
        secret("wrong-password", password="nonsense"),
        secret("wrong-keys", AWS_ACCESS_KEY_ID="nobody", AWS_SECRET_ACCESS_KEY="nothing"),
        variant(good[2], "no-password", passwordSecretRef={"name": "absent"}),
        variant(good[2], "wrong-password", passwordSecretRef={"name": "wrong-password"}),
        variant(good[2], "no-bucket", bucket="no-such-bucket"),
        variant(good[2], "wrong-keys", credentialsSecretRef={"name": "wrong-keys"}),
        variant(good[2], "unreachable", endpoint="http://10.77.0.1:1"),
    )
    yield made
    made.destroy()
    remove_bucket(s3, bucket)


def variant(storage: Object, name: str, **change: Any) -> Object:
    """A storage that differs in one thing."""
    password = change.pop("passwordSecretRef", storage["spec"]["passwordSecretRef"])
    spec = {"s3": {**storage["spec"]["s3"], **change}, "passwordSecretRef": password}
    return ours("BackupStorage", name, **spec)


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("no-password", "SecretNotFound", "/absent does not exist; create it with key 'password'"),
        ("wrong-password", "WrongPassword", "wrong-password"),
        ("no-bucket", "BucketNotFound", "there is no such bucket"),
        ("wrong-keys", "AccessDenied", "/wrong-keys"),
        ("unreachable", "Unreachable", "spec.s3.endpoint"),
    ],
)
def test_a_storage_that_cannot_be_used_says_what_to_correct(place: Place, name: str, reason: str, words: str) -> None:
    found = place.wait(
        "backupstorage", name, lambda s: condition(s, "Ready").get("status") == "False", what="refused", seconds=30
    )
    assert condition(found, "Ready")["reason"] == reason, condition(found, "Ready")
    assert words in condition(found, "Ready")["message"]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (policy("p", schedule={"cron": "every day"}), "cron must have five fields"),
        (policy("p", schedule={"cron": "0 2 * * *", "timeZone": "Berlin Time"}), "IANA name of a time zone"),
        (policy("p", scedule={"cron": "0 2 * * *"}), 'unknown field "spec.scedule"'),
        (restore("r", "b", approve="Yes"), "approve must be empty"),
    ],
)
def test_a_mistake_in_form_is_refused_at_once(place: Place, document: Object, words: str) -> None:
    told = place.kubectl("apply", "--filename=-", document=document, check=False)
    assert words in told


@pytest.mark.parametrize(
    ("name", "spec", "words"),
    [
        ("no-storage", {"storage": {"name": "absent"}}, "BackupStorage 'absent' does not exist"),
        ("bad-storage", {"storage": {"name": "no-bucket"}}, "BucketNotFound"),
        ("bad-cron", {"schedule": {"cron": "99 2 * * *"}}, "99"),
        ("two-mistakes", {"storage": {"name": "absent"}, "schedule": {"cron": "99 2 * * *"}}, "99"),
        ("bad-zone", {"schedule": {"cron": "0 2 * * *", "timeZone": "Europe/Atlantis"}}, "Europe/Atlantis"),
    ],
)
def test_a_policy_that_cannot_run_says_why(place: Place, name: str, spec: Object, words: str) -> None:
    place.apply(policy(name, **spec))
    found = place.wait(
        "backuppolicy", name, lambda p: condition(p, "Ready").get("status") == "False", what="refused", seconds=30
    )
    assert words in condition(found, "Ready")["message"]


def test_a_backup_of_a_policy_without_storage_fails(place: Place) -> None:
    place.apply(policy("nowhere", storage={"name": "absent"}), backup("nowhere", "nowhere"), backup("orphan", "absent"))
    assert "BackupStorage 'absent', which does not exist" in place.failed("backup", "nowhere", seconds=30)
    assert "absent" in place.failed("backup", "orphan", seconds=30)


def test_a_claim_without_a_volume_is_skipped_and_told(place: Place) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "unbound", "labels": {"app": "unbound"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "absent",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    place.apply(claim, policy("unbound", selector={"matchLabels": {"app": "unbound"}}), backup("unbound", "unbound"))
    found = place.ended("backup", "unbound", seconds=30)
    assert phase(found) == "CompletedWithWarnings", message(found)
    assert "not bound" in str(found["status"])


@pytest.mark.parametrize("approve", ["", "Create"])
def test_a_restore_of_a_missing_backup_says_where_to_look(place: Place, approve: str) -> None:
    name = f"missing-{approve.lower() or 'plan'}"
    place.apply(restore(name, "absent", approve))
    told = place.failed("restore", name, seconds=30)
    assert f"Backup absent does not exist in namespace {place.name}" in told
    assert "get backups" in told


def test_a_restore_of_a_failed_backup_says_so(place: Place) -> None:
    place.apply(backup("broken", "absent"))
    place.failed("backup", "broken", seconds=30)
    place.apply(restore("broken", "broken"))
    assert "has no restore point" in place.failed("restore", "broken", seconds=30)


def test_a_restore_in_a_namespace_that_is_not_enrolled_says_how_to_enrol_it(places: Places) -> None:
    place = places("closed")
    place.kubectl("label", "namespace", place.name, "backstay.dev/enrolled-")
    place.apply(restore("closed", "any"))
    found = place.wait("restore", "closed", message, seconds=30)
    assert f"kubectl label namespace {place.name} backstay.dev/enrolled=true" in message(found)


def test_a_volume_that_is_too_small_fails_the_restore_and_starts_nothing(places: Places, bucket: str) -> None:
    place = places("full")
    place.apply(*storage_with_secrets(bucket), *large_volume())
    place.wait("pod", "writer", lambda p: p["status"].get("phase") == "Running")
    place.wait("pod", "writer", lambda _: "written" in place.run("writer", "ls /data"), seconds=30)
    place.apply(policy(), backup("large"))
    place.ended("backup", "large")
    place.kubectl("delete", "pod/writer", "pvc/large", "--grace-period=0", "--force")
    place.wait("backup", "large", lambda _: not place.find("pvc", "large"), what="without its claim")

    place.apply(restore("full", "large", storageClasses={"directory": "standard"}))
    told = place.failed("restore", "full")
    assert "The volume is too small: the claim has 16Mi" in told
    assert "no workload was started" in told
    assert place.find("pod", "writer") is None
    assert place.find("pvc", "large") is not None
    no_temporaries(place)


def test_a_bucket_that_goes_in_mid_backup_fails_the_backup(places: Places, bucket: str, s3: Any) -> None:
    place = places("gone")
    place.apply(*storage_with_secrets(bucket), *large_volume())
    place.wait("pod", "writer", lambda p: p["status"].get("phase") == "Running")
    place.wait("pod", "writer", lambda _: "written" in place.run("writer", "ls /data"), seconds=30)
    place.apply(policy(), backup("gone"))
    place.wait("backup", "gone", lambda b: condition(b, "Succeeded").get("reason") in ("Cutting", "Moving"))
    remove_bucket(s3, bucket)
    told = place.failed("backup", "gone")
    assert bucket in told
    no_temporaries(place)


def large_volume() -> list[Object]:
    """A pod with 40 MiB in a claim of 16 MiB, which only a class without real sizes allows."""
    labels = {"app": "shop"}
    script = "dd if=/dev/urandom of=/data/large bs=1M count=40 2>/dev/null; sync; touch /data/written; exec sleep 3600"
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "large", "labels": labels},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "directory",
                "resources": {"requests": {"storage": "16Mi"}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "writer", "labels": labels},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "main",
                        "image": BUSYBOX_REFERENCE,
                        "command": ["sh", "-c", script],
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }
                ],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "large"}}],
            },
        },
    ]
