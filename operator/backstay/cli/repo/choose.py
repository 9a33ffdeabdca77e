"""Which snapshots are meant: ids and their beginnings, `latest`, `ID:folder`, and filters by host, tag and path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from backstay.cli.repo.output import Output
from backstay.repository.errors import NodeNotFound, SnapshotNotFound

if TYPE_CHECKING:
    from backstay.repository.format.snapshot import Snapshot
    from backstay.repository.format.tree import Node
    from backstay.repository.repository import Repository

Function = TypeVar("Function", bound=Callable[..., None])


@dataclass(frozen=True)
class Filter:
    """Snapshots of any of the hosts, with all tags of any of the lists, of all the paths. Empty: any will do."""

    hosts: tuple[str, ...] = ()
    tags: tuple[tuple[str, ...], ...] = ()
    paths: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.hosts or self.tags or self.paths)

    def matches(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot is one of them."""
        tags = self.tags
        return (
            (not self.hosts or snapshot.hostname in self.hosts)
            and (not tags or any(all(_tagged(snapshot, tag) for tag in wanted) for wanted in tags))
            and all(path in snapshot.paths for path in self.paths)
        )


def _tagged(snapshot: Snapshot, tag: str) -> bool:
    """The empty tag stands for having none."""
    return tag in snapshot.tags if tag else not snapshot.tags


def filter_options(function: Function) -> Function:
    """The options --host, --tag and --path, as a `Filter` named `only`."""
    return _filter_options(function, "-H", "--host")


def long_filter_options(function: Function) -> Function:
    """The same without -H, which means something else to `forget`."""
    return _filter_options(function, "--host")


def _filter_options(function: Function, *host: str) -> Function:

    def collect(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
        kept = ctx.meta.setdefault("backstay.filter", {})
        kept[parameter.name] = value
        ctx.params["only"] = make_filter(kept.get("only_host", ()), kept.get("only_tag", ()), kept.get("only_path", ()))

    def option(*names: str, **attributes: Any) -> Callable[[Function], Function]:
        return click.option(*names, multiple=True, expose_value=False, callback=collect, **attributes)

    for each in (
        option("--path", "only_path", metavar="PATH", help="Only snapshots of this path."),
        option("--tag", "only_tag", metavar="TAGS", help="Only snapshots with all of these tags: a,b."),
        option(*host, "only_host", metavar="HOST", help="Only snapshots of this host."),
    ):
        function = each(function)
    return function


def make_filter(hosts: Sequence[str], tags: Sequence[str], paths: Sequence[str]) -> Filter:
    """A filter from the values of the options; RESTIC_HOST counts when no host is given, an empty one means any."""
    if not hosts and (host := os.environ.get("RESTIC_HOST", "")):
        hosts = [host]
    return Filter(
        tuple(host for host in hosts if host),
        tuple(tuple(part.strip() for part in text.split(",")) for text in tags),
        tuple(os.path.abspath(path) for path in paths),
    )


def latest(repository: Repository, only: Filter, before: datetime | None = None) -> Snapshot:
    """The newest snapshot that the filter lets through (not younger than `before`). Raises SnapshotNotFound."""
    newest: Snapshot | None = None
    for snapshot in repository.snapshots():
        if only.matches(snapshot) and (before is None or snapshot.time <= before):
            newest = snapshot if newest is None or snapshot.time >= newest.time else newest
    if newest is None:
        told = f" of host {only.hosts}, tags {only.tags} and paths {only.paths}" if only else ""
        raise SnapshotNotFound(f"looking for the latest snapshot{told}: there is none; list the snapshots to see all")
    return newest


def one(repository: Repository, text: str, only: Filter | None = None) -> tuple[Snapshot, str]:
    """The snapshot that is meant, and the folder in it after the colon. Raises SnapshotNotFound."""
    name, _, folder = text.partition(":")
    if name == "latest":
        return latest(repository, only or Filter()), folder
    return repository.snapshot(name), folder


def several(repository: Repository, texts: Sequence[str], only: Filter, output: Output) -> Iterator[Snapshot]:
    """The snapshots named, each once; without names all that the filter lets through, oldest first.

    A name that fits no snapshot is told and passed over, as restic does.
    """
    if not texts:
        found = (snapshot for snapshot in repository.snapshots() if only.matches(snapshot))
        yield from sorted(found, key=lambda snapshot: (snapshot.time, snapshot.id))
        return
    seen = set()
    for text in texts:
        try:
            snapshot, folder = one(repository, text, only)
            if folder:
                raise SnapshotNotFound(f"choosing {text!r}: a folder after the id is not possible here")
        except SnapshotNotFound as error:
            output.warn(f"left out: {error}")
            continue
        if snapshot.id not in seen:
            seen.add(snapshot.id)
            yield snapshot


def tree_of(repository: Repository, snapshot: Snapshot, folder: str) -> str:
    """The id of the tree that is meant. Raises NodeNotFound."""
    from backstay.repository.queries.find import subtree

    with _hint(snapshot):
        return subtree(repository, snapshot.tree, folder, within=f"snapshot {snapshot.id[:8]}")


def node_of(repository: Repository, snapshot: Snapshot, folder: str, path: str) -> Node:
    """The node at a path in a folder of a snapshot. Raises NodeNotFound."""
    tree_id = tree_of(repository, snapshot, folder)
    place = f"folder {folder!r} of " if folder.strip("/") else ""
    with _hint(snapshot):
        return repository.find(tree_id, path, within=f"{place}snapshot {snapshot.id[:8]}")


@contextmanager
def _hint(snapshot: Snapshot) -> Iterator[None]:
    try:
        yield
    except NodeNotFound as error:
        raise NodeNotFound(f"{error}; 'backstay repo ls {snapshot.id[:8]}' lists what is there") from error
