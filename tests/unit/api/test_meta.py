"""Conditions, selectors and parsing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from backstay.api.backup import Backup
from backstay.api.meta import Condition, InvalidObjectError, LabelSelector, parse, set_condition, to_json
from backstay.api.names import backup_name, slot_text
from backstay.api.storage import BackupStorage

NOW = datetime(2026, 11, 24, 2, 0, 0, 123456, tzinfo=UTC)


def test_a_conditions_time_moves_only_with_its_status() -> None:
    first = set_condition((), Condition("Ready", "False", "A"), NOW)
    same = set_condition(first, Condition("Ready", "False", "B"), NOW + timedelta(minutes=1))
    turned = set_condition(same, Condition("Ready", "True", "C"), NOW + timedelta(minutes=2))

    assert first[0].last_transition_time == NOW.replace(microsecond=0)
    assert (same[0].reason, same[0].last_transition_time) == ("B", first[0].last_transition_time)
    assert turned[0].last_transition_time == (NOW + timedelta(minutes=2)).replace(microsecond=0)


def test_other_conditions_stay() -> None:
    conditions = set_condition((Condition("Other", "True", "X"),), Condition("Ready", "True", "Y"), NOW)

    assert [condition.type for condition in conditions] == ["Other", "Ready"]


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": {"app": "shop"}}, True),
        ({"matchLabels": {"app": "shop", "tier": "db"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["shop", "bank"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_selectors_mean_what_they_mean_in_kubernetes(selector: dict[str, object], selected: bool) -> None:
    assert parse(LabelSelector, selector).matches({"app": "shop"}) is selected


def test_an_object_that_does_not_fit_is_refused_with_the_field() -> None:
    with pytest.raises(InvalidObjectError, match=r"BackupStorage main.*bucket"):
        parse(BackupStorage, {"metadata": {"name": "main"}, "spec": {"s3": {}, "passwordSecretRef": {"name": "p"}}})


def test_an_object_survives_being_written_and_read() -> None:
    source = {
        "metadata": {"name": "b", "namespace": "shop"},
        "spec": {"capture": {"policy": "shop"}},
        "status": {"phase": "Running", "startTime": "2026-11-24T02:00:00Z", "volumes": [{"claim": "data", "files": 3}]},
    }

    assert json.loads(json.dumps(to_json(parse(Backup, source)))) == source


def test_a_slots_name_is_its_time_in_utc() -> None:
    slot = datetime.fromisoformat("2026-11-24T03:00:00+01:00")

    assert slot_text(slot) == "20261124t020000z"
    assert backup_name("c", "shop", "web", slot) != backup_name("c", "bank", "web", slot)
