"""What is never captured."""

from __future__ import annotations

import pytest

from backstay.capture.skipped import RULES, is_listed, skip_reason, storage_secrets
from backstay.kube.resource import (
    BACKUPS,
    CLAIMS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    LEASES,
    NODES,
    PODS,
    POLICIES,
    REPLICA_SETS,
    RESTORES,
    SECRETS,
    SERVICE_ACCOUNTS,
    STORAGES,
    VOLUME_SNAPSHOTS,
    Resource,
)

ENDPOINTS = Resource("", "v1", "Endpoints", "endpoints")
SLICES = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")


def obj(name="x", *, owner="", **fields):
    metadata = {"name": name}
    for key in ("labels", "annotations"):
        if key in fields:
            metadata[key] = fields.pop(key)
    if owner:
        metadata["ownerReferences"] = [{"kind": owner, "name": "o", "controller": True}]
    return {"metadata": metadata, **fields}


@pytest.mark.parametrize("resource", [EVENTS, LEASES, NODES, BACKUPS, RESTORES, VOLUME_SNAPSHOTS])
def test_kinds_that_are_no_part_of_any_application_are_not_listed(resource):
    assert not is_listed(resource)


@pytest.mark.parametrize("resource", [PODS, SECRETS, DEPLOYMENTS, STORAGES, POLICIES])
def test_kinds_of_which_some_objects_count_are_listed(resource):
    assert is_listed(resource)


@pytest.mark.parametrize(
    ("resource", "skipped"),
    [
        (PODS, obj(owner="ReplicaSet")),
        (PODS, obj(annotations={"kubernetes.io/config.mirror": "x"})),
        (REPLICA_SETS, obj(owner="Deployment")),
        (JOBS, obj(owner="CronJob")),
        (CLAIMS, obj(owner="Pod")),
        (SECRETS, obj(type="kubernetes.io/service-account-token")),
        (CONFIG_MAPS, obj("kube-root-ca.crt")),
        (SERVICE_ACCOUNTS, obj("default")),
        (SERVICE_ACCOUNTS, obj("backstay", labels={"backstay.dev/component": "account"})),
        (CLAIMS, obj(labels={"backstay.dev/component": "temporary"})),
        (ENDPOINTS, obj(annotations={"endpoints.kubernetes.io/last-change-trigger-time": "t"})),
        (SLICES, obj(owner="Service")),
    ],
)
def test_what_comes_back_by_itself_is_skipped_with_a_reason(resource, skipped):
    assert skip_reason(resource, skipped)


@pytest.mark.parametrize(
    ("resource", "captured"),
    [
        (PODS, obj()),
        (REPLICA_SETS, obj()),
        (JOBS, obj()),
        (CLAIMS, obj(owner="StatefulSet")),
        (SECRETS, obj(type="Opaque")),
        (SERVICE_ACCOUNTS, obj("default", imagePullSecrets=[{"name": "pull"}])),
        (SERVICE_ACCOUNTS, obj("web")),
        (ENDPOINTS, obj("by-hand")),
        (SLICES, obj("by-hand")),
        (STORAGES, obj()),
    ],
)
def test_what_somebody_wanted_is_captured(resource, captured):
    assert skip_reason(resource, captured) == ""


def test_every_rule_says_why():
    assert all(rule.reason for rule in RULES)


def test_the_secrets_that_open_storages_are_known():
    storage = {
        "metadata": {"name": "main"},
        "spec": {
            "s3": {"credentialsSecretRef": {"name": "s3"}, "caSecretRef": {"name": "ca", "key": "ca.crt"}},
            "passwordSecretRef": {"name": "pw"},
        },
    }

    assert storage_secrets([storage]) == {"s3": "main", "ca": "main", "pw": "main"}
