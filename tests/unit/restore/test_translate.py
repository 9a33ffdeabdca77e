"""Another namespace, other storage classes."""

from __future__ import annotations

from typing import Any

import pytest

from backstay.restore.errors import RestoreError
from backstay.restore.storage_classes import Choice, StorageClasses, choose
from backstay.restore.translate import Target, translate
from tests.unit.restore.objects import claim, obj

HERE = StorageClasses(frozenset({"gp3", "fast"}), default="gp3")
TARGET = Target("copy", "shop", HERE)


@pytest.mark.parametrize(
    ("wanted", "mapping", "here", "chosen"),
    [
        ("fast", {}, HERE, Choice("fast")),
        ("fast", {"fast": "gp3"}, HERE, Choice("gp3")),
        ("gp2", {}, HERE, Choice("gp3", "StorageClass gp2 does not exist here; the default class gp3 is used")),
        (None, {}, HERE, Choice(None)),
        ("", {}, HERE, Choice("gp3", "the claim's volume had no StorageClass; the default class gp3 is used")),
        ("", {"": "fast"}, HERE, Choice("fast")),
    ],
)
def test_the_map_comes_before_the_same_name_before_the_default(
    wanted: str | None, mapping: dict[str, str], here: StorageClasses, chosen: Choice
) -> None:
    assert choose(wanted, mapping, here) == chosen


@pytest.mark.parametrize(
    ("wanted", "mapping", "words"),
    [
        ("gp2", {}, "There is no StorageClass gp2 here and no class is the default"),
        (None, {}, "A claim names no StorageClass"),
        ("gp2", {"gp2": "gp9"}, "spec.storageClasses maps gp2 to gp9, but no StorageClass gp9 exists here"),
    ],
)
def test_without_a_class_nothing_is_guessed(wanted: str | None, mapping: dict[str, str], words: str) -> None:
    with pytest.raises(RestoreError, match=words):
        choose(wanted, mapping, StorageClasses(frozenset({"slow"})))


def test_the_newest_of_several_default_classes_counts() -> None:
    def marked(name: str, created: str) -> dict[str, Any]:
        annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
        return {"metadata": {"name": name, "creationTimestamp": created, "annotations": annotations}}

    classes = [marked("old", "2025-01-01T00:00:00Z"), marked("new", "2026-01-01T00:00:00Z")]
    assert StorageClasses.of(classes) == StorageClasses(frozenset({"old", "new"}), "new")


def test_classes_are_mapped_wherever_a_claim_is_made() -> None:
    template = {"metadata": {"name": "data"}, "spec": {"storageClassName": "gp2"}}
    ephemeral = {"name": "tmp", "ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "gp2"}}}}
    pods = {"spec": {"volumes": [ephemeral]}}
    target = Target("copy", "shop", HERE, {"gp2": "fast"})

    translation = translate(
        obj("StatefulSet", "db", "apps/v1", spec={"volumeClaimTemplates": [template], "template": pods}), target
    )

    spec = translation.body["spec"]
    assert spec["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "fast"
    volume = spec["template"]["spec"]["volumes"][0]
    assert volume["ephemeral"]["volumeClaimTemplate"]["spec"]["storageClassName"] == "fast"
    assert translation.warnings == ()


def test_the_old_annotation_for_a_class_becomes_the_field() -> None:
    body = claim("data", None)
    body["metadata"]["annotations"] = {"volume.beta.kubernetes.io/storage-class": "fast"}
    translated = translate(body, TARGET).body
    assert translated["spec"]["storageClassName"] == "fast"
    assert "annotations" not in translated["metadata"]


def test_a_class_that_is_replaced_unasked_is_a_warning_that_names_the_claim() -> None:
    assert translate(claim("data", "gp2"), TARGET).warnings == (
        "PersistentVolumeClaim data: StorageClass gp2 does not exist here; the default class gp3 is used",
    )


def test_a_copys_bindings_name_the_copys_accounts() -> None:
    subjects = [
        {"kind": "ServiceAccount", "name": "web", "namespace": "shop"},
        {"kind": "ServiceAccount", "name": "prometheus", "namespace": "monitoring"},
        {"kind": "User", "name": "system:serviceaccount:shop:web"},
        {"kind": "Group", "name": "system:serviceaccounts:shop"},
        {"kind": "User", "name": "jane"},
    ]
    body = obj("RoleBinding", "web", "rbac.authorization.k8s.io/v1", subjects=subjects)
    translated = translate(body, TARGET).body
    assert translated["metadata"]["namespace"] == "copy"
    assert translated["subjects"] == [
        {"kind": "ServiceAccount", "name": "web", "namespace": "copy"},
        {"kind": "ServiceAccount", "name": "prometheus", "namespace": "monitoring"},
        {"kind": "User", "name": "system:serviceaccount:copy:web"},
        {"kind": "Group", "name": "system:serviceaccounts:copy"},
        {"kind": "User", "name": "jane"},
    ]


def test_a_backup_policy_comes_back_suspended() -> None:
    body = obj("BackupPolicy", "shop", "backstay.dev/v1alpha1", spec={"storage": {"name": "main"}})
    assert translate(body, TARGET).body["spec"] == {"storage": {"name": "main"}, "suspend": True}
