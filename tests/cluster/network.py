"""The cluster's network: one namespace without an uplink, with a bridge that carries the node and its pods.

Pod and service addresses therefore never leave the machine, and cannot collide with a real network.
Nothing here uses `ip netns exec`: that remounts /sys, and kubelet then finds no cgroups.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.cluster.commands import run
from tests.cluster.places import NAME

NAMESPACE: Final = NAME
NODE_ADDRESS: Final = "10.77.0.1"
POD_RANGE: Final = "10.77.0.0/16"
FIRST_POD: Final = "10.77.1.0"
LAST_POD: Final = "10.77.250.0"
SERVICE_RANGE: Final = "10.96.0.0/16"
KUBERNETES_SERVICE: Final = "10.96.0.1"
DNS_SERVICE: Final = "10.96.0.10"
BRIDGE: Final = "cni0"
DOMAIN: Final = "cluster.local"

_HANDLE: Final = Path("/run/netns") / NAMESPACE


def exists() -> bool:
    return _HANDLE.exists()


def inside(command: Sequence[str | Path]) -> list[str]:
    """The command that runs `command` in the namespace; nsenter replaces itself by it, so the process id stays."""
    return ["nsenter", f"--net={_HANDLE}", "--", *(str(word) for word in command)]


def create() -> None:
    """Make the namespace with loopback, bridge, node address and a default route.

    The route leads nowhere, but kubelet and kube-proxy look up the node's address by it.
    """
    run(["ip", "netns", "add", NAMESPACE])
    settings = (
        "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter;"
        # Duplicate address detection would delay each pod's interface by a second.
        "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6 2>/dev/null || true"
    )
    run(inside(["sh", "-c", settings]))
    for words in (
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"address add {NODE_ADDRESS}/{POD_RANGE.split('/')[1]} dev {BRIDGE}",
        f"link set {BRIDGE} up",
        f"route replace default dev {BRIDGE}",
    ):
        run(inside(["ip", *words.split()]))


def delete() -> None:
    """Remove the namespace and the mount that `ip netns` leaves where the last one was."""
    if exists():
        run(["ip", "netns", "delete", NAMESPACE])
    folder = _HANDLE.parent
    if folder.is_dir() and not any(folder.iterdir()) and os.path.ismount(folder):
        run(["umount", folder])


def processes_inside() -> Iterator[int]:
    """Ids of all processes in the namespace, whoever started them."""
    if not exists():
        return
    wanted = _HANDLE.stat()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            found = (entry / "ns" / "net").stat()
        except OSError:  # it ended meanwhile
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            yield int(entry.name)
