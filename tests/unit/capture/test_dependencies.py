"""What objects refer to."""

from __future__ import annotations

import pytest

from backstay.capture.dependencies import binds, needs_of


def names(obj, claims=(), *, optional=None):
    return sorted(
        f"{need.resource.kind}/{need.name}"
        for need in needs_of(obj, claims)
        if optional is None or need.optional == optional
    )


def pod(**spec):
    return {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"serviceAccountName": "web", **spec}}


@pytest.mark.parametrize(
    ("spec", "needed"),
    [
        ({"volumes": [{"configMap": {"name": "a"}}]}, "ConfigMap/a"),
        ({"volumes": [{"secret": {"secretName": "a"}}]}, "Secret/a"),
        ({"volumes": [{"projected": {"sources": [{"configMap": {"name": "a"}}]}}]}, "ConfigMap/a"),
        ({"volumes": [{"projected": {"sources": [{"secret": {"name": "a"}}]}}]}, "Secret/a"),
        ({"volumes": [{"persistentVolumeClaim": {"claimName": "a"}}]}, "PersistentVolumeClaim/a"),
        ({"volumes": [{"csi": {"driver": "d", "nodePublishSecretRef": {"name": "a"}}}]}, "Secret/a"),
        ({"imagePullSecrets": [{"name": "a"}]}, "Secret/a"),
        ({"containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "a", "key": "k"}}}]}]}, "Secret/a"),
        ({"containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}}}]}]}, "ConfigMap/a"),
        ({"initContainers": [{"envFrom": [{"secretRef": {"name": "a"}}]}]}, "Secret/a"),
        ({"containers": [{"envFrom": [{"configMapRef": {"name": "a"}}]}]}, "ConfigMap/a"),
    ],
)
@pytest.mark.parametrize("wrap", ["Pod", "Deployment", "CronJob"])
def test_a_pod_wherever_it_is_written_needs_what_it_mounts_and_reads(spec, needed, wrap):
    obj = pod(**spec)
    if wrap == "Deployment":
        obj = {"kind": wrap, "metadata": {"name": "d"}, "spec": {"template": {"spec": obj["spec"]}}}
    if wrap == "CronJob":
        template = {"spec": {"template": {"spec": obj["spec"]}}}
        obj = {"kind": wrap, "metadata": {"name": "d"}, "spec": {"jobTemplate": template}}

    assert names(obj) == sorted([needed, "ServiceAccount/web"])


def test_optional_references_may_be_absent_unless_required_elsewhere():
    optional = {"configMap": {"name": "a", "optional": True}}
    required = {"envFrom": [{"configMapRef": {"name": "a"}}]}

    assert names(pod(volumes=[optional]), optional=True) == ["ConfigMap/a"]
    assert names(pod(volumes=[optional], containers=[required]), optional=True) == []


def test_a_stateful_set_needs_the_claims_that_its_templates_made():
    obj = {
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {"template": {"spec": {}}, "volumeClaimTemplates": [{"metadata": {"name": "data"}}]},
    }
    claims = ["data-db-0", "data-db-11", "data-db-x", "data-other-0", "xdata-db-0"]

    assert names(obj, claims, optional=False) == ["PersistentVolumeClaim/data-db-0", "PersistentVolumeClaim/data-db-11"]


def test_the_account_of_every_namespace_need_not_be_there():
    assert names({"kind": "Pod", "metadata": {"name": "p"}, "spec": {}}, optional=True) == ["ServiceAccount/default"]


@pytest.mark.parametrize(
    ("obj", "needed"),
    [
        ({"kind": "Ingress", "spec": {"tls": [{"secretName": "tls"}, {"hosts": ["x"]}]}}, ["Secret/tls"]),
        ({"kind": "RoleBinding", "roleRef": {"kind": "Role", "name": "r"}}, ["Role/r"]),
        ({"kind": "RoleBinding", "roleRef": {"kind": "ClusterRole", "name": "view"}}, []),
        ({"kind": "ServiceAccount", "imagePullSecrets": [{"name": "pull"}]}, ["Secret/pull"]),
        ({"kind": "ConfigMap", "data": {}}, []),
    ],
)
def test_other_kinds_need_what_they_name(obj, needed):
    assert names({"metadata": {"name": "x"}, **obj}) == needed


@pytest.mark.parametrize(
    ("subject", "bound"),
    [
        ({"kind": "ServiceAccount", "name": "web", "namespace": "shop"}, True),
        ({"kind": "ServiceAccount", "name": "web", "namespace": "other"}, False),
        ({"kind": "User", "name": "web"}, False),
    ],
)
def test_a_binding_counts_for_the_accounts_that_it_names(subject, bound):
    assert binds({"subjects": [subject]}, "web", "shop") is bound
