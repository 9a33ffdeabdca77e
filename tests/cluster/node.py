"""The node: containerd, the pod network's configuration, kubelet and kube-proxy."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from tests.cluster import cgroups, network
from tests.cluster.commands import run, until
from tests.cluster.credentials import NODE_NAME, Credentials
from tests.cluster.errors import ClusterError, CommandError
from tests.cluster.images import PAUSE_REFERENCE
from tests.cluster.places import NAME, Places
from tests.cluster.processes import Processes
from tests.cluster.programs import Programs


def start_containerd(processes: Processes, programs: Programs, places: Places) -> None:
    """Start containerd and wait until it takes images."""
    folder = places.state / "containerd"
    (folder / "networks").mkdir(parents=True)
    (folder / "networks" / "10-bridge.conflist").write_text(json.dumps(_pod_network(folder), indent=1))
    (folder / "config.toml").write_text(_containerd_config(folder, programs))
    processes.start("containerd", [programs["containerd"], "--config", folder / "config.toml"])

    def answers() -> bool:
        processes.require_alive()
        try:
            return places.containerd_socket.exists() and bool(ctr(["version"], programs, places))
        except CommandError:
            return False

    until("containerd to answer", answers, seconds=30)


def ctr(words: list[str | Path], programs: Programs, places: Places) -> str:
    """Run containerd's own client in the namespace that kubelet uses."""
    return run([programs["ctr"], "--address", places.containerd_socket, "--namespace", "k8s.io", *words])


def load_image(archive: Path, programs: Programs, places: Places) -> list[str]:
    """Import a docker-archive and return the references that it brought."""
    printed = ctr(["images", "import", "--local", archive], programs, places)
    return re.findall(r"^unpacking (\S+) ", printed, re.MULTILINE)


def start_kubelet(processes: Processes, programs: Programs, credentials: Credentials, places: Places) -> None:
    """Start kubelet and kube-proxy."""
    cgroups.create()
    (places.kubelet / "plugins_registry").mkdir(parents=True)
    resolver = places.state / "resolv.conf"
    resolver.write_text(f"nameserver {network.NODE_ADDRESS}\nsearch svc.{network.DOMAIN} {network.DOMAIN}\n")
    config = places.kubelet / "config.json"
    config.write_text(json.dumps(_kubelet_config(places, resolver), indent=1))
    processes.start(
        "kubelet",
        [
            programs["kubelet"],
            f"--config={config}",
            f"--kubeconfig={credentials.kubeconfig('kubelet')}",
            f"--root-dir={places.kubelet}",
            f"--cert-dir={places.kubelet / 'pki'}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={network.NODE_ADDRESS}",
        ],
    )
    processes.start(
        "proxy",
        [
            programs["kube-proxy"],
            f"--kubeconfig={credentials.kubeconfig('proxy')}",
            f"--hostname-override={NODE_NAME}",
            f"--cluster-cidr={network.POD_RANGE}",
            "--proxy-mode=iptables",
            # Two pods on one bridge answer each other past iptables unless the node stands between them.
            "--masquerade-all",
            "--conntrack-max-per-core=0",  # the table's size is the host's, and not ours to set
            "--conntrack-min=0",
        ],
    )


def _pod_network(folder: Path) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "ranges": [
            [
                {
                    "subnet": network.POD_RANGE,
                    "rangeStart": network.FIRST_POD,
                    "rangeEnd": network.LAST_POD,
                    "gateway": network.NODE_ADDRESS,
                }
            ]
        ],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(folder / "addresses"),
    }
    bridge = {"type": "bridge", "bridge": network.BRIDGE, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}


def _containerd_config(folder: Path, programs: Programs) -> str:
    runc = shutil.which("runc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if not runc:
        raise ClusterError("no runc in /usr/sbin although its package is installed: reinstall the Debian package runc")
    return f"""\
version = 3
root = "{folder}/root"
state = "{folder}/state"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_REFERENCE}"
[plugins."io.containerd.cri.v1.runtime"]
# Root in a container may lack CAP_SYS_RESOURCE, which lowering the score needs.
restrict_oom_score_adj = true
# Pods' network namespaces lie in our state folder, where `down` finds them.
netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{programs.cni_folder}"]
conf_dir = "{folder}/networks"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false
"""


def _kubelet_config(places: Places, resolver: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # The network namespace is closed, so whoever reaches kubelet is root on this machine already.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{places.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{NAME}",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDomain": network.DOMAIN,
        "clusterDNS": [network.DNS_SERVICE],
        "resolvConf": str(resolver),
        "podLogsDir": str(places.state / "pods"),
        "volumePluginDir": str(places.kubelet / "volume-plugins"),
        # A developer's disk may be nearly full without being too full for tests.
        "evictionHard": {"nodefs.available": "1Mi", "imagefs.available": "1Mi", "memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,  # no image can be pulled again once it is collected
        "localStorageCapacityIsolation": True,  # without it there are no volume statistics
        "serializeImagePulls": False,
        "maxPods": 200,
        "registerNode": True,
    }
