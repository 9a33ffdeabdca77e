"""Telling a dead watch from a quiet cluster."""

from __future__ import annotations

from typing import Any

from backstay.kube.freshness import Freshness


def obj(version: int, name: str = "a") -> dict[str, Any]:
    return {
        "kind": "Backup",
        "metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": str(version)},
    }


def test_an_object_that_no_watch_delivers_is_overdue_after_half_a_minute() -> None:
    freshness = Freshness()
    freshness.listed("Backup", [obj(5)], now=0.0)

    assert freshness.overdue(30.0) == []
    assert freshness.overdue(30.1) == ["Backup shop/a"]


def test_what_was_delivered_in_the_same_or_a_later_version_is_fresh() -> None:
    freshness = Freshness()
    freshness.delivered(obj(5))
    freshness.listed("Backup", [obj(5), obj(7, "b")], now=0.0)
    freshness.delivered(obj(8, "b"))

    assert freshness.overdue(100.0) == []


def test_a_version_that_comes_late_settles_the_debt() -> None:
    freshness = Freshness()
    freshness.delivered(obj(5))
    freshness.listed("Backup", [obj(6)], now=0.0)
    freshness.listed("Backup", [obj(7)], now=20.0)
    assert freshness.overdue(31.0) == ["Backup shop/a"]

    freshness.delivered(obj(7))

    assert freshness.overdue(31.0) == []


def test_an_object_deleted_while_it_was_listed_is_not_missed() -> None:
    freshness = Freshness()
    freshness.delivered(obj(5))
    freshness.delivered(obj(9), deleted=True)
    freshness.listed("Backup", [obj(5)], now=0.0)

    assert freshness.overdue(100.0) == []


def test_an_object_that_is_gone_at_the_next_list_is_owed_no_more() -> None:
    freshness = Freshness()
    freshness.listed("Backup", [obj(5)], now=0.0)
    freshness.listed("Backup", [], now=20.0)

    assert freshness.overdue(100.0) == []
