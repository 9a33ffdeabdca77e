"""Ending a cluster without a trace, however it was left: in use, half started, or killed with the machine.

The order matters. kubelet goes first, or it restarts what is killed. Loop devices are detached before
lazy unmounts, or the path that names their image is lost and nobody finds them again.
"""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.cluster import cgroups, network, processes
from tests.cluster.commands import run
from tests.cluster.errors import ClusterError, CommandError
from tests.cluster.places import Places

_SHIM_SOCKETS: Final = Path("/run/containerd/s")


def exist(places: Places) -> bool:
    """Whether anything of a cluster is there, running or not."""
    return places.state.exists() or network.exists() or cgroups.exist()


def remove(places: Places) -> None:
    """Stop all that runs and remove all that is left; nothing happens where nothing is.

    Raises:
        ClusterError: something resists; the message names it.
    """
    if network.exists() and processes.ancestors() & set(network.processes_inside()):
        raise ClusterError("this runs inside the cluster's network namespace: end the cluster from outside")
    _stop_programs(places)
    _detach_loops(places)
    _unmount(places)
    _detach_loops(places)
    network.delete()
    stuck = cgroups.delete()
    _remove_files(places)
    if stuck:
        raise ClusterError(f"control groups still hold processes: {', '.join(map(str, stuck))}")


def _stop_programs(places: Places) -> None:
    known = {process.name: process for process in processes.Processes(places).all()}
    kubelet = known.pop("kubelet", None)
    if kubelet:
        processes.stop([kubelet], seconds=5)
    processes.kill(cgroups.processes())
    processes.stop(known.values(), seconds=5)
    # Containers' shims, and whatever someone still runs in the namespace.
    for _ in range(3):
        processes.kill(network.processes_inside())
        time.sleep(0.05)


def _mounts(places: Places) -> Iterator[str]:
    """Mount points at and under the state folder, the deepest and latest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        path = line.split()[4].encode().decode("unicode_escape")
        if Path(path).is_relative_to(places.state):
            found.append(path)
    # Of two mounts on one path the later hides the earlier, and each unmount takes the topmost.
    return iter(sorted(found, reverse=True))


def _unmount(places: Places) -> None:
    for path in _mounts(places):
        if path.endswith("/globalmount"):
            _try("fsfreeze", "--unfreeze", path)  # a driver killed in mid-snapshot leaves its volume frozen
        _try("umount", path) or _try("umount", "--lazy", path)
    left = list(_mounts(places))
    if left:
        raise ClusterError(f"cannot unmount: {', '.join(left)}; find who uses it with `fuser -vm {left[0]}`")


def _detach_loops(places: Places) -> None:
    listed = run(["losetup", "--list", "--json", "--output", "NAME,BACK-FILE"])
    for device in json.loads(listed or '{"loopdevices": []}')["loopdevices"]:
        if (device["back-file"] or "").startswith(f"{places.state}/"):
            _try("losetup", "--detach", device["name"])


def _remove_files(places: Places) -> None:
    shutil.rmtree(places.state, ignore_errors=True)
    if places.state.exists():  # someone wrote meanwhile, or a process was about to end
        time.sleep(0.5)
        shutil.rmtree(places.state)
    # kubelet links each container's log here, whatever its configuration says.
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{places.state}/"):
            link.unlink()
    for path in _SHIM_SOCKETS.glob("*"):
        _remove_dead_socket(path)


def _remove_dead_socket(path: Path) -> None:
    """Remove a socket that nobody listens to: the folder's path is fixed, and may be another containerd's too."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            pass


def _try(*command: str) -> bool:
    try:
        run(command, timeout=20)
    except CommandError:
        return False
    return True
