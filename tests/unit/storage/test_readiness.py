"""When a storage is tried again, and what it says meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from backstay.api.meta import Meta
from backstay.api.storage import S3, BackupStorage, BackupStorageSpec, BackupStorageStatus, PasswordReference
from backstay.repository.stores.s3 import Integrity
from backstay.storage.readiness import (
    LONGEST_PAUSE,
    Refusal,
    catalogued,
    failed,
    known_repository,
    next_probe,
    not_enrolled,
    succeeded,
)

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
NEW = BackupStorage(Meta("main", "shop", generation=1), BackupStorageSpec(S3("b"), PasswordReference("p")))
DENIED = Refusal("AccessDenied", "the keys are wrong")


def with_status(status: BackupStorageStatus, generation: int = 1) -> BackupStorage:
    meta = msgspec.structs.replace(NEW.metadata, generation=generation)
    return msgspec.structs.replace(NEW, metadata=meta, status=status)


def test_a_new_storage_is_tried_at_once() -> None:
    assert next_probe(NEW, NOW) == NOW


def test_a_changed_storage_is_tried_at_once() -> None:
    assert next_probe(with_status(succeeded(NEW, "id", NOW - timedelta(hours=1)), generation=2), NOW) == NOW


def test_a_ready_storage_is_tried_every_five_minutes() -> None:
    assert next_probe(with_status(succeeded(NEW, "id", NOW)), NOW) == NOW + LONGEST_PAUSE


def test_after_a_failure_the_pauses_double_up_to_five_minutes() -> None:
    storage, now, pauses = NEW, NOW, []
    for _ in range(8):
        storage = with_status(failed(storage, DENIED, now))
        due = next_probe(storage, now)
        pauses.append(int((due - now).total_seconds()))
        now = due

    assert pauses == [15, 15, 30, 60, 120, 240, 300, 300]


def test_the_message_says_when_it_is_tried_again() -> None:
    (ready,) = failed(NEW, DENIED, NOW).conditions

    assert ready.status == "False"
    assert ready.reason == "AccessDenied"
    assert "the keys are wrong. It is tried again in 15 s" in ready.message


def test_a_namespace_that_is_enrolled_later_is_noticed_at_once() -> None:
    storage = with_status(not_enrolled(NEW, Refusal("NotEnrolled", "not open"), NOW))

    assert next_probe(storage, NOW) == NOW


def test_a_repository_is_expected_where_it_was_found_and_not_in_a_new_place() -> None:
    status = succeeded(NEW, "id", NOW)

    assert known_repository(with_status(status)) == "id"
    assert known_repository(with_status(status, generation=2)) == ""


def test_a_failure_forgets_neither_the_repository_nor_its_restore_points() -> None:
    good = with_status(catalogued(with_status(succeeded(NEW, "id", NOW)), 3, {}, NOW))

    status = failed(good, DENIED, NOW)

    assert (status.repository_id, status.restore_points) == ("id", 3)


def test_broken_restore_points_are_named_and_do_not_make_the_storage_useless() -> None:
    broken = {f"{n:064}": "corrupt" for n in range(5)}

    (ready,) = catalogued(with_status(succeeded(NEW, "repository-id", NOW)), 2, broken, NOW).conditions

    assert ready.status == "True"
    assert "(5 broken)" in ready.message
    assert "and 2 more" in ready.message


@pytest.mark.parametrize(
    ("integrity", "told"),
    [
        (None, ""),
        (Integrity.CHECKSUM, ""),
        (Integrity.SIGNATURE, "only their signatures"),
        (Integrity.MD5, "with its MD5"),
        (Integrity.READ_BACK, "each is read back"),
    ],
)
def test_a_server_that_does_not_verify_checksums_is_told(integrity: Integrity | None, told: str) -> None:
    (ready,) = catalogued(with_status(succeeded(NEW, "repository-id", NOW)), 2, {}, NOW, integrity).conditions

    assert ready.status == "True"
    assert told in ready.message
    assert ("upload" in ready.message) == bool(told)
