"""An operator that is killed at any moment is followed by one that ends the work, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import application
from tests.e2e.conftest import remove_bucket
from tests.e2e.place import (
    ENDED,
    Object,
    Place,
    backup,
    condition,
    no_temporaries,
    phase,
    policy,
    restore,
    storage_with_secrets,
)
from tests.e2e.tenants import OPERATOR_NAMESPACE, kubectl, read

Places = Callable[..., Place]

#: A new operator waits for the killed one's Lease to run out before it begins.
PATIENCE = 120


@pytest.fixture(scope="module")
def bucket(s3: Any) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:10]}"
    s3.create_bucket(Bucket=name)
    yield name
    remove_bucket(s3, name)


@pytest.fixture(scope="module")
def protected(operator: None, bucket: str) -> Iterator[Place]:
    """The application, and its first Backup, which the Restores take."""
    place = Place.make("killed")
    place.apply(*storage_with_secrets(bucket), *application.shop())
    place.wait("pod", "database-0", has_data, seconds=60)
    place.apply(policy(), backup("first"))
    place.completed("backup", "first")
    yield place
    place.destroy()


def has_data(pod: Object) -> bool:
    """Whether the database has made its data."""
    place = Place(pod["metadata"]["namespace"])
    running = pod["status"].get("phase") == "Running"
    return running and "seeded" in place.kubectl("exec", "database-0", "--", "ls", "/data", check=False)


@pytest.mark.parametrize(
    ("kind", "step"), [("backup", "Cutting"), ("backup", "Committing"), ("restore", "Filling"), ("restore", "Starting")]
)
def test_a_backup_and_a_restore_survive_their_operator(
    protected: Place, places: Places, bucket: str, kind: str, step: str
) -> None:
    place, name = places("killed"), f"killed-{step.lower()}"
    place.apply(*storage_with_secrets(bucket, catalogue="All"))
    place.wait("backupstorage", "main", lambda _: "backup.backstay.dev/first" in place.names("backups"), seconds=30)
    protected.apply(backup(name))
    place.apply(restore(name, "first"))

    kill_at(protected if kind == "backup" else place, kind, name, step)

    protected.completed("backup", name, seconds=PATIENCE)
    no_temporaries(protected)
    done = place.completed("restore", name, seconds=PATIENCE)
    assert done["status"]["resources"]["created"] == done["status"]["resources"]["planned"]
    expected = protected.run("database-0", application.FINGERPRINT)
    assert place.run("database-0", application.FINGERPRINT) == expected
    assert "found data" in place.kubectl("logs", "database-0")
    no_temporaries(place)


def kill_at(place: Place, kind: str, name: str, step: str) -> None:
    """Kill the operator when the object is at this step of its condition Succeeded, or as soon as that is over."""
    deadline = time.monotonic() + 60
    seen: list[str] = []
    while time.monotonic() < deadline:
        found = place.find(kind, name) or {}
        reason = condition(found, "Succeeded").get("reason", "")
        if reason and reason not in seen:
            seen.append(reason)
        if reason == step or phase(found) in ENDED:
            kill_operator()
            return
    raise AssertionError(f"{kind} {name} did not come to {step} within a minute; seen: {seen}")


def kill_operator() -> None:
    """End the operator without a word, as when its node dies, and have its pod replaced.

    Deleting the pod would let it stop in order. The process is on this machine, since the cluster's node is.
    """
    pods = read("pods", "--namespace", OPERATOR_NAMESPACE)["items"]
    for pod in pods:
        for process in processes_of(pod["metadata"]["uid"]):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    words = ("delete", "pod", *(pod["metadata"]["name"] for pod in pods), "--grace-period=0", "--force", "--wait=false")
    kubectl("--namespace", OPERATOR_NAMESPACE, *words)


def processes_of(pod_uid: str) -> Iterator[int]:
    """Ids of the operator's processes in this pod."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            inside = pod_uid in (folder / "cgroup").read_text().replace("_", "-")
            if inside and b"backstay" in (folder / "cmdline").read_bytes():
                yield int(folder.name)
