"""The control group that all pods live in, so that they can be limited by kubelet and found by `down`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.places import NAME


def create() -> None:
    """Make our group in every hierarchy before kubelet does.

    A version 1 cpuset refuses processes until its CPUs and memory nodes are set, and nobody else would set them.
    A version 2 group hands controllers down only where the parent says so.
    """
    for hierarchy in _hierarchies():
        ours = hierarchy / NAME
        controllers = hierarchy / "cgroup.controllers"
        if controllers.exists():
            wanted = set(controllers.read_text().split()) & {"cpu", "cpuset", "memory", "pids", "io", "hugetlb"}
            (hierarchy / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)))
        ours.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / name).exists():
                (ours / name).write_text((hierarchy / name).read_text())


def exist() -> bool:
    """Whether our group is there in any hierarchy."""
    return any((hierarchy / NAME).is_dir() for hierarchy in _hierarchies(unused=True))


def processes() -> Iterator[int]:
    """Ids of all processes in our group, which are those of the pods' containers."""
    for hierarchy in _hierarchies(unused=True):
        for folder in _folders(hierarchy / NAME):
            try:
                yield from (int(pid) for pid in (folder / "cgroup.procs").read_text().split())
            except OSError:  # the group went meanwhile
                continue


def delete(seconds: float = 10) -> list[Path]:
    """Remove our group, waiting for the kernel to let go of killed processes; return what could not be removed."""
    deadline = time.monotonic() + seconds
    while True:
        left = [group for hierarchy in _hierarchies(unused=True) for group in _remove(hierarchy / NAME)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def _remove(group: Path) -> Iterator[Path]:
    for folder in sorted(_folders(group), reverse=True):
        _try_rmdir(folder)
    if group.is_dir():
        yield group


def _folders(group: Path) -> Iterator[Path]:
    """A group and those in it, as far as they stay while this looks: os.walk passes over what has gone, rglob fails."""
    for folder, _, _ in os.walk(group):
        yield Path(folder)


def _try_rmdir(folder: Path) -> None:
    with contextlib.suppress(OSError):  # busy: the caller tries again
        folder.rmdir()


def _hierarchies(unused: bool = False) -> Iterator[Path]:
    """Mount points of the control group hierarchies.

    Args:
        unused: also the version 2 hierarchy of a machine that uses version 1 controllers.
    """
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    first = [Path(path) for path, kind in mounts if kind == "cgroup"]
    second = [Path(path) for path, kind in mounts if kind == "cgroup2"]
    yield from first
    if unused or not first:
        yield from second
