"""A restore point is believed only as far as it is consistent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from backstay.api.names import COMPONENT_LABEL
from backstay.restore.contents import check_claims, check_description, check_object, parse_description, reason_left_out
from backstay.restore.errors import RestoreError
from tests.unit.restore.objects import captured, claim, obj, point, stored, volume

WEB = obj("Deployment", "web", "apps/v1")


def test_a_description_is_read_and_checked() -> None:
    written = msgspec.json.encode(point(WEB, volumes=(volume("data"),)))
    assert parse_description(written).objects == (captured(WEB),)


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"version": "x"}'])
def test_what_is_no_description_is_refused(document: bytes) -> None:
    with pytest.raises(RestoreError, match="cannot be read"):
        parse_description(document)


def test_a_description_of_a_later_format_says_what_to_do() -> None:
    with pytest.raises(RestoreError, match="Upgrade Backstay"):
        parse_description(msgspec.json.encode(replace(point(), version=2, backstay="9.0")))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../web"},
        {"name": ".."},
        {"name": ""},
        {"name": "a%2fb"},
        {"name": "x" * 254},
        {"kind": "De ployment"},
        {"group": "apps/../core"},
        {"version": "v1/x"},
        {"path": "resources/apps/Deployment/../../core/Secret/x/object.json"},
        {"path": "resources/core/Secret/web/object.json"},
        {"path": "backstay/restore-point.json"},
    ],
)
def test_an_impossible_name_kind_or_path_is_refused(change: dict[str, str]) -> None:
    hostile = replace(point(), objects=(replace(captured(WEB), **change),))
    with pytest.raises(RestoreError, match="contradicts itself"):
        check_description(hostile)


def test_a_role_may_have_the_names_that_kubernetes_allows_it() -> None:
    role = replace(captured(obj("Role", "r", "rbac.authorization.k8s.io/v1")), name="system:a~b")
    check_description(replace(point(), objects=(role,)))


def test_two_objects_of_one_identity_are_refused() -> None:
    with pytest.raises(RestoreError, match="described twice"):
        check_description(point(WEB, WEB))


@pytest.mark.parametrize("broken", [volume("Data"), volume("data", tree="zz"), volume("a/b")])
def test_an_impossible_volume_is_refused(broken: Any) -> None:
    with pytest.raises(RestoreError, match="contradicts itself"):
        check_description(point(volumes=(broken,)))


@pytest.mark.parametrize(
    "body",
    [
        obj("Deployment", "other", "apps/v1"),
        obj("StatefulSet", "web", "apps/v1"),
        obj("Deployment", "web", "apps/v1beta1"),
        {"apiVersion": "apps/v1", "kind": "Deployment"},
        [],
    ],
)
def test_an_object_that_is_not_what_its_path_says_is_refused(body: Any) -> None:
    with pytest.raises(RestoreError, match="contradicts itself"):
        check_object(captured(WEB), msgspec.json.encode(body))


@pytest.mark.parametrize(
    ("body", "left_out"),
    [
        (WEB, False),
        (obj("Restore", "r", "backstay.dev/v1alpha1"), True),
        (obj("Backup", "b", "backstay.dev/v1alpha1"), True),
        (obj("Secret", "s", metadata={"labels": {COMPONENT_LABEL: "mover"}}), True),
        (obj("Pod", "p", status={"phase": "Succeeded"}), True),
        (obj("Pod", "p", status={"phase": "Running"}), False),
        (obj("Job", "j", "batch/v1", status={"conditions": [{"type": "Complete", "status": "True"}]}), True),
        (obj("Job", "j", "batch/v1", status={"active": 1}), False),
    ],
)
def test_records_parts_of_backstay_and_finished_work_are_left_out(body: Any, left_out: bool) -> None:
    assert bool(reason_left_out(stored(body))) == left_out


def test_data_without_their_claim_are_refused() -> None:
    check_claims([volume("data")], [stored(claim("data"))])
    check_claims([volume("data", tree="")], [])
    with pytest.raises(RestoreError, match="not the claim itself"):
        check_claims([volume("data")], [])
