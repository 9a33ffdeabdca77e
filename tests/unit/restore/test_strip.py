"""Each rule takes out what the source's cluster wrote, and nothing else."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from backstay.api.names import RESTORED_LABEL
from backstay.restore.strip import strip
from tests.unit.restore.objects import obj


def test_metadata_that_the_server_sets_goes_and_what_a_person_wrote_stays() -> None:
    stripped = strip(
        obj(
            "ConfigMap",
            "c",
            metadata={
                "uid": "u",
                "resourceVersion": "1",
                "generation": 2,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "managedFields": [{}],
                "selfLink": "/x",
                "ownerReferences": [{"uid": "o"}],
                "finalizers": ["example.com/absent"],
                "labels": {"app": "shop", RESTORED_LABEL: "old"},
                "annotations": {"note": "mine"},
            },
            data={"a": "b"},
            status={"x": 1},
        )
    )
    assert stripped == obj(
        "ConfigMap", "c", metadata={"labels": {"app": "shop"}, "annotations": {"note": "mine"}}, data={"a": "b"}
    )


def test_a_claim_loses_its_volume_its_node_and_its_origin() -> None:
    stripped = strip(
        obj(
            "PersistentVolumeClaim",
            "data",
            metadata={
                "annotations": {
                    "pv.kubernetes.io/bind-completed": "yes",
                    "pv.kubernetes.io/bound-by-controller": "yes",
                    "volume.beta.kubernetes.io/storage-provisioner": "d",
                    "volume.kubernetes.io/storage-provisioner": "d",
                    "volume.kubernetes.io/selected-node": "n",
                },
                "finalizers": ["kubernetes.io/pvc-protection"],
            },
            spec={"volumeName": "pv", "dataSource": {}, "dataSourceRef": {}, "accessModes": ["ReadWriteOnce"]},
            status={"phase": "Bound"},
        )
    )
    assert stripped == obj("PersistentVolumeClaim", "data", spec={"accessModes": ["ReadWriteOnce"]})


def service(spec: dict[str, Any], metadata: dict[str, Any] | None = None) -> Any:
    return strip(obj("Service", "web", metadata=metadata, spec=spec))["spec"]


CHOSEN = {
    "clusterIP": "10.0.0.1",
    "clusterIPs": ["10.0.0.1"],
    "ipFamilies": ["IPv4"],
    "ipFamilyPolicy": "SingleStack",
    "healthCheckNodePort": 30001,
    "ports": [{"port": 80, "nodePort": 30000}],
    "type": "LoadBalancer",
}


def test_a_service_loses_what_the_server_chose() -> None:
    assert service(copy.deepcopy(CHOSEN)) == {"ports": [{"port": 80}], "type": "LoadBalancer"}


def test_a_headless_service_stays_headless() -> None:
    assert service({"clusterIP": "None", "clusterIPs": ["None"], "ports": []}) == {"clusterIP": "None", "ports": []}


@pytest.mark.parametrize(
    "metadata",
    [
        {"managedFields": [{"fieldsV1": {"f:spec": {"f:ports": {'k:{"port":80}': {"f:nodePort": {}}}}}}]},
        {
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": json.dumps(
                    {"spec": {"ports": [{"nodePort": 30000}]}}
                )
            }
        },
    ],
    ids=["managed fields", "last applied configuration"],
)
def test_a_node_port_that_a_person_chose_stays(metadata: dict[str, Any]) -> None:
    assert service(copy.deepcopy(CHOSEN), metadata)["ports"] == [{"port": 80, "nodePort": 30000}]


def test_a_last_applied_annotation_that_is_no_json_tells_nothing() -> None:
    metadata = {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{nodePort"}}
    assert service(copy.deepcopy(CHOSEN), metadata)["ports"] == [{"port": 80}]


def test_a_job_loses_the_selector_and_labels_made_from_its_uid() -> None:
    generated = {"controller-uid": "u", "batch.kubernetes.io/controller-uid": "u", "job-name": "j", "app": "shop"}
    stripped = strip(
        obj(
            "Job",
            "j",
            "batch/v1",
            metadata={"labels": dict(generated), "annotations": {"batch.kubernetes.io/job-tracking": ""}},
            spec={"selector": {"matchLabels": {}}, "template": {"metadata": {"labels": dict(generated)}, "spec": {}}},
        )
    )
    assert stripped["spec"] == {"template": {"metadata": {"labels": {"app": "shop"}}, "spec": {}}}
    assert stripped["metadata"] == {"name": "j", "namespace": "shop", "labels": {"app": "shop"}}


def test_a_job_with_a_selector_of_its_own_keeps_it() -> None:
    spec = {"manualSelector": True, "selector": {"matchLabels": {"a": "b"}}, "template": {}}
    assert strip(obj("Job", "j", "batch/v1", spec=copy.deepcopy(spec)))["spec"] == spec


def test_an_account_loses_generated_secrets_only() -> None:
    stripped = strip(
        obj(
            "ServiceAccount",
            "web",
            secrets=[{"name": "web-token-x7k2p"}, {"name": "mine"}],
            imagePullSecrets=[{"name": "web-dockercfg-abcde"}],
        )
    )
    assert stripped == obj("ServiceAccount", "web", secrets=[{"name": "mine"}])


def test_a_pod_loses_node_token_and_what_admission_set() -> None:
    stripped = strip(
        obj(
            "Pod",
            "p",
            spec={
                "nodeName": "n",
                "priority": 0,
                "preemptionPolicy": "PreemptLowerPriority",
                "serviceAccount": "web",
                "serviceAccountName": "web",
                "tolerations": [
                    {
                        "key": "node.kubernetes.io/not-ready",
                        "operator": "Exists",
                        "effect": "NoExecute",
                        "tolerationSeconds": 300,
                    },
                    {"key": "mine", "operator": "Exists"},
                ],
                "volumes": [{"name": "kube-api-access-x"}, {"name": "data"}],
                "containers": [
                    {"name": "c", "volumeMounts": [{"name": "kube-api-access-x"}, {"name": "data"}]},
                    {"name": "d", "volumeMounts": [{"name": "kube-api-access-x"}]},
                ],
            },
        )
    )
    assert stripped["spec"] == {
        "serviceAccountName": "web",
        "tolerations": [{"key": "mine", "operator": "Exists"}],
        "volumes": [{"name": "data"}],
        "containers": [{"name": "c", "volumeMounts": [{"name": "data"}]}, {"name": "d"}],
    }


def test_a_deployment_loses_its_revision_and_keeps_the_last_applied_configuration() -> None:
    annotations = {"deployment.kubernetes.io/revision": "7", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    stripped = strip(obj("Deployment", "web", "apps/v1", metadata={"annotations": annotations}, spec={}))
    assert stripped["metadata"]["annotations"] == {"kubectl.kubernetes.io/last-applied-configuration": "{}"}


def test_a_stateful_sets_claim_templates_lose_their_status() -> None:
    template = {"metadata": {"name": "data", "creationTimestamp": None}, "spec": {}, "status": {"phase": "Pending"}}
    stripped = strip(obj("StatefulSet", "db", "apps/v1", spec={"volumeClaimTemplates": [template]}))
    assert stripped["spec"] == {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}


def test_a_token_secret_comes_back_empty() -> None:
    stripped = strip(
        obj(
            "Secret",
            "token",
            metadata={
                "annotations": {"kubernetes.io/service-account.name": "web", "kubernetes.io/service-account.uid": "u"}
            },
            type="kubernetes.io/service-account-token",
            data={"token": "x", "ca.crt": "y", "namespace": "z"},
        )
    )
    assert stripped["data"] == {}
    assert stripped["metadata"]["annotations"] == {"kubernetes.io/service-account.name": "web"}
