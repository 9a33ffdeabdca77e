"""Backstay's own image, with the same content as `deploy/Dockerfile` gives users.

Three layers, from what changes least: Debian with Python, the locked dependencies, our wheel. After a
change to the source only the last one is made anew.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import platform
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.cluster import images, toolchain, versions
from tests.cluster.commands import run, say
from tests.cluster.errors import ClusterError
from tests.cluster.places import MACHINE, REPOSITORY, Places

_PACKAGES: Final = ("python3", "ca-certificates", "tzdata")
_USER: Final = "65532"
_DEPENDENCIES: Final = "usr/lib/backstay/dependencies"
_WHEEL: Final = "usr/lib/backstay/application"
_SOURCES: Final = ("pyproject.toml", "README.md", "LICENSE", "operator", "crds")
_BOTOCORE_SERVICES: Final = frozenset({"s3", "sts", "sso", "sso-oidc", "signin"})
"""What the S3 client and its credential providers load; the data of other services are most of botocore's size."""

_UNUSED: Final = (
    "bin",
    ".lock",
    "kubernetes/aio",  # a second copy of the client, for asyncio
    "zstandard/_cffi*.so",  # the C extension beside it does the work
    "**/*.pyi",
)

_LAYOUT_VERSION: Final = "4"
"""Part of each layer's key: raise it when this file fills a layer differently."""


def backstay_image(places: Places = MACHINE) -> images.Image:
    """Build the image of the checkout as it is, tagged by a hash of its content."""
    lock = REPOSITORY / "requirements.lock"
    if not lock.exists():
        raise ClusterError(f"{lock} is missing: Backstay's image is built from the locked requirements")
    root = images.debian_root(_PACKAGES, places=places)

    def fill_dependencies(folder: Path) -> None:
        say("installing the locked dependencies into an image layer")
        _install_dependencies(lock, folder / _DEPENDENCIES, places)
        _compile(root, folder, _DEPENDENCIES)

    def fill_application(folder: Path) -> None:
        _install_wheel(folder, places)
        _add_user(root, folder)
        _compile(root, folder, _WHEEL)

    dependencies = images.Layer(f"dependencies-{_LAYOUT_VERSION}-{_digest([lock])}", fill_dependencies)
    sources = [REPOSITORY / name for name in _SOURCES]
    application = images.Layer(f"application-{_LAYOUT_VERSION}-{_digest(sources)}", fill_application)
    env = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/tmp"}
    return images.build_image(
        "backstay",
        packages=_PACKAGES,
        layers=[dependencies, application],
        config=images.Config(user=f"{_USER}:{_USER}", cmd=("backstay", "--help"), env=env),
        places=places,
    )


def _install_dependencies(lock: Path, target: Path, places: Places) -> None:
    """Install wheels for the image's Python, which is not this machine's; then drop what only costs space."""
    run(
        [
            *(toolchain.uv(places), "pip", "install", "--quiet", "--require-hashes", "--requirement", lock),
            *("--python-version", versions.IMAGE_PYTHON),
            *("--python-platform", f"{platform.machine()}-manylinux_2_28"),
            *("--only-binary", ":all:", "--no-compile-bytecode", "--link-mode", "copy", "--target", target),
        ]
    )
    for service in (target / "botocore" / "data").glob("*/"):
        if service.name not in _BOTOCORE_SERVICES:
            shutil.rmtree(service)
    for pattern in _UNUSED:
        for path in target.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _install_wheel(folder: Path, places: Places) -> None:
    """Unpack our wheel, put its commands on PATH, and make both layers importable."""
    with tempfile.TemporaryDirectory() as out:
        run([toolchain.uv(places), "build", "--quiet", "--wheel", "--out-dir", out, REPOSITORY])
        (wheel,) = Path(out).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / _WHEEL)
    entries = configparser.ConfigParser()
    (described,) = (folder / _WHEEL).glob("*.dist-info/entry_points.txt")
    entries.read(described)
    programs = folder / "usr/bin"
    programs.mkdir(parents=True)
    for name, target in entries["console_scripts"].items():
        module, _, function = target.partition(":")
        program = programs / name
        program.write_text(f"#!/usr/bin/python3\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        program.chmod(0o755)
    paths = folder / "usr/lib/python3/dist-packages/backstay.pth"
    paths.parent.mkdir(parents=True)
    paths.write_text(f"/{_WHEEL}\n/{_DEPENDENCIES}\n")


def _add_user(root: Path, folder: Path) -> None:
    """Give the image's user an entry: without one, a container runtime makes root's group its primary group."""
    (folder / "etc").mkdir()
    for name, line in (
        ("passwd", f"backstay:x:{_USER}:{_USER}::/tmp:/usr/sbin/nologin"),
        ("group", f"backstay:x:{_USER}:"),
    ):
        (folder / "etc" / name).write_text((root / "etc" / name).read_text() + line + "\n")


def _compile(root: Path, layer: Path, where: str) -> None:
    """Compile a layer's modules by the image's own Python, so that a mover does not do it at each start.

    Unchecked: whoever unpacks the image may change the files' times, and the sources cannot change.
    """
    script = 'mount --bind "$1" "$0/mnt" && shift && exec chroot "$0" "$@"'
    compiler = ["python3", "-m", "compileall", "-q", "-j0", "--invalidation-mode", "unchecked-hash"]
    strip = ["-s", "/mnt", "-p", "/", f"/mnt/{where}"]
    private: list[str | Path] = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--",
        "sh",
        "-c",
        script,
        root,
        layer,
    ]
    run([*private, *compiler, *strip], env={"PATH": toolchain.SYSTEM_PATH})


def _digest(paths: list[Path]) -> str:
    """Hash of files and folders: names and contents."""
    digest = hashlib.sha256()
    for file in _files(paths):
        content = file.read_bytes()
        digest.update(f"{os.path.relpath(file, REPOSITORY)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (p for p in sorted(path.rglob("*")) if p.is_file() and "__pycache__" not in p.parts)
        elif path.exists():
            yield path
