"""Each thing that can be wrong with a storage has its own error, and it comes quickly."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from backstay.repository import (
    AccessDenied,
    BucketNotFound,
    Repository,
    RepositoryError,
    RepositoryExists,
    RepositoryNotFound,
    S3Credentials,
    S3Location,
    S3Store,
    SnapshotNotFound,
    Unreachable,
    WrongPassword,
)
from tests.repository.conftest import PASSWORD
from tests.repository.seaweed import ACCESS_KEY, READER_KEY, READER_SECRET, SECRET_KEY


def test_a_probe_leaves_nothing_behind(store: S3Store) -> None:
    store.probe()

    assert list(store.list("")) == []


@pytest.mark.parametrize(
    ("change", "keys", "error", "limit"),
    [
        ({}, (ACCESS_KEY, "w7r0n9"), AccessDenied, 2),
        ({}, ("nobody", "w7r0n9"), AccessDenied, 2),
        ({}, (READER_KEY, READER_SECRET), AccessDenied, 2),
        ({"bucket": "no-such-bucket"}, (ACCESS_KEY, SECRET_KEY), BucketNotFound, 2),
        ({"endpoint": "http://127.0.0.1:9"}, (ACCESS_KEY, SECRET_KEY), Unreachable, 12),
        ({"endpoint": "http://no-such-host.invalid"}, (ACCESS_KEY, SECRET_KEY), Unreachable, 12),
    ],
)
def test_a_bad_storage_is_told_apart_quickly(
    location: S3Location, change: dict[str, str], keys: tuple[str, str], error: type[RepositoryError], limit: float
) -> None:
    started = time.monotonic()

    with pytest.raises(error) as caught:
        S3Store(replace(location, **change), S3Credentials(*keys)).probe()  # type: ignore[arg-type]

    assert time.monotonic() - started < limit
    assert caught.value.reason == error.__name__
    assert keys[1] not in str(caught.value)


def test_a_reader_may_probe_without_writing(location: S3Location) -> None:
    S3Store(location, S3Credentials(READER_KEY, READER_SECRET)).probe(write=False)


def test_content_that_was_damaged_on_the_way_is_refused(location: S3Location, credentials: S3Credentials) -> None:
    store = S3Store(location, credentials, patience=0.1)
    store.put("reached", b"")

    with pytest.raises(Unreachable, match="BadDigest"):
        store.put("damaged", b"content", sha256=bytes(32))

    assert not store.exists("damaged")


def test_a_wrong_password_is_told_from_a_missing_repository(store: S3Store, location: S3Location) -> None:
    with pytest.raises(RepositoryNotFound):
        Repository.open(store, PASSWORD)
    created = Repository.init(store, PASSWORD)

    with pytest.raises(WrongPassword):
        Repository.open(store, PASSWORD + "x")
    with pytest.raises(RepositoryExists):
        Repository.init(store, PASSWORD)
    assert Repository.open(store, PASSWORD).id == created.id


def test_an_unknown_snapshot_is_not_found(repository: Repository) -> None:
    with pytest.raises(SnapshotNotFound):
        repository.snapshot("ab" * 32)
    with pytest.raises(SnapshotNotFound):
        repository.snapshot("ab")
