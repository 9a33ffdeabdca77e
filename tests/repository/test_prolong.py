"""Prune under S3 Object Lock: what is needed stays protected, and what is not is freed when its time is over."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from backstay.repository import Repository, S3Credentials, S3Location, S3Store, Snapshot
from backstay.repository.errors import ObjectLockUnavailable
from backstay.repository.prune.forget import forget
from backstay.repository.prune.prolong import extend_retention
from backstay.repository.prune.prune import PruneOptions, prune
from backstay.repository.stores.local import LocalStore
from backstay.repository.stores.object_lock import Retention
from backstay.repository.stores.versions import histories
from tests.repository.conftest import PASSWORD
from tests.repository.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

BUCKET = "prolonged"
AT_ONCE = PruneOptions(delete_delay=timedelta(0), max_unused="0")
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def client(seaweed: Seaweed) -> Any:
    client = boto3.client(
        "s3",
        endpoint_url=seaweed.endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    return client


@pytest.fixture
def store(client: Any, seaweed: Seaweed, credentials: S3Credentials) -> S3Store:
    location = S3Location(BUCKET, f"{time.monotonic_ns()}", seaweed.endpoint, force_path_style=True)
    return S3Store(location, credentials, retention=Retention("Governance", 3))


def back_up(repository: Repository, seed: bytes) -> str:
    with repository.writer() as writer:
        tree = writer.save_files({"a": hashlib.shake_128(seed).digest(100_000)}, datetime.now(UTC))
        return writer.commit(Snapshot(time=datetime.now(UTC), tree=tree, paths=("/a",)))


def retained(client: Any, store: S3Store, name: str) -> datetime:
    found: datetime = client.get_object_retention(**store.address(name))["Retention"]["RetainUntilDate"]
    return found


def test_a_prune_keeps_what_is_needed_for_longer_and_tells_what_it_could_not_free(client: Any, store: S3Store) -> None:
    repository = Repository.init(store, PASSWORD)
    kept = back_up(repository, b"kept")
    forget(repository, [back_up(repository, b"gone")])
    now = datetime.now(UTC) + DAY

    report = prune(repository, AT_ONCE, now=now)

    assert report.removed_packs == 2
    assert report.retained_bytes > 100_000
    assert report.retained_until is not None
    assert report.retained_until < now + 3 * DAY
    names = [name for name, _ in store.list("")]
    assert f"snapshots/{kept}" in names
    for name in names:
        assert retained(client, store, name) >= (now + 3 * DAY).replace(microsecond=0), name


def test_what_was_deleted_is_freed_when_its_time_is_over(store: S3Store, credentials: S3Credentials) -> None:
    """Time does not pass for the server, so what is deleted was written without a retention."""
    plain = S3Store(store.location, credentials)
    repository = Repository.init(plain, PASSWORD)
    kept = back_up(repository, b"kept")
    forget(repository, [back_up(repository, b"gone")])

    report = prune(Repository.open(store, PASSWORD), AT_ONCE, now=datetime.now(UTC))

    hidden = [
        name for name, found in histories(store, "") if found[0].marker and not name.startswith(("locks/", "index/"))
    ]
    assert report.removed_packs == 2
    assert hidden == []
    assert [found.id for found in Repository.open(store, PASSWORD).snapshots()] == [kept]


def test_a_store_without_retention_has_nothing_to_prolong(tmp_path: Any) -> None:
    repository = Repository.init(LocalStore(tmp_path / "repository"), PASSWORD)

    with pytest.raises(ObjectLockUnavailable):
        extend_retention(repository, datetime.now(UTC))
