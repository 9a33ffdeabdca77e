"""Nobody gains by Backstay a right that they do not hold themselves, and Backstay holds few of its own.

Needs the chart installed: `python -m tests.cluster install`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.tenants import (
    KINDS,
    OPERATOR,
    OPERATOR_NAMESPACE,
    Object,
    Tenant,
    backup,
    can,
    found_backup,
    kubectl,
    policy,
    read,
    refusal,
    restore,
    storage,
    temporary_namespace,
    wait_for,
)

APPLY = ("create", "--dry-run=server", "--filename=-")
#: The group that only the operator may put itself into when it acts as the account.
GROUP = "backstay.dev:account"
EVERY_VERB = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """An enrolled namespace whose account exists, as the operator makes it."""
    with temporary_namespace("rights", enrolled=True) as name:
        make_account(name)
        yield name


def make_account(namespace: str) -> None:
    """What enrolment does, by the operator's own rights; the operator may have been quicker."""
    for document in (account(namespace), binding(namespace)):
        answer = kubectl("create", f"--as={OPERATOR}", "--filename=-", document=document, check=False)
        assert "created" in answer or "AlreadyExists" in answer, answer


def account(namespace: str, name: str = "backstay") -> Object:
    labels = {"backstay.dev/component": "account"}
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "automountServiceAccountToken": False,
    }


def binding(namespace: str, role: str = "backstay-application", group: str = GROUP) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "backstay", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
    }


def pod(**spec: Any) -> Object:
    container = {"name": "main", "image": "localhost/none"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "thief"},
        "spec": {"containers": [container], **spec},
    }


def by_account(namespace: str) -> tuple[str, ...]:
    """kubectl's words for what the operator does with the account's rights."""
    return (f"--as=system:serviceaccount:{namespace}:backstay", f"--as-group={GROUP}", f"--namespace={namespace}")


@pytest.fixture
def tenant(namespace: str) -> Tenant:
    """Somebody who may do anything with our four kinds, and nothing else."""
    someone = Tenant.come(namespace)
    someone.grant("backstay.dev", list(KINDS), EVERY_VERB)
    return someone


# The operator's own rights


@pytest.mark.parametrize("verb", ["get", "list", "watch", "create"])
@pytest.mark.parametrize("resource", ["secrets", "pods", "configmaps", "persistentvolumeclaims", "jobs.batch"])
def test_the_operator_itself_reads_and_makes_nothing_of_an_application(
    namespace: str, verb: str, resource: str
) -> None:
    if (verb, resource) != ("create", "persistentvolumeclaims"):
        assert not can(OPERATOR, verb, resource, namespace)
    assert not can(OPERATOR, verb, resource, "default")


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("create", "pods:exec"),
        ("create", "serviceaccounts:token"),
        ("create", "roles.rbac.authorization.k8s.io"),
        ("escalate", "clusterroles.rbac.authorization.k8s.io"),
        ("bind", "clusterroles.rbac.authorization.k8s.io/cluster-admin"),
        ("impersonate", "serviceaccounts/default"),
        ("impersonate", "users"),
        ("impersonate", "groups"),
        ("create", "backups.backstay.dev"),
        ("update", "restores.backstay.dev"),
    ],
)
def test_the_operator_itself_cannot_get_at_more_rights(namespace: str, verb: str, resource: str) -> None:
    assert not can(OPERATOR, verb, resource, namespace)


def test_the_operator_acts_as_the_account_which_has_rights_in_its_own_namespace_only(namespace: str) -> None:
    as_account = f"system:serviceaccount:{namespace}:backstay"

    assert can(OPERATOR, "impersonate", "serviceaccounts/backstay", namespace)
    assert can(OPERATOR, "impersonate", f"groups/{GROUP}")
    assert not can(OPERATOR, "impersonate", "groups/system:masters")
    assert can(as_account, "get", "secrets", namespace, GROUP)
    assert not can(as_account, "get", "secrets", "kube-system", GROUP)
    assert not can(as_account, "list", "nodes", group=GROUP)
    assert not can(as_account, "impersonate", "serviceaccounts/default", namespace, GROUP)


