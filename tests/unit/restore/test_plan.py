"""What a Restore will do, decided from what the point holds and what is there."""

from __future__ import annotations

from typing import Any

import pytest

from backstay.api.names import COMPONENT_LABEL, RESTORED_LABEL
from backstay.kube.resource import CLAIMS, CONFIG_MAPS, DEPLOYMENTS, NODES, SERVICE_ACCOUNTS, SERVICES, Resource
from backstay.restore.contents import Identity
from backstay.restore.plan import Action, Observed, Plan, claim_users, kept_data_warnings, kept_warnings, make_plan
from backstay.restore.storage_classes import StorageClasses
from backstay.restore.translate import Target
from backstay.restore.waves import Wave
from tests.unit.restore.objects import claim, contents, obj, volume

WIDGETS = Resource("example.com", "v2", "Widget", "widgets")
SERVED = {(r.group, r.kind): r for r in (CLAIMS, CONFIG_MAPS, DEPLOYMENTS, NODES, SERVICE_ACCOUNTS, SERVICES, WIDGETS)}
TARGET = Target("shop", "shop", StorageClasses(frozenset({"fast"})))


def planned(*bodies: Any, existing: tuple[Any, ...] = (), users: dict[str, list[str]] | None = None) -> Plan:
    live = {Identity(b["apiVersion"].rpartition("/")[0], b["kind"], b["metadata"]["name"]): b for b in existing}
    return make_plan(contents(*bodies), Observed(SERVED, live, users or {}), TARGET, "restore-uid")


def only(plan: Plan) -> Any:
    (step,) = plan.steps
    return step


def test_what_is_absent_is_created_with_the_restores_label() -> None:
    step = only(planned(obj("ConfigMap", "c", data={"a": "b"})))
    assert step.action == Action.CREATE
    assert f'"{RESTORED_LABEL}":"restore-uid"'.encode() in step.document


@pytest.mark.parametrize(
    ("live", "action"),
    [
        (obj("ConfigMap", "c", metadata={"uid": "u", "resourceVersion": "9"}, data={"a": "b"}), Action.SAME),
        (obj("ConfigMap", "c", data={"a": "other"}), Action.KEEP),
        (obj("ConfigMap", "c", metadata={"labels": {RESTORED_LABEL: "restore-uid"}}), Action.MADE),
        (obj("ConfigMap", "c", metadata={"labels": {RESTORED_LABEL: "other"}}, data={"a": "b"}), Action.SAME),
        (
            obj(
                "ConfigMap",
                "c",
                metadata={"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
                data={"a": "b"},
            ),
            Action.SAME,
        ),
    ],
    ids=["equal", "differs", "made by this Restore", "made by another Restore", "applied by kubectl"],
)
def test_what_exists_is_kept_and_told_apart(live: Any, action: Action) -> None:
    assert only(planned(obj("ConfigMap", "c", data={"a": "b"}), existing=(live,))).action == action


def test_a_claim_that_exists_is_kept_even_when_it_is_equal_and_its_data_are_told_not_restored() -> None:
    plan = planned(claim("data"), existing=(claim("data"),))
    assert only(plan).action == Action.KEEP
    assert kept_data_warnings(plan, [volume("data")]) == [
        "PersistentVolumeClaim data existed and was kept: its data were NOT restored"
    ]
    assert kept_data_warnings(plan, [volume("data", tree="")]) == []


def test_only_what_differs_is_a_warning() -> None:
    same, differs = obj("ConfigMap", "a"), obj("ConfigMap", "b", data={"x": "y"})
    plan = planned(obj("ConfigMap", "a"), obj("ConfigMap", "b"), existing=(same, differs))
    assert kept_warnings(plan) == ["ConfigMap b existed, differs from the restore point and was kept"]


@pytest.mark.parametrize("body", [obj("Gadget", "g", "example.com/v1"), obj("Node", "n")])
def test_what_cannot_be_made_here_is_refused_with_the_reason(body: Any) -> None:
    step = only(planned(body))
    assert step.action == Action.REFUSE
    assert step.message


def test_an_object_is_created_in_the_version_it_was_captured_in() -> None:
    assert only(planned(obj("Widget", "w", "example.com/v1"))).resource.api_version == "example.com/v1"


def test_steps_come_in_waves() -> None:
    plan = planned(
        obj("Deployment", "web", "apps/v1"),
        obj("Widget", "w", "example.com/v1"),
        obj("Service", "s", spec={}),
        claim("data"),
        obj("ServiceAccount", "a"),
    )
    assert [step.wave for step in plan.steps] == list(Wave)


def test_a_class_not_to_be_had_blocks_everything() -> None:
    plan = planned(claim("data", "absent"), obj("ConfigMap", "c"))
    assert any("There is no StorageClass absent here" in blocker.message for blocker in plan.blockers)


def test_a_class_not_to_be_had_blocks_nothing_when_the_claim_exists() -> None:
    assert planned(claim("data", "absent"), existing=(claim("data"),)).blockers == ()


def test_a_pod_that_waits_for_an_absent_claim_blocks() -> None:
    plan = planned(claim("data"), users={"data": ["web-0"]})
    assert "Pod web-0 waits for PersistentVolumeClaim data" in plan.blockers[0].message


def test_an_object_that_is_being_deleted_is_waited_for() -> None:
    leaving = obj("ConfigMap", "c", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert planned(obj("ConfigMap", "c"), existing=(leaving,)).terminating == ("ConfigMap c",)


def test_users_of_claims_are_pods_that_live_and_are_no_movers() -> None:
    def pod(name: str, phase: str = "Running", labels: dict[str, str] | None = None) -> Any:
        volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
        metadata = {"labels": labels or {}}
        return obj("Pod", name, metadata=metadata, spec={"volumes": volumes}, status={"phase": phase})

    pods = [pod("a"), pod("b", "Pending"), pod("c", "Succeeded"), pod("d", labels={COMPONENT_LABEL: "mover"})]
    assert claim_users(pods) == {"data": ["a", "b"]}
