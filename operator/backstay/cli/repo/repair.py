"""`repair`: making the best of a damaged repository."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from backstay.cli.repo.environment import Settings, refuse
from backstay.cli.repo.output import Output, counted
from backstay.cli.repo.verb import VerbGroup, verb, with_global_options


@click.group("repair", cls=VerbGroup)
def repair() -> None:
    """Make the best of a damaged repository: first the index, then packs, then snapshots.

    Run `check` before, which says what is broken, and keep a copy of the bucket.
    """


with_global_options(repair)


def _lock_options(settings: Settings, output: Output) -> dict[str, Any]:
    if settings.as_of is not None:
        refuse("repairing with --as-of: the past can only be read; leave the option out")
    return {"wait": settings.retry_lock, "on_wait": output.note}


@verb("index")
@click.option("--read-all-packs", is_flag=True, help="Trust no index, and read the header of every pack.")
def repair_index(settings: Settings, output: Output, read_all_packs: bool) -> None:
    """Make the index say what is in the packs that are there."""
    from backstay.cli.repo.session import open_repository
    from backstay.repository.repair.index_repair import repair_index as mend

    repository = open_repository(settings)
    with output.progress("repair", unit="packs") as tell:
        done = mend(repository, read_all_packs=read_all_packs, progress=tell, **_lock_options(settings, output))
    output.record({"message_type": "summary", **asdict(done)})
    for word, packs in (
        ("added to the index", done.added),
        ("corrected in the index", done.corrected),
        ("dropped from the index, their blobs being lost", done.dropped),
        ("unreadable; 'repair packs' may save what is in them", done.unreadable),
    ):
        for pack_id in packs:
            output.detail(f"pack {pack_id}: {word}")
        if packs:
            output.say(f"{counted(len(packs), 'pack')} {word}")
    output.note(f"{counted(done.indexes_written, 'index file')} written, {done.indexes_removed} removed")
    if not (done.added or done.corrected or done.dropped or done.unreadable or done.indexes_broken):
        output.say("the index is right; if 'check' still misses blobs, they are lost: run 'repair snapshots'")


@verb("packs")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def repair_packs(settings: Settings, output: Output, ids: tuple[str, ...]) -> None:
    """Save the intact blobs of damaged packs, and remove the packs."""
    from backstay.cli.repo.session import open_repository
    from backstay.repository.repair.pack_repair import repair_packs as mend

    for each in ids:
        if len(each) != 64 or not all(digit in "0123456789abcdef" for digit in each):
            refuse(f"repairing pack {each!r}: this is no whole id; `check` tells those of broken packs")
    done = mend(open_repository(settings), ids, **_lock_options(settings, output))
    for pack in done:
        output.record({"message_type": "verbose_status", **asdict(pack)})
        kept = f"{counted(pack.saved, 'blob')} saved, {pack.lost} lost" if pack.removed else "whole, and left alone"
        output.say(f"pack {pack.pack_id[:8]}: {kept}")
    found = {pack.pack_id for pack in done}
    for each in ids:
        if each not in found:
            output.warn(f"pack {each[:8]} is not there")
    output.record({"message_type": "summary", "removed": sum(pack.removed for pack in done)})
    if any(pack.lost for pack in done):
        output.note("run 'repair snapshots' to write the snapshots that needed them without what is lost")


@verb("snapshots")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("-n", "--dry-run", is_flag=True, help="Change nothing, and tell what would be done.")
@click.option("--forget", "forget_", is_flag=True, help="Remove the damaged ones once they are replaced.")
def repair_snapshots(settings: Settings, output: Output, ids: tuple[str, ...], dry_run: bool, forget_: bool) -> None:
    """Write damaged snapshots again without what is lost in them."""
    from backstay.cli.repo.session import open_repository
    from backstay.repository.repair.snapshot_repair import repair_snapshots as mend

    repository = open_repository(settings)
    chosen = tuple(repository.snapshot(each).id if len(each) != 64 else each for each in ids)
    done = mend(repository, chosen, forget=forget_, dry_run=dry_run, **_lock_options(settings, output))
    for each in done:
        output.record(
            {
                "message_type": "verbose_status",
                "snapshot": each.snapshot_id,
                "action": each.action,
                "new_snapshot": each.new_id,
                "forgotten": each.forgotten,
                "changes": [change._asdict() for change in each.changes],
                "change_count": each.change_count,
            }
        )
        new = f" as {each.new_id[:8]}" if each.new_id else ""
        output.say(f"snapshot {each.snapshot_id[:8]}: {'would be ' if dry_run else ''}{each.action}{new}")
        for change in each.changes:
            output.say(f"  {change.path}: {change.message}")
        if each.change_count > len(each.changes):
            output.say(f"  and {each.change_count - len(each.changes)} more")
    output.record({"message_type": "summary", "snapshots": len(done), "dry_run": dry_run})
    if not done:
        output.say("all snapshots are whole")


for _command in (repair_index, repair_packs, repair_snapshots):
    repair.add_command(_command)
