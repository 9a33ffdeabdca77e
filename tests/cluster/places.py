"""Where the test cluster keeps things: its state, which `down` deletes, and its cache, which stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Final

NAME: Final = os.environ.get("BACKSTAY_CLUSTER", "backstay")
"""Of the network namespace and the control group; another name is another cluster, beside the first."""

PACKAGE: Final = Path(__file__).resolve().parent
REPOSITORY: Final = PACKAGE.parent.parent
GO_MODULES: Final = PACKAGE / "go"
MANIFESTS: Final = PACKAGE / "manifests"


@dataclass(frozen=True)
class Places:
    """The folders of one cluster.

    Attributes:
        state: everything that lives as long as the cluster does.
        cache: built programs and images, shared by all checkouts on the machine.
        lock: serialises `up` and `down`; outside the state, because `down` deletes that.
    """

    state: Path = Path(f"/var/lib/{NAME}-cluster")
    cache: Path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "backstay" / "cluster"
    lock: Path = Path(f"/run/lock/{NAME}-cluster.lock")

    @property
    def bin(self) -> Path:
        """Links to the programs of the running cluster."""
        return self.state / "bin"

    @property
    def logs(self) -> Path:
        return self.state / "log"

    @property
    def records(self) -> Path:
        """One file a started process."""
        return self.state / "processes"

    @property
    def kubeconfig(self) -> Path:
        """The cluster admin's."""
        return self.state / "credentials" / "admin.conf"

    @property
    def containerd_socket(self) -> Path:
        return self.state / "containerd" / "containerd.sock"

    @property
    def kubelet(self) -> Path:
        return self.state / "kubelet"

    @property
    def volumes(self) -> Path:
        """What the CSI drivers keep."""
        return self.state / "volumes"

    @property
    def version_file(self) -> Path:
        """Written last by `up`: it names the Kubernetes version, and its presence says that `up` finished."""
        return self.state / "version"


MACHINE: Final = Places()
"""The places of this machine's one cluster."""


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold a file lock; whoever comes second waits. The kernel releases it when the holder dies."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        flock(file, LOCK_EX)
        yield


@contextmanager
def making(artifact: Path) -> Iterator[bool]:
    """Enter the making of a cached file or folder; yields whether it is still to be made.

    Whoever finds it there never waits, also while something else is being made for minutes. Of two who miss it one
    makes it, and the other waits and then finds it. It must appear by rename, so that it is whole or absent.
    """
    if artifact.exists():
        yield False
        return
    with held(artifact.with_name(f".{artifact.name}.lock")):
        yield not artifact.exists()