def test_who_may_act_as_the_service_accounts_of_a_namespace_gains_nothing_by_acting_as_ours(namespace: str) -> None:
    editor = Tenant.come(namespace)
    editor.grant_role("edit")
    as_account = f"system:serviceaccount:{namespace}:backstay"

    assert can(editor.user, "impersonate", "serviceaccounts/backstay", namespace), "as Kubernetes gives it to editors"
    assert not can(editor.user, "impersonate", f"groups/{GROUP}", namespace)
    for verb, resource in (
        ("get", "secrets"),
        ("create", "pods"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
    ):
        assert not can(as_account, verb, resource, namespace)


def test_the_operator_makes_accounts_of_one_name_in_enrolled_namespaces_only(namespace: str) -> None:
    by_operator = ("create", "--dry-run=server", f"--as={OPERATOR}", "--filename=-")

    assert "no other ServiceAccount" in refusal(*by_operator, document=account(namespace, "other"))
    assert "is not enrolled" in refusal(*by_operator, document=account("default"))
    assert "is not enrolled" in refusal(*by_operator, document=binding("kube-system"))


def test_the_operator_binds_one_role_to_one_account(namespace: str) -> None:
    with temporary_namespace("rights-bind", enrolled=True) as fresh:
        by_operator = ("create", "--dry-run=server", f"--as={OPERATOR}", "--filename=-")

        assert "binds only" in refusal(*by_operator, document=binding(fresh, group="system:authenticated"))
        assert "forbidden" in refusal(*by_operator, document=binding(fresh, role="cluster-admin"))


def test_only_the_role_of_the_account_has_wildcards() -> None:
    ours = [role for role in read("clusterroles")["items"] if role["metadata"]["name"].startswith("backstay-")]

    assert {role["metadata"]["name"] for role in ours} >= {"backstay-operator", "backstay-application", "backstay-edit"}
    for role in ours:
        if role["metadata"]["name"] != "backstay-application":
            words = [
                w for rule in role["rules"] for key in ("apiGroups", "resources", "verbs") for w in rule.get(key, [])
            ]
            assert "*" not in words, role["metadata"]["name"]


def test_the_role_of_the_account_is_never_bound_to_the_cluster() -> None:
    bound = [b["roleRef"]["name"] for b in read("clusterrolebindings")["items"]]

    assert "backstay-application" not in bound


def test_editors_of_a_namespace_may_use_our_kinds_but_not_write_status(namespace: str) -> None:
    editor = Tenant.come(namespace)
    editor.grant_role("edit")

    assert can(editor.user, "create", "backups.backstay.dev", namespace)
    assert not can(editor.user, "update", "backups.backstay.dev:status", namespace)


def test_viewers_of_a_namespace_may_read_our_kinds(namespace: str) -> None:
    assert "true" in kubectl(
        "get",
        "clusterrole",
        "backstay-view",
        "--output=jsonpath={.metadata.labels.rbac\\.authorization\\.k8s\\.io/aggregate-to-view}",
    )


# Who may give orders


@pytest.mark.parametrize(
    "document", [storage(), policy(), backup(), found_backup()], ids=["storage", "policy", "backup", "found"]
)
def test_who_cannot_read_secrets_cannot_have_them_backed_up(tenant: Tenant, document: Object) -> None:
    said = refusal(*APPLY, *tenant.act, document=document)

    assert f"may not get Secrets in namespace {tenant.namespace}" in said
    assert "an administrator grants it" in said
    assert f"--user={tenant.user}" in said


def test_who_cannot_create_pods_cannot_have_volumes_backed_up(tenant: Tenant) -> None:
    tenant.grant("", ["secrets"], ["get"])

    kubectl(*APPLY, *tenant.act, document=storage())
    kubectl(*APPLY, *tenant.act, document=found_backup())
    assert "may not create pods" in refusal(*APPLY, *tenant.act, document=policy())
    assert "may not create pods" in refusal(*APPLY, *tenant.act, document=backup())


def test_who_can_read_secrets_and_create_pods_may_back_up(tenant: Tenant) -> None:
    tenant.grant("", ["secrets"], ["get"])
    tenant.grant("", ["pods"], ["create"])

    for document in (storage(), policy(), backup()):
        kubectl(*APPLY, *tenant.act, document=document)


def test_who_can_read_only_one_secret_cannot_back_up(tenant: Tenant) -> None:
    tenant.grant("", ["secrets"], ["get"], names=["password"])

    assert "may not get Secrets" in refusal(*APPLY, *tenant.act, document=storage())


def test_who_can_create_nothing_cannot_restore_and_is_told_what_is_missing(tenant: Tenant) -> None:
    said = refusal(*APPLY, *tenant.act, document=restore())

    assert "may not create pods in namespace" in said
    assert "a Restore creates pods, secrets and persistentvolumeclaims, roles and rolebindings" in said
    assert f"--user={tenant.user}" in said


def test_who_cannot_create_roles_cannot_have_roles_restored(tenant: Tenant) -> None:
    tenant.grant("", ["pods", "secrets", "persistentvolumeclaims"], ["create"])
    assert "may not create roles in namespace" in refusal(*APPLY, *tenant.act, document=restore())

    tenant.grant("rbac.authorization.k8s.io", ["roles"], ["create"])
    assert "may not create rolebindings in namespace" in refusal(*APPLY, *tenant.act, document=restore())


def test_who_cannot_create_every_kind_cannot_have_every_kind_restored(tenant: Tenant) -> None:
    tenant.grant("", ["pods", "secrets", "persistentvolumeclaims"], ["create"])
    tenant.grant("rbac.authorization.k8s.io", ["roles", "rolebindings"], ["create"])

    assert "may not create every kind" in refusal(*APPLY, *tenant.act, document=restore())
    assert "may not create every kind" in refusal(*APPLY, *tenant.act, document=restore(approve="Create"))


def test_who_has_the_rights_of_the_account_may_restore(tenant: Tenant) -> None:
    tenant.grant_role("backstay-application")

    kubectl(*APPLY, *tenant.act, document=restore(approve="Create"))


def test_naming_another_account_needs_the_right_to_act_as_it(tenant: Tenant) -> None:
    tenant.grant("", ["secrets"], ["get", "create"])
    tenant.grant("", ["pods", "persistentvolumeclaims"], ["create"])
    named_policy, named_restore = policy(serviceAccountName="robot"), restore(serviceAccountName="robot")

    for document in (named_policy, named_restore):
        said = refusal(*APPLY, *tenant.act, document=document)
        assert "may not act as ServiceAccount robot" in said
        assert "--resource-name=robot" in said

    tenant.grant("", ["serviceaccounts"], ["impersonate"], names=["robot"])
    for document in (named_policy, named_restore):
        kubectl(*APPLY, *tenant.act, document=document)


def test_the_account_brings_back_what_an_application_had(namespace: str) -> None:
    # The catalogue's Backups, and a policy that always named another account.
    for document in (found_backup(), policy(suspend=True, serviceAccountName="robot"), storage()):
        kubectl(*APPLY, *by_account(namespace), document=document)
    assert "may not act as ServiceAccount robot" in refusal(
        *APPLY, *by_account(namespace), document=restore(serviceAccountName="robot")
    )


def test_the_account_hands_on_no_right_that_it_lacks(namespace: str) -> None:
    robot = f"--serviceaccount={namespace}:robot"

    kubectl("create", "rolebinding", "robot", "--clusterrole=view", robot, "--dry-run=server", *by_account(namespace))
    said = refusal(
        "create",
        "rolebinding",
        "robot",
        "--clusterrole=cluster-admin",
        robot,
        "--dry-run=server",
        *by_account(namespace),
    )
    assert "attempting to grant RBAC permissions not currently held" in said


def test_who_may_not_write_a_spec_may_still_label_and_delete(tenant: Tenant) -> None:
    kubectl("create", f"--namespace={tenant.namespace}", "--filename=-", document=policy("labelled"))

    kubectl(*tenant.act, "label", "backuppolicy", "labelled", "team=one")
    patch = '--patch={"spec": {"suspend": true}}'
    assert "may not get Secrets" in refusal(*tenant.act, "patch", "backuppolicy", "labelled", "--type=merge", patch)
    kubectl(*tenant.act, "delete", "backuppolicy", "labelled")


def test_nobody_but_the_operator_writes_status(tenant: Tenant) -> None:
    kubectl("create", f"--namespace={tenant.namespace}", "--filename=-", document=found_backup("forged"))

    patch = '--patch={"status": {"phase": "Completed"}}'
    said = refusal(*tenant.act, "patch", "backup", "forged", "--subresource=status", "--type=merge", patch)
    assert "forbidden" in said
    kubectl(
        f"--as={OPERATOR}",
        f"--namespace={tenant.namespace}",
        "patch",
        "backup",
        "forged",
        "--subresource=status",
        "--type=merge",
        patch,
    )
    kubectl(f"--namespace={tenant.namespace}", "delete", "backup", "forged")


# Who may get hold of the account


def test_no_pod_runs_as_the_account(tenant: Tenant) -> None:
    tenant.grant("", ["pods"], ["create"])

    assert "no pod may run as ServiceAccount backstay" in refusal(
        *APPLY, *tenant.act, document=pod(serviceAccountName="backstay")
    )
    # The older name of the field means the same.
    assert "no pod may run as ServiceAccount backstay" in refusal(
        *APPLY, *tenant.act, document=pod(serviceAccount="backstay")
    )
    kubectl(*APPLY, *tenant.act, document=pod(serviceAccountName=tenant.name))


def test_nobody_asks_for_a_token_of_the_account(tenant: Tenant) -> None:
    tenant.grant("", ["serviceaccounts/token"], ["create"])

    assert "Backstay's own" in refusal(*tenant.act, "create", "token", "backstay")
    kubectl(*tenant.act, "create", "token", tenant.name)


def test_no_secret_makes_the_cluster_put_a_token_of_the_account_into_it(tenant: Tenant) -> None:
    tenant.grant("", ["secrets"], ["create"])
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "token", "annotations": {"kubernetes.io/service-account.name": "backstay"}},
    }

    assert "Backstay's own" in refusal(*APPLY, *tenant.act, document=secret)


