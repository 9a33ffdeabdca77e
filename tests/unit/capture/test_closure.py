"""The selected objects and what they lead to."""

from __future__ import annotations

from backstay.api.meta import LabelSelector
from backstay.capture.closure import complete
from backstay.capture.selection import Selection, selector_text
from backstay.kube.errors import ForbiddenError
from backstay.kube.resource import CLAIMS, CONFIG_MAPS, DEPLOYMENTS, PODS, ROLE_BINDINGS, ROLES, SECRETS


class Namespace:
    """A namespace's objects by kind and name; a Secret named `locked` may not be read."""

    def __init__(self, *objects):
        self.objects = {(obj["kind"], obj["metadata"]["name"]): obj for obj in objects}

    def find(self, resource, name, namespace=""):
        if name == "locked":
            raise ForbiddenError("get Secret", 403, "Forbidden", "no rights")
        return self.objects.get((resource.kind, name))

    def list(self, resource, namespace="", labels=""):
        return [obj for (kind, _), obj in self.objects.items() if kind == resource.kind]


def obj(kind, name, **fields):
    return {"kind": kind, "metadata": {"name": name, "managedFields": [1]}, **fields}


def bound(account):
    return {"kind": "ServiceAccount", "name": account}


def deployment(**spec):
    return obj("Deployment", "web", spec={"template": {"spec": {"serviceAccountName": "web", **spec}}})


def selection(*objects, bystanders=()):
    return Selection(objects, tuple(bystanders), ())


def reasons(closure):
    return {f"{one.resource.kind}/{one.object['metadata']['name']}": one.reason for one in closure.objects}


def test_references_are_followed_to_their_end_and_each_object_knows_why_it_is_there():
    namespace = Namespace(
        obj("ConfigMap", "config"),
        obj("ServiceAccount", "web", imagePullSecrets=[{"name": "pull"}]),
        obj("Secret", "pull"),
        obj(
            "RoleBinding",
            "b",
            roleRef={"kind": "Role", "name": "r"},
            subjects=[{"kind": "ServiceAccount", "name": "web"}],
        ),
        obj("RoleBinding", "of-others", roleRef={}, subjects=[bound("x")]),
        obj("Role", "r"),
    )
    volumes = [{"configMap": {"name": "config"}}]

    closure = complete(selection((DEPLOYMENTS, deployment(volumes=volumes))), namespace, "shop")

    assert reasons(closure) == {
        "Deployment/web": "selected by label",
        "ConfigMap/config": "referenced by Deployment web",
        "ServiceAccount/web": "referenced by Deployment web",
        "Secret/pull": "referenced by ServiceAccount web",
        "RoleBinding/b": "gives rights to ServiceAccount web",
        "Role/r": "referenced by RoleBinding b",
    }
    assert closure.warnings == ()
    assert {one.resource.plural for one in closure.objects} >= {ROLES.plural, ROLE_BINDINGS.plural}
    assert not any("managedFields" in one.object["metadata"] for one in closure.objects)


def test_what_is_missing_or_may_not_be_read_is_told_unless_it_is_optional():
    volumes = [
        {"configMap": {"name": "gone"}},
        {"configMap": {"name": "perhaps", "optional": True}},
        {"secret": {"secretName": "locked"}},
    ]
    found = selection((DEPLOYMENTS, deployment(volumes=volumes)))

    closure = complete(found, Namespace(obj("ServiceAccount", "web")), "shop")

    assert closure.warnings == (
        "ConfigMap gone, referenced by Deployment web, does not exist",
        "Secret locked, referenced by Deployment web, was not captured: no rights",
    )


def test_a_storages_secret_is_kept_back_and_only_told_when_somebody_refers_to_it():
    secret = obj("Secret", "s3")
    namespace = Namespace(secret, obj("ServiceAccount", "web"))
    volumes = [{"secret": {"secretName": "s3"}}]

    selected = complete(selection((SECRETS, secret)), namespace, "shop", kept_back={"s3": "main"})
    referenced = complete(
        selection((DEPLOYMENTS, deployment(volumes=volumes))), namespace, "shop", kept_back={"s3": "main"}
    )

    assert (selected.objects, selected.warnings) == ((), ())
    assert "Secret/s3" not in reasons(referenced)
    assert "BackupStorage main keeps its own in it" in referenced.warnings[0]


def test_pods_of_controllers_are_not_captured_but_what_they_mount_is():
    pod = obj("Pod", "web-1", spec={"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]})
    namespace = Namespace(obj("PersistentVolumeClaim", "data"))

    closure = complete(selection(bystanders=[(PODS, pod)]), namespace, "shop")

    assert reasons(closure) == {"PersistentVolumeClaim/data": "referenced by Pod web-1"}
    assert closure.objects[0].resource == CLAIMS


def test_what_kubernetes_puts_into_every_namespace_is_left_out_silently():
    namespace = Namespace(obj("ConfigMap", "kube-root-ca.crt"), obj("ServiceAccount", "web"))
    volumes = [{"projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}}]

    closure = complete(selection((DEPLOYMENTS, deployment(volumes=volumes))), namespace, "shop")

    assert set(reasons(closure)) == {"Deployment/web", "ServiceAccount/web"}
    assert closure.warnings == ()


def test_an_object_selected_and_referenced_is_there_once():
    config = obj("ConfigMap", "config")
    chosen = selection((CONFIG_MAPS, config), (DEPLOYMENTS, deployment(volumes=[{"configMap": {"name": "config"}}])))

    closure = complete(chosen, Namespace(config, obj("ServiceAccount", "web")), "shop")

    assert reasons(closure)["ConfigMap/config"] == "selected by label"
    assert len(closure.objects) == 3


def test_a_selector_is_sent_as_the_api_server_reads_it():
    requirement = LabelSelector.Requirement
    selector = LabelSelector(
        match_labels={"app": "shop"},
        match_expressions=(
            requirement("tier", "In", ("a", "b")),
            requirement("env", "NotIn", ("dev",)),
            requirement("x", "Exists"),
            requirement("y", "DoesNotExist"),
        ),
    )

    assert selector_text(selector) == "app=shop,tier in (a,b),env notin (dev),x,!y"
    assert selector_text(None) == ""
