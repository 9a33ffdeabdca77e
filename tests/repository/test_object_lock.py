"""Object Lock, against a server that implements it: kept from everybody, given back in time, and the way back."""

from __future__ import annotations

import hashlib
import itertools
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from backstay.repository import ObjectNotFound, Repository, S3Credentials, S3Location, S3Store, Snapshot, StoreRefused
from backstay.repository.errors import ObjectLockUnavailable
from backstay.repository.stores import object_lock, versions
from backstay.repository.stores.as_of import AsOfStore
from backstay.repository.stores.object_lock import Deleted, Retention
from backstay.repository.stores.versions import history
from tests.repository.conftest import PASSWORD
from tests.repository.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

BUCKET = "locked"
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def client(seaweed: Seaweed) -> Any:
    """Somebody with all the rights that our keys have."""
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
def place(client: Any, seaweed: Seaweed) -> S3Location:
    return S3Location(BUCKET, f"test/{next(_numbers)}", seaweed.endpoint, force_path_style=True)


@pytest.fixture
def store(place: S3Location, credentials: S3Credentials) -> S3Store:
    return S3Store(place, credentials, retention=Retention("Governance", 3))


@pytest.fixture
def unlocked(place: S3Location, credentials: S3Credentials) -> S3Store:
    """The same place, without a retention for what is written."""
    return S3Store(place, credentials)


def held(client: Any, store: S3Store, name: str) -> tuple[str, datetime]:
    found = client.get_object_retention(**store.address(name))["Retention"]
    return found["Mode"], found["RetainUntilDate"]


def attack(store: S3Store) -> None:
    """Delete everything that is to be seen, as somebody with our keys can."""
    for name, _ in list(store.list("")):
        store.delete(name)
    assert list(store.list("")) == []


def next_second() -> datetime:
    """A time between what was written and what will be: servers keep whole seconds."""
    now = datetime.now(UTC)
    time.sleep(1.05 - now.microsecond / 1e6)
    return now


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["Governance", "Compliance"])
def test_what_is_written_is_kept_from_everybody(
    client: Any, place: S3Location, credentials: S3Credentials, mode: Any
) -> None:
    store = S3Store(place, credentials, retention=Retention(mode, 3), now=lambda: NOW)

    store.put("data/00/pack", b"content")

    assert held(client, store, "data/00/pack") == (mode.upper(), NOW.replace(microsecond=0) + 3 * DAY)
    (version,) = history(store, "data/00/pack")
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(**store.address("data/00/pack"), VersionId=version.id)


def test_locks_and_probes_are_not_kept(client: Any, store: S3Store) -> None:
    store.put("locks/one", b"content")
    store.probe()

    for version in history(store, "locks/one"):
        client.delete_object(**store.address("locks/one"), VersionId=version.id)

    assert history(store, "locks/one") == []
    assert list(store.list("")) == []


def test_every_object_of_a_repository_is_kept_but_its_locks(client: Any, store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    repository = Repository.init(store, PASSWORD)

    with repository.writer() as writer:
        archive = writer.backup(str(tmp_path), name="data")
        writer.commit(Snapshot(time=NOW, tree=archive.tree, paths=("/data",)))

    names = [name for name, _ in store.list("")]
    assert {name.split("/")[0] for name in names} == {"config", "keys", "data", "index", "snapshots"}
    assert all(held(client, store, name)[0] == "GOVERNANCE" for name in names)


@pytest.mark.parametrize(("mode", "days"), [("governance", 3), ("Governance", 0), ("Compliance", -1)])
def test_a_retention_that_makes_no_sense_is_refused(mode: Any, days: int) -> None:
    with pytest.raises(ValueError, match="etention"):
        Retention(mode, days)


# --- buckets that cannot ----------------------------------------------------------------------------------------------


def test_a_bucket_without_object_lock_is_refused(location: S3Location, credentials: S3Credentials) -> None:
    store = S3Store(location, credentials, retention=Retention("Governance", 3))

    with pytest.raises(ObjectLockUnavailable, match="made without it"):
        store.probe()


def test_a_bucket_with_a_default_retention_is_refused(
    client: Any, seaweed: Seaweed, credentials: S3Credentials
) -> None:
    client.create_bucket(Bucket="default", ObjectLockEnabledForBucket=True)
    client.put_object_lock_configuration(
        Bucket="default",
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}},
        },
    )
    store = S3Store(S3Location("default", "", seaweed.endpoint, force_path_style=True), credentials)

    with pytest.raises(ObjectLockUnavailable, match="locks too"):
        object_lock.require(store)


def test_a_bucket_that_can_is_accepted(store: S3Store) -> None:
    object_lock.require(store)


# --- keeping longer ---------------------------------------------------------------------------------------------------


