"""Debian root filesystems for images, made by mmdebstrap from the mirror that the machine itself uses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.cluster import versions
from tests.cluster.commands import run, say
from tests.cluster.places import Places, making

_UNWANTED: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
_CLEANUP: Final = 'rm -rf "$1"/var/cache/* "$1"/var/log/* "$1"/usr/share/doc/* "$1"/var/lib/apt/lists/*'


def debian_tar(packages: Sequence[str], commands: Sequence[str], places: Places) -> Path:
    """A root filesystem as a tar, from the cache where one of the same packages and commands is.

    Args:
        packages: what to install on top of the essential system.
        commands: shell commands run in it afterwards, as root.
        places: where the cache is.
    """
    facts = [versions.DEBIAN_SUITE, sorted(packages), list(commands), _UNWANTED]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    tar = places.cache / "images" / "debian" / f"{name}.tar"
    with making(tar) as missing:
        if missing:
            _bootstrap(tar, packages, commands)
    return tar


def _bootstrap(tar: Path, packages: Sequence[str], commands: Sequence[str]) -> None:
    say(f"making a Debian root filesystem with {', '.join(packages)} (half a minute)")
    tar.parent.mkdir(parents=True, exist_ok=True)
    fresh = tar.with_name(f".{tar.stem}-{os.getpid()}.tar")
    command: list[str | Path] = ["mmdebstrap", "--quiet", "--mode=root", "--variant=essential", "--format=tar"]
    command += [f"--include={','.join(packages)}"] if packages else []
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _UNWANTED]
    command += [f'--customize-hook=chroot "$1" sh -ec {_quoted(line)}' for line in commands]
    command += [f"--customize-hook={_CLEANUP}", versions.DEBIAN_SUITE, fresh, *_mirror()]
    run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"})
    fresh.rename(tar)


def unpacked(tar: Path) -> Path:
    """The folder that a root filesystem's tar unpacks to, beside it in the cache."""
    folder = tar.with_suffix("")
    with making(folder) as missing:
        if missing:
            fresh = folder.with_name(f".{folder.name}-{os.getpid()}")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            run(["tar", "-C", fresh, "-xpf", tar])
            fresh.chmod(0o755)
            fresh.rename(folder)
    return folder


def _mirror() -> list[str]:
    """The Debian mirror of the machine's own apt; none, which is mmdebstrap's default, on another distribution."""
    listed = "$(ORIGIN) $(RELEASE) $(REPO_URI)"
    for attempt in range(2):
        for line in run(["apt-get", "indextargets", "--format", listed, "Identifier: Packages"]).splitlines():
            origin, release, address = line.split()
            if origin == "Debian" and "-" not in release:
                return [address]
        if attempt == 0:  # what was never fetched has no origin
            run(["apt-get", "update", "-qq"])
    return []


def _quoted(line: str) -> str:
    """Quoted for the shell that runs mmdebstrap's hooks."""
    return "'" + line.replace("'", "'\\''") + "'"
