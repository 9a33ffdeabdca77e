"""Container images without a container engine.

An image is a Debian root filesystem (or nothing) and layers on top, written as a docker-archive: a tar
of layer tars, a configuration and a manifest. Each part is cached under a hash of what it is made from,
so that an image whose last layer changed is made in a second.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.cluster import toolchain
from tests.cluster.commands import run, say
from tests.cluster.places import MACHINE, Places, making
from tests.cluster.rootfs import debian_tar, unpacked

BUSYBOX_REFERENCE: Final = "localhost/busybox:1"
PAUSE_REFERENCE: Final = "localhost/pause:1"

_KEPT_ARCHIVES: Final = 6
"""Archives of one name that stay in the cache; each holds a whole root filesystem."""

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Config:
    """How a container of the image starts.

    Attributes:
        user: user id, or `uid:gid`; root where empty.
        entrypoint: the program and its first arguments.
        cmd: what follows, unless the pod says otherwise.
        env: environment on top of PATH.
        workdir: the folder it starts in.
    """

    user: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"


DEFAULT_CONFIG: Final = Config()


@dataclass(frozen=True)
class Layer:
    """Files on top of the layers before.

    Attributes:
        key: names the content: equal keys, equal files.
        fill: writes the files into an empty folder, which stands for `/`; called only where the cache lacks the key.
    """

    key: str
    fill: Callable[[Path], None]


@dataclass(frozen=True)
class Image:
    """A built image; usable wherever a path to its archive is.

    Attributes:
        reference: what a pod names as its image.
        archive: the docker-archive.
    """

    reference: str
    archive: Path

    def __fspath__(self) -> str:
        return str(self.archive)

    @property
    def tag(self) -> str:
        return self.reference.rpartition(":")[2]


def build_image(
    name: str,
    *,
    packages: Sequence[str] = (),
    commands: Sequence[str] = (),
    layers: Sequence[Layer] = (),
    config: Config = DEFAULT_CONFIG,
    places: Places = MACHINE,
) -> Image:
    """Build an image, or find it in the cache.

    Args:
        name: `shop-db` becomes `localhost/shop-db:<hash of the content>`, `shop-db:1` becomes `localhost/shop-db:1`.
        packages: Debian packages to install with all they need; no base system where neither these nor commands are.
        commands: shell commands run as root in the root filesystem after the packages are in.
        layers: further files, see `Layer` and `folder_layer`.
        config: how its containers start.
        places: where the cache is.
    """
    tars = [debian_tar(packages, commands, places)] if packages or commands else []
    tars += [_layer_tar(layer, places) for layer in layers]
    facts = [[tar.name for tar in tars], _config_fields(config)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    bare, _, tag = name.partition(":")
    reference = f"localhost/{bare}:{tag or digest}"
    archive = places.cache / "images" / f"{bare}-{tag or 'hash'}-{digest}.tar"
    with making(archive) as missing:
        if missing:
            _write_archive(archive, reference, tars, config)
            _forget_old(archive.parent, f"{bare}-{tag or 'hash'}-")
    archive.touch()  # the ones used last are kept
    return Image(reference, archive)


def folder_layer(folder: Path, at: str = "/") -> Layer:
    """A layer that holds a copy of a folder.

    Args:
        folder: its files keep mode and link targets; in the image they are root's.
        at: where in the image they appear.
    """
    digest = hashlib.sha256(at.encode())
    for path in sorted(folder.rglob("*")):
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        digest.update(f"\0{path.relative_to(folder)}\0{path.lstat().st_mode:o}\0{len(content)}\0".encode() + content)

    def fill(root: Path) -> None:
        shutil.copytree(folder, root / at.lstrip("/"), symlinks=True, dirs_exist_ok=True)

    return Layer(f"folder-{digest.hexdigest()}", fill)


def debian_root(packages: Sequence[str], commands: Sequence[str] = (), places: Places = MACHINE) -> Path:
    """The unpacked root filesystem that an image of these packages starts from; read it, do not change it."""
    return unpacked(debian_tar(packages, commands, places))


def busybox_image(places: Places) -> Image:
    """Debian's static busybox with all its applets."""
    package = toolchain.package_files("busybox-static", places)
    (program,) = (path for path in (package / "bin/busybox", package / "usr/bin/busybox") if path.exists())

    def fill(root: Path) -> None:
        (root / "bin").mkdir()
        shutil.copy2(program, root / "bin/busybox")
        for applet in run([program, "--list"]).split():
            if applet != "busybox":  # a link to itself would replace the program
                (root / "bin" / applet).symlink_to("busybox")
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        (root / "root").mkdir(mode=0o700)
        (root / "tmp").mkdir()
        (root / "tmp").chmod(0o1777)

    layer = Layer(f"busybox-{hashlib.sha256(program.read_bytes()).hexdigest()}", fill)
    return build_image("busybox:1", layers=[layer], config=Config(cmd=("/bin/sh",)), places=places)


def pause_image(program: Path, places: Places) -> Image:
    """The image of the container that holds a pod's namespaces open."""

    def fill(root: Path) -> None:
        shutil.copy2(program, root / "pause")

    layer = Layer(f"pause-{hashlib.sha256(program.read_bytes()).hexdigest()}", fill)
    return build_image("pause:1", layers=[layer], config=Config(user="65535", entrypoint=("/pause",)), places=places)


def _layer_tar(layer: Layer, places: Places) -> Path:
    """The layer as a tar, from the cache where its key is known."""
    name = hashlib.sha256(layer.key.encode()).hexdigest()[:16]
    tar = places.cache / "images" / "layers" / f"{name}.tar"
    with making(tar) as missing:
        if missing:
            _fill(layer, tar)
    return tar


def _fill(layer: Layer, tar: Path) -> None:
    folder = tar.with_name(f".{tar.stem}-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    try:
        layer.fill(folder)
        fresh = folder.with_suffix(".tar")
        with tarfile.open(fresh, "w") as out:
            for path in sorted(folder.rglob("*")):
                out.add(path, str(path.relative_to(folder)), recursive=False, filter=_as_root)
        fresh.rename(tar)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Root's, and without a time: the same files are the same layer."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    return member


def _config_fields(config: Config) -> dict[str, object]:
    env = {"PATH": _PATH, **config.env}
    return {
        "User": config.user,
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "Env": [f"{name}={value}" for name, value in env.items()],
        "WorkingDir": config.workdir,
    }


def _write_archive(archive: Path, reference: str, tars: Sequence[Path], config: Config) -> None:
    say(f"writing image {reference}")
    digests = [_sha256(tar) for tar in tars]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    description = {
        "architecture": machine,
        "os": "linux",
        "config": _config_fields(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{} for _ in tars],
    }
    text = json.dumps(description, sort_keys=True).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    names = [f"{digest}/layer.tar" for digest in digests]
    manifest = json.dumps([{"Config": name, "RepoTags": [reference], "Layers": names}]).encode()
    archive.parent.mkdir(parents=True, exist_ok=True)
    fresh = archive.with_name(f".{archive.name}-{os.getpid()}")
    with tarfile.open(fresh, "w") as out:
        for file, data in ((name, text), ("manifest.json", manifest)):
            member = tarfile.TarInfo(file)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
        for file, tar in zip(names, tars, strict=True):
            out.add(tar, file, filter=_as_root)
    fresh.rename(archive)


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _forget_old(folder: Path, prefix: str) -> None:
    archives = sorted(folder.glob(f"{prefix}*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for archive in archives[_KEPT_ARCHIVES:]:
        archive.unlink(missing_ok=True)
