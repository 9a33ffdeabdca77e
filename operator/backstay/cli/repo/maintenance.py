"""`check`, `prune` and `unlock`: what keeps a repository in order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from backstay.cli.repo.environment import Settings, refuse
from backstay.cli.repo.integrity import upload_integrity
from backstay.cli.repo.output import Output, counted, size
from backstay.cli.repo.verb import Duration, Size, verb
from backstay.repository.errors import RepositoryError

if TYPE_CHECKING:
    from backstay.repository.lock import Lock
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
    from backstay.cli.repo.session import open_repository
    from backstay.repository.check.checker import check as examine
    from backstay.repository.check.subset import Subset

    if read_data and read_data_subset:
        refuse("checking: give --read-data or --read-data-subset, not both")
    try:
        subset = Subset.parse("all" if read_data else read_data_subset) if read_data or read_data_subset else None
    except ValueError as error:
        refuse(f"checking: {error}")
    repository = open_repository(settings)
    with output.progress("check", unit="packs") as tell:
        report = examine(
            repository,
            read_data=subset,
            progress=tell,
            lock=not settings.lockless,
            wait=settings.retry_lock,
            on_wait=output.note,
        )
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
    looked_at = (counted(n, what) for n, what in ((report.snapshots, "snapshot"), (report.trees, "tree")))
    output.note(f"checked {', '.join(looked_at)} and {counted(report.packs, 'pack')}{read}")
    if not report.ok:
        of = counted(len(report.hurt_snapshots), "snapshot")
        hurt = f"; hurt: {counted(report.hurt_count, 'file')} of {of}"
        raise Damaged(
            f"the repository has {counted(report.finding_count, 'error')}{hurt if report.hurt_count else ''}; copy it"
            " before anything else, then see 'backstay repo repair --help'"
        )
    output.say("no errors were found")


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
    without: Sequence[str] = (),
    held: Lock | None = None,
) -> None:
    """Prune and tell. `without`: ids of snapshots that are taken for removed; `held`: the lock under which to work."""
    from dataclasses import asdict

    from backstay.repository.prune.plan import PruneOptions, allowed_unused
    from backstay.repository.prune.prune import prune as tidy

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
    integrity = {} if dry_run else upload_integrity(repository.store, output)
    with output.progress("prune", unit="packs") as tell:
        report = tidy(
            repository,
            options,
            now=datetime.now(UTC),
            progress=tell,
            on_wait=output.note,
            without=without,
            held=held,
        )
    output.record({"message_type": "summary", **asdict(report), **integrity})
    needy = "1 snapshot needs" if report.snapshots == 1 else f"{report.snapshots} snapshots need"
    output.note(f"{needy} {size(report.used_bytes)} of {size(report.bytes_before)}")
    # Under Object Lock what is deleted is only hidden, until a prune after its retention frees it.
    locked = getattr(repository.store, "retention", None) is not None
    repack, remove = ("would repack", "would delete") if dry_run else ("repacked", "hidden" if locked else "deleted")
    of = f"of {counted(report.repacked_packs, 'pack')}"
    repacked = f"{counted(report.repacked_blobs, 'blob')} / {size(report.repacked_bytes)} {of}"
    output.note(f"{repack}: {repacked}")
    output.say(f"{remove}: {counted(report.removed_packs, 'pack')} / {size(report.removed_bytes)}")
    if report.retained_bytes:
        end = f", all free from {_minute(report.retained_until)} on" if report.retained_until else ""
        output.say(f"still kept by Object Lock, whoever deleted it: {size(report.retained_bytes)}{end}")
    if report.pending_packs:
        until = f" from {_minute(report.pending_until)} on" if report.pending_until else ""
        pending = f"{counted(report.pending_packs, 'pack')} / {size(report.pending_bytes)}"
        output.say(f"a later run deletes: {pending}{until}")
    output.note(
        f"remaining: {counted(report.blobs_after, 'blob')} / {size(report.bytes_after)},"
        f" {size(report.unused_bytes)} unused"
    )


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


@verb("unlock")
@click.option("--remove-all", is_flag=True, help="Remove locks of those that still work, too.")
def unlock(settings: Settings, output: Output, remove_all: bool) -> None:
    """Remove the locks of those that are gone."""
    from backstay.cli.repo.session import open_repository
    from backstay.repository import lock

    repository = open_repository(settings)
    removed = lock.unlock(repository.store, repository.codec, remove_all=remove_all)
    output.record({"message_type": "summary", "removed": removed})
    output.say(f"removed {counted(removed, 'lock')}" if removed else "there were no locks to remove")
