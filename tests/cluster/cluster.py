"""The cluster as one thing: up, down, and the ways into it that tests and the demo use."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from tests.cluster import controlplane, csi, dns, images, leftovers, network, node, programs, toolchain, versions
from tests.cluster.commands import run, say, until
from tests.cluster.credentials import NODE_NAME, Credentials
from tests.cluster.errors import ClusterError, CommandError
from tests.cluster.places import MACHINE, MANIFESTS, Places, held
from tests.cluster.processes import Processes
from tests.cluster.s3 import ENDPOINT, ObjectStore

_HOW_TO_REPLACE: Final = "run `python -m tests.cluster down`, then `up`"


class State(Enum):
    """What there is of a cluster."""

    ABSENT = "absent"
    HEALTHY = "healthy"
    DEAD = "dead"
    """All its programs have ended, as after a reboot; only files and mounts are left."""
    BROKEN = "broken"


@dataclass(frozen=True)
class Status:
    """The cluster's state, its Kubernetes version where known, and what is wrong where something is."""

    state: State
    version: str = ""
    problems: tuple[str, ...] = ()


class Cluster:
    """The one cluster of this machine."""

    def __init__(self, places: Places = MACHINE) -> None:
        self.places = places
        self.s3 = ObjectStore(places)
        self.processes = Processes(places)
        self._credentials = Credentials(places)

    def up(self, version: str | None = None) -> None:
        """Make the cluster run: build what is missing, reuse a healthy one, replace a dead one.

        Args:
            version: of Kubernetes; where None, that of the cluster that is up, else the pinned one.

        Raises:
            ClusterError: one is there that is neither healthy nor dead, or of another version; or the start fails.
        """
        toolchain.require_root()
        toolchain.ensure_packages()
        version = version or self.status().version or versions.KUBERNETES
        built = self.build(version)
        with held(self.places.lock):
            found = self.status()
            if found.state is State.HEALTHY and found.version == version:
                say(f"Kubernetes {version} is up already and healthy: reused")
                return
            if found.state is State.HEALTHY:
                raise ClusterError(f"a cluster of Kubernetes {found.version} is up, not {version}: {_HOW_TO_REPLACE}")
            if found.state is State.BROKEN:
                raise ClusterError(f"a broken cluster is there ({'; '.join(found.problems)}): {_HOW_TO_REPLACE}")
            if found.state is State.DEAD:
                say("removing what an ended cluster left")
                leftovers.remove(self.places)
            start = time.monotonic()
            try:
                self._start(built)
            except BaseException:
                say(f"the start failed; logs are in {self.places.logs}, and `down` removes the rest")
                raise
            self.places.version_file.write_text(version)
            say(f"Kubernetes {version} is up after {time.monotonic() - start:.1f} s")

    def down(self) -> None:
        """Stop the cluster and remove all that is left of one; nothing happens where there is none."""
        toolchain.require_root()
        with held(self.places.lock):
            if not leftovers.exist(self.places):
                say("no cluster is there")
                return
            start = time.monotonic()
            leftovers.remove(self.places)
            say(f"the cluster is gone after {time.monotonic() - start:.1f} s")

    def build(self, version: str = versions.KUBERNETES) -> programs.Programs:
        """Build all programs and images that the cache lacks."""
        built = programs.build(version, self.places)
        toolchain.wheel_program(versions.SEAWEEDFS_PACKAGE, "weed", self.places)
        self._own_images(built)
        return built

    def status(self) -> Status:
        """Look at what there is; changes nothing."""
        if not leftovers.exist(self.places):
            return Status(State.ABSENT)
        recorded = self.processes.all()
        if not any(process.alive for process in recorded):
            return Status(State.DEAD, problems=("none of its programs runs",))
        problems = [f"{process.name} has ended" for process in recorded if not process.alive]
        if not self.places.version_file.exists():
            return Status(State.BROKEN, problems=(*problems, "its start did not finish"))
        version = self.places.version_file.read_text()
        if not problems and not self._node_ready():
            problems.append("the API server does not answer, or the node is not Ready")
        return Status(State.BROKEN if problems else State.HEALTHY, version, tuple(problems))

    def kubectl(self, *words: str | Path, input: str | None = None, timeout: float = 120) -> str:
        """Run kubectl as the cluster's admin and return what it printed.

        Raises:
            CommandError: it ended with an error, or took longer than `timeout` seconds.
        """
        command = [self.places.bin / "kubectl", f"--kubeconfig={self.places.kubeconfig}", *words]
        return run(network.inside(command), input=input, timeout=timeout)

    def apply(self, manifest: str) -> None:
        """Create or change the objects of a YAML text."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=manifest)

    def exec(self, command: Sequence[str | Path], *, input: str | None = None, timeout: float | None = None) -> str:
        """Run a program in the cluster's network, as `exec` on the command line does, and return what it printed."""
        return run(self.inside(command), input=input, env=self.environment(), timeout=timeout)

    def popen(self, command: Sequence[str | Path], **options: object) -> subprocess.Popen[bytes]:
        """Start a program in the cluster's network; options are those of subprocess.Popen."""
        return subprocess.Popen(self.inside(command), env=self.environment(), **options)  # type: ignore[call-overload,no-any-return]

    def inside(self, command: Sequence[str | Path]) -> list[str]:
        """The command that runs `command` in the cluster's network, where Service names resolve as in a pod."""
        resolver = self.places.state / "resolv.conf"
        script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        # A slave: unmounts of the cluster's volumes must reach it, or it would hold them while it runs.
        private = ["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", script, str(resolver)]
        return network.inside([*private, *command])

    def environment(self) -> dict[str, str]:
        """Environment of a program in the cluster's network: ours, and how to reach the API and the S3 server."""
        if not self.places.version_file.exists():
            raise ClusterError("no cluster is up: run `python -m tests.cluster up`")
        keys = self.s3.keys
        return {
            **os.environ,
            "PATH": f"{self.places.bin}:{os.environ.get('PATH', toolchain.SYSTEM_PATH)}",
            "KUBECONFIG": str(self.places.kubeconfig),
            "BACKSTAY_S3_ENDPOINT": ENDPOINT,
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def load(self, archive: str | os.PathLike[str]) -> list[str]:
        """Import a docker-archive and return the references of its images."""
        return node.load_image(Path(archive), self._linked(), self.places)

    def has_image(self, reference: str) -> bool:
        """Whether pods can use an image already."""
        return bool(node.ctr(["images", "list", "--quiet", f"name=={reference}"], self._linked(), self.places).strip())

    def create_bucket(self, name: str) -> None:
        """Make an S3 bucket; one that exists stays as it is."""
        self.s3.create_bucket(name, self._weed())

    def _start(self, built: programs.Programs) -> None:
        self._make_state_folder(built)
        network.create()
        self._credentials.create()
        processes, credentials, places = self.processes, self._credentials, self.places
        self.s3.start(processes, self._weed())
        controlplane.start_apiserver(processes, built, credentials, places)
        node.start_containerd(processes, built, places)
        for image in self._own_images(built):
            node.load_image(image.archive, built, places)
        controlplane.await_apiserver(processes, built, places)
        controlplane.start_controllers(processes, built, credentials)
        node.start_kubelet(processes, built, credentials, places)
        dns.start(processes, built, credentials, places)
        kinds = [word for file in csi.snapshot_kinds(places) for word in ("-f", file)]
        self.kubectl("apply", "--server-side", *kinds, "-f", MANIFESTS / "services.yaml")
        self.kubectl("wait", "--for=condition=Established", "--timeout=20s", *kinds)
        csi.start(processes, built, credentials, places)
        self.kubectl("apply", "--server-side", "-f", MANIFESTS / "storage.yaml")
        self.s3.await_ready(processes, self._weed())
        until("the node, its CSI drivers and the default service account", self._usable, seconds=60, every=0.2)

    def _make_state_folder(self, built: programs.Programs) -> None:
        state = self.places.state
        state.mkdir(parents=True)
        # Shared, as a node's root is where systemd runs: mounts that pods' volumes make reach everyone, and so do
        # their unmounts. A process in a mount namespace of its own would hold a removed volume otherwise.
        run(["mount", "--bind", state, state])
        run(["mount", "--make-shared", state])
        self.places.bin.mkdir()
        for name, path in {**built.paths, "weed": self._weed()}.items():
            if path.parent != built.cni_folder:  # on PATH its `bridge` would hide the system's
                (self.places.bin / name).symlink_to(path)

    def _usable(self) -> bool:
        self.processes.require_alive()
        try:
            drivers = self.kubectl("get", "csinode", NODE_NAME, "-o", "jsonpath={.spec.drivers[*].name}")
            self.kubectl("get", "serviceaccount", "default", "-n", "default")
        except CommandError:
            return False
        return {csi.DRIVER, csi.PLAIN_DRIVER} <= set(drivers.split()) and self._node_ready() and self._resolves()

    def _node_ready(self) -> bool:
        path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        try:
            return self.kubectl("get", "node", NODE_NAME, "--request-timeout=5s", "-o", path, timeout=10) == "True"
        except CommandError:
            return False

    def _resolves(self) -> bool:
        """Whether Services and DNS work: the question goes through kube-proxy's rules to CoreDNS."""
        busybox = next(toolchain.package_files("busybox-static", self.places).glob("**/bin/busybox"))
        try:
            name = f"s3.object-store.svc.{network.DOMAIN}"
            run(network.inside([busybox, "nslookup", name, network.DNS_SERVICE]), timeout=3)
        except CommandError:
            return False
        return True

    def _own_images(self, built: programs.Programs) -> list[images.Image]:
        return [images.pause_image(built["pause"], self.places), images.busybox_image(self.places)]

    def _weed(self) -> Path:
        return toolchain.wheel_program(versions.SEAWEEDFS_PACKAGE, "weed", self.places)

    def _linked(self) -> programs.Programs:
        """The programs of the running cluster, whatever version it is."""
        return programs.Programs({link.name: link.resolve() for link in self.places.bin.iterdir()})
