"""`find`: where in the snapshots a file is, or a blob or tree."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from backstay.cli.repo.choose import Filter, filter_options, several
from backstay.cli.repo.environment import Settings
from backstay.cli.repo.output import Output
from backstay.cli.repo.verb import Moment, verb

if TYPE_CHECKING:
    from backstay.repository.format.snapshot import Snapshot
    from backstay.repository.queries.find import Found
    from backstay.repository.repository import Repository


@verb("find")
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN...")
@filter_options
@click.option("-s", "--snapshot", "ids", multiple=True, metavar="ID", help="Look in this snapshot only.")
@click.option("-i", "--ignore-case", is_flag=True, help="Take upper and lower case as equal.")
@click.option("-l", "--long", "long_", is_flag=True, help="With mode, owner, size and time.")
@click.option("--human-readable", is_flag=True, help="With --long: sizes in KiB and the like.")
@click.option("-O", "--oldest", type=Moment(), metavar="TIME", help="Not modified before.")
@click.option("-N", "--newest", type=Moment(), metavar="TIME", help="Not modified after.")
@click.option("-R", "--reverse", is_flag=True, help="Oldest snapshot first.")
@click.option("--blob", is_flag=True, help="The patterns are beginnings of blobs' ids.")
@click.option("--tree", is_flag=True, help="The patterns are beginnings of trees' ids.")
def find(
    settings: Settings,
    output: Output,
    patterns: tuple[str, ...],
    only: Filter,
    ids: tuple[str, ...],
    ignore_case: bool,
    long_: bool,
    human_readable: bool,
    oldest: datetime | None,
    newest: datetime | None,
    reverse: bool,
    blob: bool,
    tree: bool,
) -> None:
    """Look for files by name or path pattern, newest snapshot first; with --blob or --tree for what uses an id."""
    from backstay.cli.repo.session import open_repository, reading

    repository = open_repository(settings)
    with reading(repository, settings, output):
        snapshots = list(several(repository, ids, only, output))
        snapshots.sort(key=lambda snapshot: snapshot.time, reverse=not reverse)
        if blob or tree:
            _objects(repository, output, snapshots, patterns if blob else (), patterns if tree else ())
        else:
            shown = (long_, human_readable)
            _files(repository, output, snapshots, _Wanted(patterns, ignore_case, oldest, newest), shown)


class _Wanted:
    """Which files are looked for."""

    def __init__(
        self, patterns: Iterable[str], ignore_case: bool, oldest: datetime | None, newest: datetime | None
    ) -> None:
        from backstay.repository.archive.patterns import Patterns

        self._patterns = Patterns.parse(patterns, ignore_case=ignore_case)
        self._oldest = int(oldest.timestamp() * 1e9) if oldest else None
        self._newest = int(newest.timestamp() * 1e9) if newest else None

    def __call__(self, found: Found) -> bool:
        node = found.node
        if (self._oldest is not None and node.mtime < self._oldest) or (
            self._newest is not None and node.mtime > self._newest
        ):
            return False
        return self._patterns.includes(found.path.encode("utf-8", "surrogateescape"), node.type == "dir")

    def may_contain(self, found: Found) -> bool:
        """Whether it is worth descending."""
        path = found.path.encode("utf-8", "surrogateescape")
        return self._patterns.includes(path, True) or self._patterns.may_contain(path)


def _files(
    repository: Repository, output: Output, snapshots: list[Snapshot], wanted: _Wanted, shown: tuple[bool, bool]
) -> None:
    from backstay.cli.repo.content import long_line
    from backstay.cli.repo.snapshots import local
    from backstay.repository.queries.find import walk

    results: list[dict[str, Any]] = []
    for snapshot in snapshots:
        matches = []
        hits = 0
        for found in walk(repository, snapshot.tree, enter=wanted.may_contain):
            if not wanted(found):
                continue
            if not hits:
                output.say(f"Found matching entries in snapshot {snapshot.id[:8]} from {local(snapshot)}")
            hits += 1
            output.say(long_line(found, shown[1]) if shown[0] else found.path)
            if output.json:
                matches.append(_match(found))
        if hits:
            output.say()
            results.append({"matches": matches, "hits": hits, "snapshot": snapshot.id})
    output.record(results)


def _match(found: Found) -> dict[str, Any]:
    from backstay.cli.repo.content import node_document

    document = node_document(found)
    del document["name"]
    return {**document, "links": found.node.links, "user": found.node.user, "group": found.node.group}


def _objects(
    repository: Repository, output: Output, snapshots: list[Snapshot], blobs: tuple[str, ...], trees: tuple[str, ...]
) -> None:
    from backstay.cli.repo.snapshots import local
    from backstay.repository.format import rfc3339
    from backstay.repository.queries.find import uses

    results = []
    for snapshot in snapshots:
        for seen in uses(repository, snapshot.tree, blobs, trees):
            document = {"object_type": seen.kind, "id": seen.id, "path": seen.path}
            if seen.parent:
                document["parent_tree"] = seen.parent
            moment = snapshot.exact_time or rfc3339.from_datetime(snapshot.time, snapshot.utc_offset)
            results.append({**document, "snapshot": snapshot.id, "time": moment})
            output.say(f"Found {seen.kind} {seen.id}")
            if seen.kind == "blob":
                output.say(f" ... in file {seen.path}")
                output.say(f"     (tree {seen.parent})")
            else:
                output.say(f" ... path {seen.path}")
            output.say(f" ... in snapshot {snapshot.id[:8]} ({local(snapshot)})")
    output.record(results)
