"""Where stock restic is found, the referee of the repository tests; fetched as a Debian package when there is none.

usage: python -m tests.repository.restic_binary    prints the path of a restic that is new enough

The stable distribution's restic is older than the one we compare with, so the package of Debian's unstable distribution
(a static binary) is taken from the mirror that the machine's own apt uses, and kept under the user's cache directory.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MINIMUM = (0, 19)


def cache_directory() -> Path:
    """Where what tests fetch is kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "backstay"


def version(binary: str | Path) -> tuple[int, ...]:
    """The version that a restic binary tells, (0,) when it tells none."""
    try:
        told = subprocess.run([str(binary), "version"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return (0,)
    found = re.match(r"restic (\d+)\.(\d+)\.(\d+)", told)
    return tuple(int(part) for part in found.groups()) if found else (0,)


def restic() -> Path:
    """A restic of at least MINIMUM: `RESTIC_BINARY`, the one in PATH, the cached one, or one fetched now."""
    for candidate in (os.environ.get("RESTIC_BINARY"), shutil.which("restic")):
        if candidate and version(candidate) >= MINIMUM:
            return Path(candidate)
    kept = cache_directory() / "restic"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / "restic.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if version(kept) < MINIMUM:
            _fetch(kept)
    return kept


def _mirror() -> str:
    """The Debian mirror that this machine's apt is set up with."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()
    mirrors = [uri for uri in told if "security" not in uri]
    if not mirrors:
        raise RuntimeError("no restic, and apt names no mirror to fetch it from; set RESTIC_BINARY to a restic >= 0.19")
    return mirrors[0]


def _fetch(kept: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="restic-") as name:
        work = Path(name)
        for directory in ("lists/partial", "archives/partial", "download", "root"):
            (work / directory).mkdir(parents=True)
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        (work / "sources.list").write_text(f"deb [signed-by={keyring}] {_mirror()} sid main\n")
        (work / "status").touch()
        options = [
            f"Dir::Etc::sourcelist={work}/sources.list",
            "Dir::Etc::sourceparts=/dev/null",
            f"Dir::State::lists={work}/lists",
            f"Dir::State::status={work}/status",
            f"Dir::Cache={work}",
            f"Dir::Cache::archives={work}/archives",
            "APT::Sandbox::User=root",
            "Acquire::Languages=none",
        ]
        apt = ["apt-get", *(part for option in options for part in ("-o", option))]
        _run([*apt, "update"], work)
        _run([*apt, "download", "restic"], work / "download")
        package = next((work / "download").glob("restic_*.deb"))
        _run(["dpkg-deb", "-x", str(package), str(work / "root")], work)
        shutil.copy(work / "root/usr/bin/restic", kept.with_suffix(".new"))
        kept.with_suffix(".new").chmod(0o755)
        kept.with_suffix(".new").replace(kept)


def _run(command: list[str], directory: Path) -> None:
    subprocess.run(command, cwd=directory, check=True, timeout=300, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.stdout.write(f"{restic()}\n")
