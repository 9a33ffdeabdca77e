"""A mover's order is read strictly, and its result always fits into a termination message."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from backstay.mover import order, report, volumes
from backstay.repository import Snapshot

PLACE = {"bucket": "b", "prefix": "p", "endpoint": "http://s3", "region": "", "forcePathStyle": True}
VOLUME = order.SourceVolume("data", "/volumes/0", "uid-1")
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_a_backup_order_is_read() -> None:
    found = order.parse(
        json.dumps(
            {
                "action": "backup", "repository": PLACE, "host": "c/n", "tags": ["a=b"],
                "volumes": [{"claim": "data", "path": "/volumes/0", "claimUid": "uid-1"}],
            }
        )
    )  # fmt: skip

    assert isinstance(found, order.BackupOrder)
    assert found.repository.force_path_style is True
    assert found.volumes == (VOLUME,)


def test_a_restore_order_is_read() -> None:
    volume = {"claim": "data", "path": "/volumes/0", "tree": "ab", "snapshot": "cd"}
    found = order.parse(
        json.dumps({"action": "restore", "repository": PLACE, "host": "c/n", "tags": [], "volumes": [volume]})
    )

    assert isinstance(found, order.RestoreOrder)
    assert found.volumes[0].tree == "ab"


@pytest.mark.parametrize(
    "text", ["", "[]", '{"action":"backup"}', '{"action":"restore","repository":{"bucket":"b"},"volumes":[],"new":1}']
)
def test_an_order_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(order.OrderError, match="one version"):
        order.parse(text)


def volume_result(number: int, warnings: int) -> dict[str, object]:
    return {
        "claim": f"data-{number}", "snapshot": "a" * 64, "tree": "b" * 64, "files": 10**9, "bytes": 10**15,
        "addedBytes": 10**15, "warningCount": warnings, "warnings": ["/ü" * 500] * warnings, "consistencyLost": False,
    }  # fmt: skip


@pytest.mark.parametrize(("count", "warnings"), [(1, 0), (1, 5000), (3, 100), (12, 100), (18, 1), (500, 1)])
def test_a_result_fits_into_a_termination_message(count: int, warnings: int) -> None:
    text = report.encode_result({"ok": True, "volumes": [volume_result(n, warnings) for n in range(count)]})

    assert len(text.encode()) <= report.RESULT_LIMIT
    result = json.loads(text)
    if result["ok"]:
        assert [volume["warningCount"] for volume in result["volumes"]] == [warnings] * count
        assert all(volume["tree"] == "b" * 64 for volume in result["volumes"])
    else:
        assert result["reason"] == "ResultTooLarge"


def test_a_long_message_fits_too() -> None:
    text = report.encode_result({"ok": False, "reason": "X", "message": "ü" * 10_000, "permanent": True})

    assert len(text.encode()) <= report.RESULT_LIMIT


def snapshot(**fields: object) -> Snapshot:
    base: dict[str, object] = {
        "time": NOW, "tree": "ab" * 32, "paths": ("/data",), "hostname": "c/n", "id": "1" * 64,
        "tags": ("backstay.dev/backup=1", "backstay.dev/claim=uid-1"),
    }  # fmt: skip
    return Snapshot(**{**base, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "adopted"),
    [
        (snapshot(), True),
        (snapshot(paths=("/other",)), False),
        (snapshot(tags=("backstay.dev/backup=2", "backstay.dev/claim=uid-1")), False),
        (snapshot(tags=("backstay.dev/backup=1", "backstay.dev/claim=uid-2")), False),
        (snapshot(tags=("more", "backstay.dev/backup=1", "backstay.dev/claim=uid-1")), True),
    ],
)
def test_only_a_snapshot_of_this_backup_and_claim_is_adopted(known: Snapshot, adopted: bool) -> None:
    found = volumes.find_adopted([known], ["backstay.dev/backup=1", "x"], VOLUME)

    assert (found is known) is adopted


def test_without_a_backups_tag_nothing_is_adopted() -> None:
    assert volumes.find_adopted([snapshot(tags=("backstay.dev/claim=uid-1",))], ["x"], VOLUME) is None


def test_the_newest_snapshot_of_the_claim_is_the_parent() -> None:
    old, new = snapshot(), snapshot(time=NOW + timedelta(hours=1))
    other = snapshot(time=NOW + timedelta(hours=2), tags=("backstay.dev/claim=uid-2",))

    assert volumes.find_parent([new, old, other], VOLUME) is new
    assert volumes.find_parent([other], VOLUME) is None