def test_a_retention_is_extended_and_never_shortened(client: Any, store: S3Store) -> None:
    names = [f"data/00/{number}" for number in range(20)]
    for name in names:
        store.put(name, b"content")

    assert store.retain(names, NOW + 10 * DAY) == 20
    assert store.retain(names, NOW + 10 * DAY) == 0
    assert store.retain(names, NOW + 5 * DAY) == 0

    assert {held(client, store, name)[1] for name in names} == {NOW.replace(microsecond=0) + 10 * DAY}


def test_what_had_no_retention_gets_one(client: Any, store: S3Store, unlocked: S3Store) -> None:
    unlocked.put("config", b"content")

    assert store.retain(["config"], NOW + 2 * DAY) == 1

    assert held(client, store, "config") == ("GOVERNANCE", NOW.replace(microsecond=0) + 2 * DAY)


def test_what_is_gone_cannot_be_kept_and_that_is_told(store: S3Store) -> None:
    store.put("data/00/hidden", b"content")
    store.delete("data/00/hidden")

    with pytest.raises(ObjectNotFound):
        store.retain(["data/00/hidden"], NOW + 9 * DAY)
    with pytest.raises(ObjectNotFound):
        store.retain(["data/00/never"], NOW + 9 * DAY)


# --- giving back ------------------------------------------------------------------------------------------------------


def test_what_must_stay_is_hidden_counted_and_removed_in_time(client: Any, store: S3Store) -> None:
    store.put("data/00/pack", b"0123456789")
    store.put("data/00/pack", b"01234")
    until = held(client, store, "data/00/pack")[1]

    deleted = store.delete_versions(["data/00/pack"], NOW)

    assert (deleted.bytes, deleted.retained_bytes, deleted.retained_versions) == (0, 15, 2)
    assert deleted.until == until
    assert list(store.list("data/")) == []
    assert len(history(store, "data/00/pack")) == 3
    assert store.sweep(NOW).retained_bytes == 15


def test_what_nobody_keeps_goes_with_all_its_versions(store: S3Store, unlocked: S3Store) -> None:
    for content in (b"0123456789", b"01234"):
        unlocked.put("data/00/pack", content)
    store.delete("data/00/pack")

    deleted = store.delete_versions(["data/00/pack", "data/00/never"], NOW)

    assert deleted == Deleted(versions=2, bytes=15)
    assert history(store, "data/00/pack") == []


def test_a_sweep_removes_what_is_hidden_and_leaves_what_is_seen(store: S3Store, unlocked: S3Store) -> None:
    unlocked.put("data/00/seen", b"content")
    unlocked.put("data/00/overwritten", b"older")
    unlocked.put("data/00/overwritten", b"new")
    unlocked.put("data/00/hidden", b"0123456789")
    unlocked.delete("data/00/hidden")
    unlocked.delete("data/00/hidden")
    store.put("data/00/kept", b"01")
    store.delete("data/00/kept")

    deleted = store.sweep(NOW)

    assert (deleted.versions, deleted.bytes, deleted.retained_bytes) == (2, 15, 2)
    assert dict(store.list("")) == {"data/00/seen": 7, "data/00/overwritten": 3}
    assert store.get("data/00/overwritten") == b"new"
    assert history(store, "data/00/hidden") == []
    assert [version.marker for version in history(store, "data/00/kept")] == [True, False]


def test_a_retention_that_is_over_lets_go(client: Any, store: S3Store, unlocked: S3Store) -> None:
    unlocked.put("data/00/pack", b"0123456789")
    over = datetime.now(UTC) + timedelta(seconds=3)
    client.put_object_retention(
        **store.address("data/00/pack"), Retention={"Mode": "COMPLIANCE", "RetainUntilDate": over}
    )
    assert store.delete_versions(["data/00/pack"], datetime.now(UTC)).retained_bytes == 10
    time.sleep(3.5)

    assert store.sweep(datetime.now(UTC)) == Deleted(versions=1, bytes=10)

    assert history(store, "data/00/pack") == []


def test_the_server_has_the_last_word_on_what_is_over(store: S3Store) -> None:
    store.put("data/00/pack", b"0123456789")

    assert store.delete_versions(["data/00/pack"], NOW + 100 * DAY).retained_bytes == 10


# --- the way back -----------------------------------------------------------------------------------------------------


