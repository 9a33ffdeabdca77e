"""The Go programs of the cluster: which there are, and building them into the cache.

Each module under `go/` pins what it builds, with checksums, because the dependencies of one program
disagree with those of another. Kubernetes' module is generated, since its version is a parameter.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster import toolchain, versions
from tests.cluster.commands import run, say
from tests.cluster.errors import ClusterError
from tests.cluster.places import GO_MODULES, Places, making


@dataclass(frozen=True)
class GoModule:
    """A Go module and the programs built from it.

    Attributes:
        name: its folder under `go/`.
        programs: name of each program, and the package that it is built from.
        first_time: how long a cold build takes on two cores, for the person who waits.
    """

    name: str
    programs: tuple[tuple[str, str], ...]
    first_time: str


_CONTAINERD: Final = "github.com/containerd/containerd/v2/cmd"
_CNI: Final = "github.com/containernetworking/plugins/plugins"
_SNAPSHOTTER: Final = "github.com/kubernetes-csi/external-snapshotter/v8/cmd"

MODULES: Final = (
    GoModule("etcd", (("etcd", "go.etcd.io/etcd/server/v3"),), "30 s"),
    GoModule(
        "containerd",
        tuple((name, f"{_CONTAINERD}/{name}") for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
        "1 minute",
    ),
    GoModule(
        "cni",
        (
            ("bridge", f"{_CNI}/main/bridge"),
            ("loopback", f"{_CNI}/main/loopback"),
            ("host-local", f"{_CNI}/ipam/host-local"),
            ("portmap", f"{_CNI}/meta/portmap"),
        ),
        "10 s",
    ),
    GoModule(
        "snapshotter",
        tuple((name, f"{_SNAPSHOTTER}/{name}") for name in ("snapshot-controller", "csi-snapshotter")),
        "3 minutes",
    ),
    GoModule(
        "resizer", (("csi-resizer", "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer"),), "3 minutes"
    ),
    GoModule("coredns", (("coredns", "."),), "2 minutes"),
    GoModule("helm", (("helm", "helm.sh/helm/v4/cmd/helm"),), "1 minute"),
    GoModule("csi-driver", (("csi-driver", "."),), "2 minutes"),
    GoModule("pause", (("pause", "."),), "seconds"),
    GoModule("csi-sanity", (("csi-sanity", "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"),), "1 minute"),
)

_KUBERNETES_PROGRAMS: Final = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)


@dataclass(frozen=True)
class Programs:
    """Built programs by name."""

    paths: dict[str, Path]

    def __getitem__(self, name: str) -> Path:
        return self.paths[name]

    @property
    def cni_folder(self) -> Path:
        return self.paths["bridge"].parent


def build(kubernetes: str, places: Places) -> Programs:
    """Build what the cache lacks and return all programs; silent when nothing is to do.

    Args:
        kubernetes: version of Kubernetes, such as `1.37.2`.
        places: where the cache is.
    """
    paths = _build_kubernetes(kubernetes, places)
    for module in MODULES:
        paths |= _build_module(module, places)
    return Programs(paths)


def _build_module(module: GoModule, places: Places) -> dict[str, Path]:
    """Build one module's programs, where the cache lacks them."""
    source = GO_MODULES / module.name
    digest = hashlib.sha256()
    for file in sorted(source.glob("*")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    folder = places.cache / f"{module.name}-{digest.hexdigest()[:12]}"
    with making(folder) as missing:
        if missing:
            _build_into(folder, source, module.programs, "-s -w", module.first_time, places)
    return {name: folder / "bin" / name for name, _ in module.programs}


def module_folder(module: str, of: str, places: Places) -> Path:
    """Source folder of a Go module at the version that one of ours requires, from Go's own module cache.

    Args:
        module: path of the module wanted.
        of: name of our module that requires it.
        places: where the cache is.
    """
    found = run([toolchain.go(places), "list", "-m", "-json", module], cwd=GO_MODULES / of, env=_environment())
    folder = json.loads(found).get("Dir")
    if not folder:
        found = run([toolchain.go(places), "mod", "download", "-json", module], cwd=GO_MODULES / of, env=_environment())
        folder = json.loads(found)["Dir"]
    return Path(folder)


def _build_kubernetes(version: str, places: Places) -> dict[str, Path]:
    if not re.fullmatch(r"1\.\d+\.\d+", version):
        raise ClusterError(f"Kubernetes version {version!r}: expected three numbers such as {versions.KUBERNETES}")
    folder = places.cache / f"kubernetes-{version}"
    with making(folder) as missing:
        if missing:
            source = folder.with_name(f"{folder.name}-module")
            _generate_kubernetes_module(version, source, places)
            stamps = {"gitVersion": f"v{version}", "gitMajor": "1", "gitMinor": version.split(".")[1]}
            flags = ["-s -w"] + [f"-X k8s.io/component-base/version.{key}={value}" for key, value in stamps.items()]
            programs = tuple((name, f"k8s.io/kubernetes/cmd/{name}") for name in _KUBERNETES_PROGRAMS)
            _build_into(folder, source, programs, " ".join(flags), "12 minutes", places)
    return {name: folder / "bin" / name for name in _KUBERNETES_PROGRAMS}


def _generate_kubernetes_module(version: str, folder: Path, places: Places) -> None:
    """Write a module that requires Kubernetes as a library.

    Its own go.mod points the staging modules (`k8s.io/x v0.0.0`) at folders of its repository; a module that
    requires it has to name their published versions instead, which are the same release as `v0.<minor>.<patch>`.
    """
    go = toolchain.go(places)
    say(f"resolving the modules of Kubernetes {version}")
    found = json.loads(run([go, "mod", "download", "-json", f"k8s.io/kubernetes@v{version}"], env=_environment()))
    text = Path(found["GoMod"]).read_text()
    staging = sorted(set(re.findall(r"(k8s\.io/[a-z0-9-]+) v0\.0\.0(?:\s|$)", text)))
    settings = re.findall(r"^go [0-9.]+$|^godebug [a-z].*$|^godebug \([^)]*\)$", text, re.MULTILINE)
    lines = ["module backstay.dev/tests/cluster/kubernetes", *settings]
    lines += [f"tool k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES_PROGRAMS]
    lines += [f"require k8s.io/kubernetes v{version}"]
    lines += [f"replace {module} => {module} v0.{version.removeprefix('1.')}" for module in staging]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("\n\n".join(lines) + "\n")
    run([go, "mod", "tidy"], cwd=folder, env=_environment())


def _build_into(
    folder: Path, source: Path, programs: tuple[tuple[str, str], ...], flags: str, first_time: str, places: Places
) -> None:
    """Build all programs of a module into `folder`/bin, or none: the folder appears by rename."""
    go = toolchain.go(places)
    fresh = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "bin").mkdir(parents=True)
    say(f"building {folder.name}: {', '.join(name for name, _ in programs)} ({first_time} the first time)")
    for name, package in programs:
        start = time.monotonic()
        run([go, "build", "-ldflags", flags, "-o", fresh / "bin" / name, package], cwd=source, env=_environment())
        say(f"  {name}: {time.monotonic() - start:.0f} s")
    fresh.rename(folder)


def _environment() -> dict[str, str]:
    """Go's settings: static programs, the machine's compiler as it is, no stamp of our own repository."""
    settings = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    return {**os.environ, **settings}
