"""The mover's Job and the temporary objects, as the API server gets them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from backstay.volumes.mover_job import build_mover_job
from backstay.volumes.snapshot_specs import build_snapshot, build_temporary_claim, quantity, temporary_name

OWNER = {"apiVersion": "backstay.dev/v1alpha1", "kind": "Backup", "name": "b", "uid": "u1", "controller": True}


@dataclass(frozen=True)
class Access:
    volumes: tuple = ({"name": "password", "secret": {"secretName": "pw"}},)
    volume_mounts: tuple = ({"name": "password", "mountPath": "/etc/backstay/password", "readOnly": True},)
    env: tuple = ({"name": "AWS_X", "value": "y"},)


@dataclass(frozen=True)
class Settings:
    image: str = "backstay:1"
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple = ("pull",)
    mover_resources: dict = field(default_factory=lambda: {"limits": {"memory": "1Gi"}})


def job(action="backup", run_as=None):
    return build_mover_job(
        OWNER,
        namespace="shop",
        name="j",
        storage="main",
        access=Access(),
        order={"action": action, "volumes": []},
        mounts=[("data", action == "backup"), ("more", action == "backup")],
        run_as=run_as or {"runAsUser": 999},
        placement={"nodeSelector": {"a": "b"}},
        settings=Settings(),
    )


def test_a_mover_has_no_token_no_links_and_the_restricted_security_level():
    spec = job()["spec"]["template"]["spec"]

    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["serviceAccountName"] == "default"
    assert "nodeName" not in spec
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["nodeSelector"] == {"a": "b"}
    assert spec["imagePullSecrets"] == [{"name": "pull"}]


@pytest.mark.parametrize(("action", "read_only"), [("backup", True), ("restore", False)])
def test_claims_are_mounted_in_order_and_sources_read_only_in_the_volume_itself(action, read_only):
    spec = job(action)["spec"]["template"]["spec"]

    assert [v for v in spec["volumes"] if "persistentVolumeClaim" in v] == [
        {"name": "claim-0", "persistentVolumeClaim": {"claimName": "data", "readOnly": read_only}},
        {"name": "claim-1", "persistentVolumeClaim": {"claimName": "more", "readOnly": read_only}},
    ]
    mounts = {m["name"]: m for m in spec["containers"][0]["volumeMounts"]}
    assert mounts["claim-1"] == {"name": "claim-1", "mountPath": "/volumes/1", "readOnly": read_only}
    assert mounts["tmp"]["mountPath"] == "/tmp"
    assert mounts["password"]["mountPath"] == "/etc/backstay/password"


def test_the_order_and_the_holder_of_locks_reach_the_mover_by_environment():
    env = {e["name"]: e for e in job()["spec"]["template"]["spec"]["containers"][0]["env"]}

    assert json.loads(env["BACKSTAY_ORDER"]["value"])["action"] == "backup"
    assert env["BACKSTAY_HOLDER"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.uid"
    assert env["AWS_X"]["value"] == "y"


def test_a_job_goes_with_its_owner_is_found_by_label_and_is_left_alone_by_meshes():
    made = job()

    assert made["metadata"]["ownerReferences"] == [OWNER]
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert labels["backstay.dev/owner-uid"] == "u1"
    assert labels["backstay.dev/component"] == "mover"
    assert labels["backstay.dev/storage"] == "main"
    assert labels["sidecar.istio.io/inject"] == "false"
    assert made["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [10]
    assert made["spec"]["podReplacementPolicy"] == "Failed"


def test_temporaries_have_the_same_name_on_every_try_and_another_for_every_owner():
    assert temporary_name("u1", "data") == temporary_name("u1", "data")
    assert temporary_name("u1", "data") != temporary_name("u2", "data")
    assert len(temporary_name("u1", "x" * 253)) <= 52  # the Job's pods add their suffix
    assert "." not in temporary_name("u1", "data.v1")


def test_a_temporary_claim_is_as_large_as_its_source_and_as_its_snapshot_needs():
    def size(capacity, restore_size):
        made = build_temporary_claim(OWNER, "data", storage_class="fast", capacity=capacity, restore_size=restore_size)
        return made["spec"]["resources"]["requests"]["storage"]

    assert size("1Gi", "500Mi") == "1Gi"
    assert size("1G", "1Gi") == "1Gi"
    assert size("1Gi", "") == "1Gi"


def test_a_temporary_claim_comes_from_the_snapshot_of_the_same_claim():
    snapshot = build_snapshot(OWNER, "data", "snap")
    claim = build_temporary_claim(OWNER, "data", storage_class="fast", capacity="1Gi", restore_size="")

    assert snapshot["spec"]["source"] == {"persistentVolumeClaimName": "data"}
    assert claim["spec"]["dataSource"]["name"] == snapshot["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


@pytest.mark.parametrize(
    ("text", "value"), [("", 0), ("12", 12), ("1Ki", 1024), ("1.5Gi", 1.5 * 2**30), ("2k", 2000), ("12e3", 12000)]
)
def test_quantities_are_read_as_kubernetes_reads_them(text, value):
    assert quantity(text) == value


def test_nonsense_is_no_quantity():
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity("much")