def test_after_everything_was_deleted_a_repository_is_read_as_of_before(store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content" * 100_000)
    repository = Repository.init(store, PASSWORD)
    with repository.writer() as writer:
        archive = writer.backup(str(tmp_path), name="data")
        committed = writer.commit(Snapshot(time=NOW, tree=archive.tree, paths=("/data",)))
    before = next_second()
    attack(store)
    store.put("config", b"worthless")

    past = Repository.open(AsOfStore(store, before), PASSWORD)

    (snapshot,) = past.snapshots()
    assert snapshot.id == committed
    content = b"".join(past.read_file(past.find(snapshot.tree, "data/file")))
    assert content == b"content" * 100_000


def test_what_was_deleted_before_the_time_is_not_there(store: S3Store) -> None:
    store.put("snapshots/forgotten", b"older")
    store.delete("snapshots/forgotten")
    store.put("snapshots/kept", b"content")
    then = next_second()
    store.put("snapshots/later", b"newer")
    store.put("snapshots/kept", b"overwritten")

    past = AsOfStore(store, then)

    assert dict(past.list("snapshots/")) == {"snapshots/kept": 7}
    assert past.get("snapshots/kept", 3) == b"tent"
    assert past.exists("snapshots/kept")
    assert not past.exists("snapshots/forgotten")
    assert not past.exists("snapshots/later")
    with pytest.raises(ObjectNotFound, match="as of"):
        past.get("snapshots/later")


def test_an_extended_retention_does_not_hide_what_was_there_before(
    client: Any, place: S3Location, store: S3Store, credentials: S3Credentials, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with Repository.init(store, PASSWORD).writer() as writer:
        archive = writer.backup(str(tmp_path), name="data")
        first = writer.commit(Snapshot(time=datetime.now(UTC), tree=archive.tree, paths=("/data",)))
    then = next_second()
    longer = S3Store(place, credentials, retention=Retention("Governance", 30))
    with Repository.open(longer, PASSWORD).writer() as writer:
        writer.commit(Snapshot(time=datetime.now(UTC), tree=archive.tree, paths=("/data",)))
    longer.retain([name for name, _ in store.list("") if not name.startswith("locks/")], NOW + 60 * DAY)

    past = Repository.open(AsOfStore(store, then), PASSWORD)

    (snapshot,) = past.snapshots()
    assert snapshot.id == first
    assert b"".join(past.read_file(past.find(snapshot.tree, "data/file"))) == b"content"


@pytest.mark.parametrize("damage", [b"", b"garbage", b"garbage that is longer than what was there before"])
def test_a_version_that_is_not_what_its_name_says_is_passed_over(store: S3Store, damage: bytes) -> None:
    content = b"what was stored at first"
    name = f"data/00/{hashlib.sha256(content).hexdigest()}"
    store.put(name, content)
    store.put(name, damage)
    past = AsOfStore(store, next_second())

    assert past.get(name, 5, 3) == content[5:8]
    assert past.get(name) == content
    assert [size > 0 for _, size in past.list("data/")] == [True]


def test_what_was_deleted_at_the_time_and_came_back_later_is_not_there(store: S3Store) -> None:
    name = f"data/00/{hashlib.sha256(b'content').hexdigest()}"
    store.put(name, b"content")
    next_second()
    store.delete(name)
    then = next_second()
    store.put(name, b"content")

    assert not AsOfStore(store, then).exists(name)


def test_the_past_cannot_be_changed(store: S3Store) -> None:
    past = AsOfStore(store, NOW)

    with pytest.raises(StoreRefused, match="only be read"):
        past.put("config", b"content")
    with pytest.raises(StoreRefused, match="only be read"):
        past.delete("config")


def test_a_name_that_begins_with_another_is_not_taken_for_it(store: S3Store) -> None:
    store.put("data/00/ab", b"short")
    store.put("data/00/abc", b"longer")
    past = AsOfStore(store, next_second())

    assert past.get("data/00/ab") == b"short"
    assert not past.exists("data/00/a")


def test_many_versions_are_listed_over_pages(unlocked: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PAGE", 7)
    for number in range(60):
        unlocked.put(f"data/00/{number % 20:02}", bytes(1 + number // 20))

    past = AsOfStore(unlocked, datetime.now(UTC) + DAY)

    assert dict(past.list("data/")) == {f"data/00/{number:02}": 3 for number in range(20)}
    assert unlocked.sweep(NOW).bytes == 20 * (1 + 2)


def test_what_a_backup_reuses_is_held_as_long_as_what_it_brings(
    client: Any, place: S3Location, store: S3Store, credentials: S3Credentials, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with Repository.init(store, PASSWORD).writer() as writer:
        writer.backup(str(tmp_path))
    longer = S3Store(place, credentials, retention=Retention("Governance", 30))

    with Repository.open(longer, PASSWORD).writer() as writer:
        archive = writer.backup(str(tmp_path))
        writer.commit(Snapshot(time=NOW, tree=archive.tree, paths=("/x",)))

    names = [name for name, _ in store.list("") if not name.startswith("locks/")]
    assert {name.partition("/")[0] for name in names} == {"config", "data", "index", "keys", "snapshots"}
    assert all(held(client, store, name)[1] > NOW + 29 * DAY for name in names)
