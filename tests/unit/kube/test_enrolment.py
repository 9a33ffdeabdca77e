"""Which namespaces are open, and whose account is trusted there."""

from __future__ import annotations

from typing import Any

import pytest

from backstay.kube.enrolment import (
    build_account,
    build_binding,
    refuse_account,
    refuse_binding,
    refuse_namespace,
)


def namespace(**metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "shop", **metadata}}


ENROLLED = {"labels": {"backstay.dev/enrolled": "true"}}


@pytest.mark.parametrize(
    ("found", "enroll_all", "reason"),
    [
        (namespace(**ENROLLED), False, None),
        (namespace(), True, None),
        (namespace(), False, "NotEnrolled"),
        (namespace(labels={"backstay.dev/enrolled": "false"}), False, "NotEnrolled"),
        (namespace(**ENROLLED, deletionTimestamp="now"), False, "NamespaceTerminating"),
        (None, True, "NamespaceNotFound"),
    ],
)
def test_a_namespace_is_open_when_its_label_or_the_settings_say_so(
    found: dict[str, Any] | None, enroll_all: bool, reason: str | None
) -> None:
    refusal = refuse_namespace(found, "shop", enroll_all=enroll_all)

    assert (refusal.reason if refusal else None) == reason


def test_the_refusal_tells_the_command_that_opens_the_namespace() -> None:
    refusal = refuse_namespace(namespace(), "shop", enroll_all=False)

    assert refusal
    assert "kubectl label namespace shop backstay.dev/enrolled=true" in refusal.message


def test_an_account_that_others_made_is_not_used() -> None:
    assert refuse_account(build_account("shop"), "shop") is None
    refusal = refuse_account({"metadata": {"name": "backstay"}}, "shop")
    assert refusal
    assert refusal.reason == "AccountNotOurs"


def test_a_binding_to_another_role_is_not_used() -> None:
    assert refuse_binding(build_binding("shop"), "shop") is None
    assert refuse_binding({"roleRef": {"kind": "Role", "name": "backstay-application"}}, "shop")


def test_no_pod_gets_the_accounts_token_by_accident() -> None:
    assert build_account("shop")["automountServiceAccountToken"] is False
