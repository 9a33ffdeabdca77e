"""Whether a namespace is open to Backstay, and the account with whose rights everything in it is done.

The cluster's admin opens a namespace by a label. Only then is there an account with rights in it, so that a namespace
that nobody opened cannot be read even by a mistake of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backstay.api.names import ACCOUNT, ACCOUNT_GROUP, ACCOUNT_ROLE, COMPONENT_LABEL, ENROLLED_LABEL
from backstay.kube.errors import ForbiddenError
from backstay.kube.resource import NAMESPACES, ROLE_BINDINGS, SERVICE_ACCOUNTS
from backstay.kube.runtime import Runtime

Object = dict[str, Any]

_LABELS = {COMPONENT_LABEL: "account", "app.kubernetes.io/managed-by": "backstay"}


@dataclass(frozen=True)
class Enrolment:
    """``ok``, or why nothing is read in the namespace: a condition's reason, and a message with what to do."""

    ok: bool
    reason: str = ""
    message: str = ""


def ensure_enrolled(runtime: Runtime, namespace: str) -> Enrolment:
    """Make sure that a namespace is open to us and that its account ``backstay`` exists. Raises ApiError."""
    refusal = refuse_namespace(
        runtime.client.find(NAMESPACES, namespace), namespace, enroll_all=runtime.settings.enroll_all
    )
    if refusal:
        return refusal
    try:
        # Looked for first, since this is done before every piece of work, and nearly always finds them.
        account = runtime.client.find(SERVICE_ACCOUNTS, ACCOUNT, namespace)
        account = account or runtime.client.ensure(SERVICE_ACCOUNTS, build_account(namespace))
        refusal = refuse_account(account, namespace)
        if refusal:
            return refusal
        binding = runtime.client.find(ROLE_BINDINGS, ACCOUNT, namespace)
        binding = binding or runtime.client.ensure(ROLE_BINDINGS, build_binding(namespace))
    except ForbiddenError as error:
        return Enrolment(
            False,
            "AccountNotCreated",
            f"the operator may not set up ServiceAccount and RoleBinding {ACCOUNT!r} in namespace {namespace!r}: "
            f"{error.message}; check the operator's ClusterRole and the namespace's quotas",
        )
    refusal = refuse_binding(binding, namespace)
    if refusal:
        return refusal
    if binding.get("subjects") != build_binding(namespace)["subjects"]:
        runtime.client.replace(ROLE_BINDINGS, {**binding, "subjects": build_binding(namespace)["subjects"]})
    return Enrolment(True)


def refuse_namespace(found: Object | None, namespace: str, *, enroll_all: bool) -> Enrolment | None:
    """Why this namespace is not to be touched, if so."""
    if found is None:
        return Enrolment(False, "NamespaceNotFound", f"namespace {namespace!r} does not exist any more")
    metadata = found["metadata"]
    if metadata.get("deletionTimestamp"):
        return Enrolment(False, "NamespaceTerminating", f"namespace {namespace!r} is being deleted")
    if enroll_all or (metadata.get("labels") or {}).get(ENROLLED_LABEL) == "true":
        return None
    return Enrolment(
        False,
        "NotEnrolled",
        f"namespace {namespace!r} is not open to Backstay; an administrator opens it with: "
        f"kubectl label namespace {namespace} {ENROLLED_LABEL}=true",
    )


def refuse_account(account: Object, namespace: str) -> Enrolment | None:
    """Why the account of our name cannot be used, if so: one that others made could hold anybody's rights."""
    if ((account["metadata"].get("labels") or {}).get(COMPONENT_LABEL)) == "account":
        return None
    return Enrolment(
        False,
        "AccountNotOurs",
        f"ServiceAccount {ACCOUNT!r} in namespace {namespace!r} was not made by Backstay; delete or rename it, "
        f"or hand it over with: kubectl -n {namespace} label serviceaccount {ACCOUNT} {COMPONENT_LABEL}=account",
    )


def refuse_binding(binding: Object, namespace: str) -> Enrolment | None:
    """Why the binding of our name cannot be used, if so: a binding's role can never be changed."""
    role = binding.get("roleRef") or {}
    if role.get("kind") == "ClusterRole" and role.get("name") == ACCOUNT_ROLE:
        return None
    return Enrolment(
        False,
        "AccountNotOurs",
        f"RoleBinding {ACCOUNT!r} in namespace {namespace!r} does not bind ClusterRole {ACCOUNT_ROLE!r}; delete it, "
        "and Backstay makes its own",
    )


def build_account(namespace: str) -> Object:
    """The account: nothing but a name for rights, so no pod gets its token by accident."""
    return {
        "apiVersion": SERVICE_ACCOUNTS.api_version,
        "kind": SERVICE_ACCOUNTS.kind,
        "metadata": {"name": ACCOUNT, "namespace": namespace, "labels": dict(_LABELS)},
        "automountServiceAccountToken": False,
    }


def build_binding(namespace: str) -> Object:
    """The account's rights, in its own namespace only."""
    return {
        "apiVersion": ROLE_BINDINGS.api_version,
        "kind": ROLE_BINDINGS.kind,
        "metadata": {"name": ACCOUNT, "namespace": namespace, "labels": dict(_LABELS)},
        "roleRef": {"apiGroup": ROLE_BINDINGS.group, "kind": "ClusterRole", "name": ACCOUNT_ROLE},
        "subjects": [{"apiGroup": ROLE_BINDINGS.group, "kind": "Group", "name": ACCOUNT_GROUP}],
    }