def test_admins_of_a_namespace_do_not_change_the_account_or_its_binding(namespace: str) -> None:
    admin = Tenant.come(namespace)
    admin.grant_role("admin")
    joins = {"kind": "ServiceAccount", "name": admin.name, "namespace": namespace}
    patch = (
        f'--patch={{"subjects": [{{"kind": "ServiceAccount", "name": "{joins["name"]}", "namespace": "{namespace}"}}]}}'
    )

    assert "forbidden" in refusal(*admin.act, "patch", "rolebinding", "backstay", "--type=merge", patch)
    assert "Backstay's own" in refusal(*admin.act, "label", "serviceaccount", "backstay", "backstay.dev/component-")
    assert "Backstay's own" in refusal(
        *admin.act,
        "patch",
        "serviceaccount",
        "backstay",
        "--type=merge",
        '--patch={"automountServiceAccountToken": true}',
    )
    # What controllers of distributions do to every account is let through.
    kubectl(*admin.act, "annotate", "serviceaccount", "backstay", "example.com/note=1")


def test_admins_of_a_namespace_do_not_make_the_account_before_the_operator_does() -> None:
    with temporary_namespace("rights-early", enrolled=False) as fresh:
        admin = Tenant.come(fresh)
        admin.grant_role("admin")

        assert "Backstay's own" in refusal(*APPLY, *admin.act, document=account(fresh))
        assert "forbidden" in refusal(*APPLY, *admin.act, document=binding(fresh))
        assert "Backstay's own" in refusal(*APPLY, *admin.act, document=binding(fresh, role="view"))


