"""Which restore points are shown, under what name, and which are not believed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from backstay.api.backup import Backup, BackupSpec, BackupStatus, Capture, RestorePointReference
from backstay.api.meta import Condition, Meta
from backstay.api.restore_point import ApplicationIdentity, CapturedVolume, RestorePoint
from backstay.repository import Snapshot
from backstay.storage.restore_points import (
    Head,
    RestorePointError,
    build_backup,
    build_status,
    check,
    choose_name,
    decide,
    head_of,
    visible,
)

TIME = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
ID = "1f" * 32
HEAD = Head(ID, "ab" * 32, "cluster", "shop", "uid-1")
DONE = (Condition("Succeeded", "True", "Completed"),)


def snapshot(*tags: str, host: str = "cluster/shop") -> Snapshot:
    return Snapshot(TIME, "ab" * 32, ("/resources",), hostname=host, tags=tags, id=ID)


def point(**changes: Any) -> RestorePoint:
    whole = RestorePoint(
        backstay="0.1.0",
        backup="shop-7c1e-20261124t020000z",
        backup_uid="uid-1",
        application=ApplicationIdentity("cluster", "shop", "shop"),
        start_time=TIME,
        cut_time=TIME,
        completion_time=TIME,
        outcome="Completed",
    )
    return msgspec.structs.replace(whole, **changes)


def capture(name: str, uid: str, **status: Any) -> Backup:
    return Backup(Meta(name, "shop", uid=uid), BackupSpec(capture=Capture("shop")), BackupStatus(**status))


def found(name: str, snapshot: str, **status: Any) -> Backup:
    spec = BackupSpec(restore_point=RestorePointReference("main", snapshot))
    return Backup(Meta(name, "shop", uid=f"of-{name}"), spec, BackupStatus(**status))


@pytest.mark.parametrize(
    ("taken", "head"),
    [
        (snapshot("backstay.dev/backup=uid-1", "backstay.dev/restore-point=uid-1"), HEAD),
        (snapshot("backstay.dev/backup=uid-1"), None),
        (snapshot("backstay.dev/restore-point="), None),
        (snapshot("backstay.dev/restore-point=a", "backstay.dev/restore-point=b"), None),
        (snapshot("backstay.dev/restore-point=uid-1", host="laptop"), None),
        (snapshot(), None),
    ],
)
def test_only_a_committing_snapshot_is_a_restore_point(taken: Snapshot, head: Head | None) -> None:
    assert head_of(taken) == head


def test_a_storage_shows_its_own_namespaces_points_or_all() -> None:
    other = Head("2f" * 32, "t", "another-cluster", "bank", "uid-2")

    assert visible([HEAD, other], "shop", "Own") == [HEAD]
    assert visible([HEAD, other], "shop", "All") == [HEAD, other]


@pytest.mark.parametrize(
    ("backups", "is_new"),
    [
        ([], True),
        ([capture("a", "uid-9", snapshot="00" * 32)], True),
        ([capture("a", "uid-9", snapshot=ID)], False),
        ([capture("a", "uid-1")], False),
        ([found("a", ID)], False),
        ([found("a", "00" * 32)], True),
    ],
    ids=["nothing-known", "another-point", "made-here", "still-running-here", "shown-already", "another-shown"],
)
def test_a_point_gets_one_backup_object(backups: list[Backup], is_new: bool) -> None:
    assert decide([HEAD], backups, "main").new == ((HEAD,) if is_new else ())


def test_a_backup_object_without_status_is_completed() -> None:
    killed, done = found("a", ID), found("b", ID, conditions=DONE)
    other_storage = Backup(Meta("c", "shop"), BackupSpec(restore_point=RestorePointReference("spare", ID)))

    assert decide([HEAD], [killed, done, other_storage], "main").unfinished == ((killed, ID),)


@pytest.mark.parametrize(
    ("name", "taken", "chosen"),
    [
        ("shop-1", set(), "shop-1"),
        ("shop-1", {"shop-1"}, "shop-1-"),
        ("Not A Name/..", set(), "shop-"),
        ("", set(), "shop-"),
        ("a" * 254, set(), "a" * 200 + "-"),
    ],
)
def test_a_point_keeps_its_name_where_that_is_possible(name: str, taken: set[str], chosen: str) -> None:
    result = choose_name(point(backup=name), ID, taken)

    assert result == choose_name(point(backup=name), ID, taken)
    assert (
        result == chosen if not chosen.endswith("-") else result.startswith(chosen) and len(result) == len(chosen) + 8
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backup_uid": "uid-2"}, "its Backup UID is 'uid-2' inside but 'uid-1' on the snapshot"),
        ({"application": ApplicationIdentity("cluster", "bank", "shop")}, "its namespace is 'bank'"),
        ({"application": ApplicationIdentity("else", "shop", "shop")}, "its cluster is 'else'"),
        ({"application": ApplicationIdentity("cluster", "shop", "no name!")}, "is no name of an object"),
        ({"outcome": "Excellent"}, "its outcome 'Excellent'"),
        ({"cut_time": datetime(2026, 11, 24)}, "no time zone"),
    ],
)
def test_a_description_that_contradicts_its_snapshot_is_not_believed(changes: dict[str, Any], words: str) -> None:
    check(point(), HEAD)
    with pytest.raises(RestorePointError) as caught:
        check(point(**changes), HEAD)

    assert words in str(caught.value)


def test_the_backup_object_points_to_the_snapshot() -> None:
    body = build_backup("shop-1", "shop", "main", ID, "shop")

    assert body["spec"] == {"restorePoint": {"storage": "main", "snapshot": ID}}
    assert body["metadata"]["labels"] == {"backstay.dev/policy": "shop"}


def test_the_status_is_that_of_the_backup_which_made_the_point() -> None:
    volume = CapturedVolume(
        "data", "uid", "Snapshot", "CrashConsistent", snapshot="5" * 64, tree="6" * 64, files=3, bytes=9
    )

    status = build_status(
        point(outcome="CompletedWithWarnings", volumes=(volume, volume), warnings=tuple("w" * 900 for _ in range(90))),
        ID,
        "main",
        1,
    )

    (succeeded,) = status.conditions
    assert (succeeded.status, succeeded.reason) == ("True", "CompletedWithWarnings")
    assert (status.phase, status.snapshot, status.storage, status.application) == (
        "CompletedWithWarnings",
        ID,
        "main",
        "shop",
    )
    assert [v.claim for v in status.volumes] == ["data"]
    assert status.volumes[0].phase == "Done"
    assert len(status.warnings) == 20
    assert max(map(len, status.warnings)) == 300
