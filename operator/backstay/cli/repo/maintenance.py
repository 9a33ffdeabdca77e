"""`check`, `repair`, `prune` and `unlock`: what keeps a repository in order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from backstay.cli.repo.environment import Settings, refuse
from backstay.cli.repo.output import Output, size
from backstay.cli.repo.verb import Duration, Size, verb, with_global_options
from backstay.repository.errors import RepositoryError

if TYPE_CHECKING:
    from backstay.repository.repository import Repository


class Damaged(RepositoryError):  # noqa: N818  (named as the engine's errors are)
    """A check found something."""

    reason = "Damaged"
    permanent = True


@verb("check")
@click.option("--read-data", is_flag=True, help="Read all packs, down to the last byte.")
@click.option("--read-data-subset", metavar="SHARE", default="", help="Read some packs: 5%, 1/10 or 500M.")
def check(settings: Settings, output: Output, read_data: bool, read_data_subset: str) -> None:
    """Look whether everything that snapshots need is there and intact, and say which files are hurt if not."""
    from backstay.cli.repo.session import open_with_crew
    from backstay.repository.checker import check as examine
    from backstay.repository.subset import Subset

    if read_data and read_data_subset:
        refuse("checking: give --read-data or --read-data-subset, not both")
    try:
        subset = Subset.parse("all" if read_data else read_data_subset) if read_data or read_data_subset else None
    except ValueError as error:
        refuse(f"checking: {error}")
    with open_with_crew(settings) as (repository, crew), output.progress("check", unit="packs") as tell:
        report = examine(repository, read_data=subset, progress=tell, **with_crew(examine, crew))
    for notice in report.notices:
        output.note(notice)
    for finding in report.findings:
        if output.json:
            hurts = [{"snapshot": snapshot, "path": path} for snapshot, path, *_ in finding.hurts]
            kind = {"message_type": "error", "kind": finding.kind, "name": finding.name}
            output.record({**kind, "message": finding.message, "hurts": hurts, "hurt_count": finding.hurt_count})
            continue
        output.say(f"error: {finding.message}")
        for snapshot, path, *_ in finding.hurts:
            output.say(f"  hurts {path} in snapshot {snapshot[:8]}")
        if finding.hurt_count > len(finding.hurts):
            output.say(f"  and {finding.hurt_count - len(finding.hurts)} more")
    output.record(
        {
            "message_type": "summary",
            "num_errors": report.finding_count,
            "broken_packs": list(report.broken_packs) or None,
            "suggest_repair_index": any(finding.kind == "index" for finding in report.findings),
            "suggest_prune": False,
            "snapshots": report.snapshots,
            "trees": report.trees,
            "packs": report.packs,
            "packs_read": report.packs_read,
            "bytes_read": report.bytes_read,
            "hurt_snapshots": list(report.hurt_snapshots),
            "hurt_count": report.hurt_count,
        }
    )
    read = f", {report.packs_read} of them read in whole ({size(report.bytes_read)})" if report.packs_read else ""
    output.note(f"checked {report.snapshots} snapshots, {report.trees} trees and {report.packs} packs{read}")
    if not report.ok:
        hurt = f"; {report.hurt_count} files of {len(report.hurt_snapshots)} snapshots are hurt"
        raise Damaged(
            f"the repository has {report.finding_count} errors{hurt if report.hurt_count else ''}; copy it before"
            " anything else, then see 'backstay repo repair'"
        )
    output.say("no errors were found")


def with_crew(function: Any, crew: Any) -> dict[str, Any]:
    """The crew as an argument, for a function that can use one."""
    import inspect

    return {"crew": crew} if "crew" in inspect.signature(function).parameters else {}


@click.group("repair")
def repair() -> None:
    """Make the best of a damaged repository: run `check` first, and keep a copy of the bucket."""


with_global_options(repair)


@verb("index")
@click.option("--read-all-packs", is_flag=True, help="Trust no index, and read the header of every pack.")
def repair_index(settings: Settings, output: Output, read_all_packs: bool) -> None:
    """Write the index anew from the packs that are there."""
    from dataclasses import asdict

    from backstay.cli.repo.session import open_repository
    from backstay.repository.repair import repair_index as mend

    repository = open_repository(settings)
    with output.progress("repair", unit="packs") as tell:
        done = mend(repository, read_all_packs=read_all_packs, progress=tell)
    output.record({"message_type": "summary", **asdict(done)})
    for name, value in asdict(done).items():
        output.note(f"{name.replace('_', ' ')}: {value}")
    output.say("the index is written anew")


@verb("snapshots")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("-n", "--dry-run", is_flag=True, help="Change nothing, and tell what would be done.")
@click.option("--forget", "forget_", is_flag=True, help="Remove the damaged ones once they are replaced.")
def repair_snapshots(settings: Settings, output: Output, ids: tuple[str, ...], dry_run: bool, forget_: bool) -> None:
    """Write damaged snapshots again without what is lost in them."""
    from dataclasses import asdict

    from backstay.cli.repo.session import open_repository
    from backstay.repository.repair import repair_snapshots as mend

    repository = open_repository(settings)
    chosen = tuple(repository.snapshot(each).id for each in ids)
    for done in mend(repository, chosen, forget=forget_, dry_run=dry_run):
        output.record({"message_type": "summary", **asdict(done)})
        output.say(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asdict(done).items()))


repair.add_command(repair_index)
repair.add_command(repair_snapshots)


def prune_options(function: Any) -> Any:
    """The options of a prune, which `forget --prune` has as well."""
    for option in (
        click.option("--repack-smaller-than", type=Size(), metavar="SIZE", help="Put packs below this together."),
        click.option("--repack-uncompressed", is_flag=True, help="Compress what is not."),
        click.option(
            "--delete-delay",
            type=Duration(),
            default="24h",
            show_default=True,
            metavar="DURATION",
            help="How long packs stay that nothing needs any more, for those who read meanwhile.",
        ),
        click.option("--max-repack-size", type=Size(), metavar="SIZE", help="Stop repacking after this much."),
        click.option(
            "--max-unused",
            default="5%",
            show_default=True,
            metavar="LIMIT",
            help="Leave so much unused: a share, a size, or unlimited.",
        ),
    ):
        function = option(function)
    return function


@verb("prune")
@prune_options
@click.option("-n", "--dry-run", is_flag=True, help="Change nothing, and tell what would be done.")
def prune(settings: Settings, output: Output, dry_run: bool, **options: Any) -> None:
    """Give back the space of what no snapshot needs.

    What is not needed any more leaves the index first; its packs are deleted by a later run, a day after, so that those
    who read meanwhile find them.
    """
    from backstay.cli.repo.session import open_repository

    run_prune(open_repository(settings), settings, output, dry_run=dry_run, **options)


def run_prune(
    repository: Repository,
    settings: Settings,
    output: Output,
    *,
    dry_run: bool,
    max_unused: str,
    max_repack_size: int | None,
    delete_delay: float,
    repack_uncompressed: bool,
    repack_smaller_than: int | None,
) -> None:
    """Prune and tell."""
    from dataclasses import asdict

    from backstay.repository.prune import prune as tidy
    from backstay.repository.prune_plan import PruneOptions, allowed_unused

    if settings.as_of is not None:
        refuse("pruning with --as-of: the past can only be read; leave the option out")
    try:
        allowed_unused(max_unused, 0)
    except ValueError as error:
        refuse(f"pruning: {error}")
    options = PruneOptions(
        max_unused=max_unused,
        max_repack_size=max_repack_size,
        delete_delay=timedelta(seconds=delete_delay),
        dry_run=dry_run,
        repack_uncompressed=repack_uncompressed,
        small_pack_size=repack_smaller_than,
        wait=settings.retry_lock,
    )
    with output.progress("prune", unit="packs") as tell:
        report = tidy(repository, options, now=datetime.now(UTC), progress=tell)
    found = {name: value for name, value in asdict(report).items() if not isinstance(value, tuple | list | dict)}
    output.record({"message_type": "summary", "dry_run": dry_run, **found})
    output.say("would have changed:" if dry_run else "pruned:")
    for name, value in found.items():
        shown = size(value) if isinstance(value, int) and "bytes" in name else value
        output.say(f"  {name.replace('_', ' ')}: {shown}")


@verb("unlock")
@click.option("--remove-all", is_flag=True, help="Remove locks of those that still work, too.")
def unlock(settings: Settings, output: Output, remove_all: bool) -> None:
    """Remove the locks of those that are gone."""
    from backstay.cli.repo.session import open_repository
    from backstay.repository import lock

    repository = open_repository(settings)
    removed = lock.unlock(repository.store, repository.codec, remove_all=remove_all)
    output.record({"message_type": "summary", "removed": removed})
    output.say(f"removed {removed} locks" if removed else "there were no locks to remove")
