"""`snapshots`: the list of what can be restored, and how a snapshot is shown everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from backstay.cli.repo.choose import Filter, filter_options, several
from backstay.cli.repo.environment import Settings
from backstay.cli.repo.output import Output, counted, size, table
from backstay.cli.repo.verb import verb

if TYPE_CHECKING:
    from backstay.repository.format.snapshot import Snapshot
    from backstay.repository.prune.retention import Group


@verb("snapshots")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@filter_options
@click.option("-c", "--compact", is_flag=True, help="One line for each, without paths.")
@click.option("-g", "--group-by", metavar="GROUP", default="", help="Group by host, paths and tags: host,paths.")
@click.option("--latest", type=click.IntRange(min=1), metavar="N", help="Only the last N of each host and paths.")
def snapshots(
    settings: Settings,
    output: Output,
    ids: tuple[str, ...],
    only: Filter,
    compact: bool,
    group_by: str,
    latest: int | None,
) -> None:
    """List the snapshots, oldest first."""
    from backstay.cli.repo.session import open_repository
    from backstay.repository.prune.retention import GROUP_BY, group

    repository = open_repository(settings)
    found = list(several(repository, ids, only, output))
    found.sort(key=lambda snapshot: (snapshot.time, snapshot.id))
    if latest:
        kept = {snapshot.id for members in group(found, GROUP_BY).values() for snapshot in newest(members, latest)}
        found = [snapshot for snapshot in found if snapshot.id in kept]
    if not group_by:
        output.record([document(snapshot) for snapshot in found])
        show(output, found, compact=compact)
        return
    by = grouping(group_by)
    grouped = group(found, by)
    output.record(
        [
            {"group_key": group_key(key, by), "snapshots": [document(snapshot) for snapshot in members]}
            for key, members in grouped.items()
        ]
    )
    for key, members in grouped.items():
        output.say(f"snapshots for {key}:")
        show(output, sorted(members, key=lambda snapshot: snapshot.time), compact=compact)


def newest(members: Sequence[Snapshot], count: int) -> list[Snapshot]:
    """The last `count` of them."""
    return sorted(members, key=lambda snapshot: (snapshot.time, snapshot.id))[-count:]


def grouping(text: str) -> tuple[str, ...]:
    """The words of a --group-by. Raises InvalidSetting."""
    from backstay.cli.repo.environment import refuse

    words = {"host": "host", "hosts": "host", "path": "paths", "paths": "paths", "tag": "tags", "tags": "tags"}
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if part not in words:
            refuse(f"grouping by {part!r}: group by host, paths and tags, separated by commas")
    return tuple(dict.fromkeys(words[part] for part in parts))


def group_key(key: Group, by: Sequence[str]) -> dict[str, Any]:
    """What the snapshots of a group have in common, as restic says it."""
    return {
        "hostname": key.host if "host" in by else "",
        "paths": list(key.paths) if "paths" in by else None,
        "tags": list(key.tags) if "tags" in by else None,
    }


def document(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as restic's JSON has it: its file's content, with its id."""
    import json

    from backstay.repository.format.snapshot import encode

    found: dict[str, Any] = json.loads(encode(snapshot))
    return {**found, "id": snapshot.id, "short_id": snapshot.id[:8]}


def headline(snapshot: Snapshot) -> str:
    """A snapshot in one line."""
    paths = " ".join(snapshot.paths)
    return f"snapshot {snapshot.id[:8]} of [{paths}] at {local(snapshot)} by {snapshot.username}@{snapshot.hostname}"


def local(snapshot: Snapshot) -> str:
    """Its time, in local time."""
    return snapshot.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def show(output: Output, found: Sequence[Snapshot], *, compact: bool, reasons: dict[str, str] | None = None) -> None:
    """A table of snapshots. `reasons`: a column for why each is kept, by its id."""
    if output.json:
        return
    header = ["ID", "Time", "Host", "Tags"] + ["Reasons"] * (reasons is not None)
    header += [] if compact else ["Paths"]
    header += ["Size"] if any(snapshot.summary for snapshot in found) else []
    rows = []
    for snapshot in found:
        row = [snapshot.id[:8], local(snapshot), snapshot.hostname, ("\n" if compact else ",").join(snapshot.tags)]
        if reasons is not None:
            row.append(reasons.get(snapshot.id, ""))
        if not compact:
            row.append("\n".join(sorted(snapshot.paths)))
        if header[-1] == "Size":
            row.append(size(snapshot.summary.total_bytes_processed) if snapshot.summary else "")
        rows.append(row)
    if rows:
        for line in table(header, rows):
            output.say(line)
    output.say(counted(len(found), "snapshot"))
