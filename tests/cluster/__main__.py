"""Command line of the test cluster: `python -m tests.cluster up | down | status | exec | load | install | build`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster import toolchain, versions
from tests.cluster.backstay_image import backstay_image
from tests.cluster.cluster import Cluster, State
from tests.cluster.errors import ClusterError
from tests.cluster.images import busybox_image
from tests.cluster.install import install


def _up(cluster: Cluster, arguments: argparse.Namespace) -> int:
    cluster.up(arguments.version)
    return 0


def _down(cluster: Cluster, _: argparse.Namespace) -> int:
    cluster.down()
    return 0


def _status(cluster: Cluster, _: argparse.Namespace) -> int:
    found = cluster.status()
    print(f"{found.state.value}{f', Kubernetes {found.version}' if found.version else ''}")
    for problem in found.problems:
        print(f"  {problem}")
    return {State.HEALTHY: 0, State.ABSENT: 3}.get(found.state, 1)


def _exec(cluster: Cluster, arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise ClusterError("nothing to run: write the command after `exec --`")
    environment = cluster.environment()
    words = cluster.inside(command)
    sys.stdout.flush()
    # Replaced rather than run: the command gets our terminal, our signals and our exit code.
    os.execvpe(words[0], words, environment)


def _load(cluster: Cluster, arguments: argparse.Namespace) -> int:
    for reference in cluster.load(arguments.archive):
        print(reference)
    return 0


def _install(cluster: Cluster, _: argparse.Namespace) -> int:
    install(cluster)
    return 0


def _build(cluster: Cluster, arguments: argparse.Namespace) -> int:
    cluster.build(arguments.version or versions.KUBERNETES)
    return 0


def _image(cluster: Cluster, arguments: argparse.Namespace) -> int:
    if arguments.name == "backstay":
        toolchain.require_root()
        toolchain.ensure_packages()
        image = backstay_image(cluster.places)
    else:
        image = busybox_image(cluster.places)
    print(image.reference, image.archive)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, action: Callable[[Cluster, argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        command.set_defaults(action=action)
        return command

    for name, action, text in (
        ("up", _up, "make the cluster run; reuse a healthy one"),
        ("build", _build, "build the programs and images only"),
    ):
        add(name, action, text).add_argument("--version", help=f"of Kubernetes ({versions.KUBERNETES})")
    add("down", _down, "stop the cluster and remove all that is left of it")
    add("status", _status, "say how it is; exit code 0: healthy, 1: broken, 3: absent")
    run = add("exec", _exec, "run a command in the cluster's network, with kubectl and helm set up")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND...")
    add("load", _load, "import a docker-archive").add_argument("archive", type=Path, metavar="IMAGE.tar")
    image = add("image", _image, "build an image and print its name and archive")
    image.add_argument("name", choices=("backstay", "busybox"), nargs="?", default="backstay")
    add("install", _install, "build Backstay's image and install its chart")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(words)
    try:
        code: int = arguments.action(Cluster(), arguments)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
