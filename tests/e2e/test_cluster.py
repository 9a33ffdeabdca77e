"""The test cluster keeps its promises: what the other end-to-end tests stand on."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster, State
from tests.cluster.commands import until
from tests.cluster.errors import CommandError
from tests.cluster.images import BUSYBOX_REFERENCE
from tests.cluster.s3 import SERVICE_ENDPOINT


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    found = Cluster()
    found.up()
    return found


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"cluster-test-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", name)
    until(
        "the namespace's default service account",
        lambda: bool(cluster.kubectl("get", "serviceaccount", "-n", name, "-o", "name")),
        seconds=10,
    )
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def claim(name: str, *, source: str = "", mode: str = "Filesystem", storage_class: str = "standard") -> str:
    """A claim's manifest; `source` is `VolumeSnapshot/name` or `PersistentVolumeClaim/name`."""
    spec: dict[str, object] = {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": mode,
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": "32Mi"}},
    }
    if source:
        kind, _, of = source.partition("/")
        spec["dataSource"] = {"kind": kind, "name": of}
        if kind == "VolumeSnapshot":
            spec["dataSource"] = {"apiGroup": "snapshot.storage.k8s.io", "kind": kind, "name": of}
    return json.dumps({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec})


def run_pod(
    cluster: Cluster,
    namespace: str,
    script: str,
    *,
    claims: tuple[str, ...] = (),
    device: str = "",
    restricted: bool = False,
) -> str:
    """Run a script in a pod to its end and return what it printed; claim `x` is mounted at /x, a device is /device."""
    name = f"pod-{secrets.token_hex(3)}"
    container: dict[str, object] = {
        "name": "main",
        "image": BUSYBOX_REFERENCE,
        "command": ["sh", "-ec", script],
        "volumeMounts": [{"name": c, "mountPath": f"/{c}"} for c in claims],
    }
    if device:
        container["volumeDevices"] = [{"name": device, "devicePath": "/device"}]
    if restricted:
        container["securityContext"] = {
            "runAsNonRoot": True,
            "runAsUser": 65534,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    volumes = [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in (*claims, *filter(None, [device]))]
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(pod))
    phase = ("get", "pod", name, "-n", namespace, "-o", "jsonpath={.status.phase}")
    until(f"{name} to end", lambda: cluster.kubectl(*phase) in ("Succeeded", "Failed"), seconds=40, every=0.3)
    printed = cluster.kubectl("logs", name, "-n", namespace)
    assert cluster.kubectl(*phase) == "Succeeded", printed
    cluster.kubectl("delete", "pod", name, "-n", namespace, "--wait=false")
    return printed


def apply(cluster: Cluster, namespace: str, manifest: str) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=manifest)


def snapshot(cluster: Cluster, namespace: str, name: str, of: str) -> None:
    """Cut a snapshot of a claim and wait until it can be used."""
    source = {"persistentVolumeClaimName": of}
    text = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name},
        "spec": {"volumeSnapshotClassName": "test-snapshots", "source": source},
    }
    apply(cluster, namespace, json.dumps(text))
    ready = "--for=jsonpath={.status.readyToUse}=true"
    cluster.kubectl("wait", "-n", namespace, f"volumesnapshot/{name}", ready, "--timeout=30s")


def test_a_second_up_reuses_the_healthy_cluster(cluster: Cluster) -> None:
    before = {process.name: process.pid for process in cluster.processes.all()}
    cluster.up()
    assert {process.name: process.pid for process in cluster.processes.all()} == before
    assert cluster.status().state is State.HEALTHY


def test_a_pod_reaches_the_s3_server_by_its_service_name(cluster: Cluster, namespace: str) -> None:
    # An anonymous request is refused by the server itself, which proves name, Service and route.
    printed = run_pod(cluster, namespace, f"wget -S -O- {SERVICE_ENDPOINT}/ 2>&1 || true")
    assert "403 Forbidden" in printed


def test_a_program_outside_a_pod_reaches_the_same_service_name(cluster: Cluster) -> None:
    printed = cluster.exec(["python3", "-c", "import socket; print(socket.gethostbyname('s3.object-store.svc'))"])
    assert printed.startswith("10.96.")


def test_a_snapshot_becomes_a_claim_with_the_data_of_its_moment(cluster: Cluster, namespace: str) -> None:
    apply(cluster, namespace, claim("data"))
    run_pod(cluster, namespace, "echo before > /data/file", claims=("data",))
    snapshot(cluster, namespace, "cut", of="data")
    run_pod(cluster, namespace, "echo after > /data/file", claims=("data",))
    apply(cluster, namespace, claim("restored", source="VolumeSnapshot/cut"))
    assert run_pod(cluster, namespace, "cat /restored/file", claims=("restored",)) == "before\n"


def test_a_clone_holds_its_sources_data(cluster: Cluster, namespace: str) -> None:
    apply(cluster, namespace, claim("data"))
    run_pod(cluster, namespace, "echo original > /data/file", claims=("data",))
    apply(cluster, namespace, claim("copy", source="PersistentVolumeClaim/data"))
    assert run_pod(cluster, namespace, "cat /copy/file", claims=("copy",)) == "original\n"


def test_a_block_claim_is_a_device_that_keeps_its_bytes(cluster: Cluster, namespace: str) -> None:
    apply(cluster, namespace, claim("disk", mode="Block"))
    run_pod(cluster, namespace, "echo raw bytes | dd of=/device bs=512 conv=sync,fsync", device="disk")
    assert run_pod(cluster, namespace, "head -c 9 /device", device="disk") == "raw bytes"


def test_a_full_volume_says_so(cluster: Cluster, namespace: str) -> None:
    apply(cluster, namespace, claim("small"))
    printed = run_pod(cluster, namespace, "dd if=/dev/zero of=/small/fill bs=1M 2>&1 || true", claims=("small",))
    assert "No space left on device" in printed


def test_storage_without_snapshots_still_holds_data(cluster: Cluster, namespace: str) -> None:
    apply(cluster, namespace, claim("plain", storage_class="plain"))
    run_pod(cluster, namespace, "echo kept > /plain/file", claims=("plain",))
    assert run_pod(cluster, namespace, "cat /plain/file", claims=("plain",)) == "kept\n"


def test_pod_security_refuses_what_the_restricted_level_forbids(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    with pytest.raises(CommandError, match="violates PodSecurity"):
        run_pod(cluster, namespace, "true")
    assert run_pod(cluster, namespace, "id -u", restricted=True) == "65534\n"