def test_the_admission_policies_fit_the_kinds_that_they_judge() -> None:
    for found in read("validatingadmissionpolicies")["items"]:
        if found["metadata"]["name"].startswith("backstay-"):
            checked = (found.get("status") or {}).get("typeChecking") or {}
            assert not checked.get("expressionWarnings"), found["metadata"]["name"]


# A namespace that nobody opened (these need the operator running)


def condition(kind: str, name: str, namespace: str, type_: str) -> Object | None:
    conditions = read(kind, name, f"--namespace={namespace}").get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == type_), None)


@pytest.mark.usefixtures("operator")
def test_a_namespace_that_is_not_enrolled_gets_a_clear_condition_and_nothing_of_it_is_read() -> None:
    with temporary_namespace("rights-closed", enrolled=False) as closed:
        for document in (storage(), policy(), backup(), restore()):
            kubectl("create", f"--namespace={closed}", "--filename=-", document=document)

        for kind, name, type_ in (
            ("backupstorage", "main", "Ready"),
            ("backuppolicy", "shop", "Ready"),
            ("backup", "now", "Succeeded"),
            ("restore", "shop", "Succeeded"),
        ):
            found = wait_for(lambda k=kind, n=name, t=type_: condition(k, n, closed, t), seconds=60)
            assert found["status"] != "True", (kind, found)
            assert found["reason"] == "NotEnrolled", (kind, found)
            assert f"kubectl label namespace {closed} backstay.dev/enrolled=true" in found["message"], (kind, found)
        names = [a["metadata"]["name"] for a in read("serviceaccounts", f"--namespace={closed}")["items"]]
        assert "backstay" not in names
        assert not can(f"system:serviceaccount:{closed}:backstay", "get", "secrets", closed, GROUP)


@pytest.mark.usefixtures("operator")
def test_enrolling_a_namespace_sets_the_work_going() -> None:
    with temporary_namespace("rights-opened", enrolled=False) as opened:
        kubectl("create", f"--namespace={opened}", "--filename=-", document=storage())
        wait_for(lambda: condition("backupstorage", "main", opened, "Ready"), seconds=60)
        before = time.monotonic()

        kubectl("label", "namespace", opened, "backstay.dev/enrolled=true")

        def refused_for_another_reason() -> Object | None:
            found = condition("backupstorage", "main", opened, "Ready")
            return found if found and found["reason"] != "NotEnrolled" else None

        found = wait_for(refused_for_another_reason, seconds=60)
        assert "password" in found["message"], found
        assert time.monotonic() - before < 60
        assert can(f"system:serviceaccount:{opened}:backstay", "get", "secrets", opened, GROUP)


@pytest.mark.usefixtures("operator")
def test_the_operator_runs_under_the_restricted_level_of_pod_security() -> None:
    level = "pod-security.kubernetes.io/enforce=restricted"

    said = kubectl("label", "--dry-run=server", "--overwrite", "namespace", OPERATOR_NAMESPACE, level)

    assert "violate" not in said
