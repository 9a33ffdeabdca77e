"""`forget`: which snapshots go, by a policy or by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

import click

from backstay.cli.repo.choose import Filter, long_filter_options, several
from backstay.cli.repo.environment import Settings, refuse
from backstay.cli.repo.maintenance import prune_options, run_prune
from backstay.cli.repo.output import Output, counted
from backstay.cli.repo.verb import verb

if TYPE_CHECKING:
    from backstay.repository.format.snapshot import Snapshot
    from backstay.repository.lock import Lock
    from backstay.repository.prune.retention import Decision, Duration, Group, KeepPolicy
    from backstay.repository.repository import Repository

_SPANS = ("hourly", "daily", "weekly", "monthly", "yearly")


class Count(click.ParamType):  # type: ignore[type-arg]
    """A number of snapshots, or `unlimited`, which is -1."""

    name = "n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it."""
        text = str(value)
        if text in ("unlimited", "-1"):
            return -1
        if not text.isdigit():
            self.fail(f"{text!r} is no number of snapshots; give one, or unlimited", param, ctx)
        return int(text)


class Span(click.ParamType):  # type: ignore[type-arg]
    """A duration of the calendar, such as 1y5m7d2h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Duration:
        """Parse it."""
        from backstay.repository.prune.retention import parse_duration

        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _keep_options(function: Any) -> Any:
    """--keep-last to --keep-tag."""
    shorts = {"hourly": ["-H"], "daily": ["-d"], "weekly": ["-w"], "monthly": ["-m"], "yearly": ["-y"]}
    options = [click.option("-l", "--keep-last", type=Count(), default=0, metavar="N", help="Keep the last N.")]
    for span in _SPANS:
        text = f"Keep the last of each of N {'days' if span == 'daily' else span.removesuffix('ly') + 's'}."
        options.append(click.option(*shorts[span], f"--keep-{span}", type=Count(), default=0, metavar="N", help=text))
    options.append(
        click.option("--keep-within", type=Span(), metavar="DURATION", help="Keep all of the last 1y5m7d2h, say.")
    )
    for span in _SPANS:
        text = f"Keep {span} ones of that long."
        options.append(click.option(f"--keep-within-{span}", type=Span(), metavar="DURATION", help=text))
    options.append(click.option("--keep-tag", multiple=True, metavar="TAGS", help="Keep those with all of these tags."))
    for option in reversed(options):
        function = option(function)
    return function


@verb("forget")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_keep_options
@long_filter_options
@click.option("-g", "--group-by", default="host,paths", show_default=True, metavar="GROUP", help="Apply it to each.")
@click.option("-c", "--compact", is_flag=True, help="Tables without paths.")
@click.option("-n", "--dry-run", is_flag=True, help="Remove nothing, and tell what would be.")
@click.option("--unsafe-allow-remove-all", is_flag=True, help="Let all snapshots of a group go.")
@click.option("--prune", "prune_", is_flag=True, help="Prune when something was removed.")
@prune_options
def forget(
    settings: Settings,
    output: Output,
    ids: tuple[str, ...],
    only: Filter,
    group_by: str,
    compact: bool,
    dry_run: bool,
    unsafe_allow_remove_all: bool,
    prune_: bool,
    **options: Any,
) -> None:
    """Remove snapshots: those that are named, or those that a policy does not keep.

    The space that they took comes back by `prune`.
    """
    from backstay.cli.repo.session import open_repository
    from backstay.cli.repo.snapshots import grouping
    from backstay.repository.prune.forget import forget as remove

    if settings.as_of is not None:
        refuse("forgetting with --as-of: the past can only be read; leave the option out")
    keep = {name: options.pop(name) for name in list(options) if name.startswith("keep_")}
    policy = _policy(keep)
    by = grouping(group_by)
    repository = open_repository(settings)
    if ids:
        going = list(several(repository, ids, only, output))
    else:
        if policy.empty and not (unsafe_allow_remove_all and only):
            refuse("forgetting: no policy says what to keep; give --keep-..., or the ids of snapshots")
        found = list(several(repository, (), only, output))
        decisions = decide(policy, found, by, allow_remove_all=unsafe_allow_remove_all)
        going = [snapshot for _, decision in decisions for snapshot in decision.remove]
        _tell(output, decisions, by, compact=compact)
    with _lock_for_both(repository, settings, output) if going and prune_ and not dry_run else nullcontext() as held:
        if going:
            remove(
                repository,
                [snapshot.id for snapshot in going],
                dry_run=dry_run,
                wait=settings.retry_lock,
                on_wait=output.note,
                held=held,
            )
            names = " ".join(snapshot.id[:8] for snapshot in going)
            done = "would have removed" if dry_run else "removed"
            output.note(f"{done} {counted(len(going), 'snapshot')}: {names}")
        if ids:
            removed = [snapshot.id for snapshot in going]
            output.record({"message_type": "summary", "removed": removed, "dry_run": dry_run})
        if prune_ and going:
            without = [snapshot.id for snapshot in going] if dry_run else ()
            run_prune(repository, settings, output, dry_run=dry_run, without=without, held=held, **options)


def _lock_for_both(
    repository: Repository, settings: Settings, output: Output
) -> AbstractContextManager[Lock] | AbstractContextManager[None]:
    """An exclusive lock, so that nobody comes between forgetting and pruning.

    None under Object Lock, where a prune extends retentions under a shared lock of its own, beside which there can be
    no other.
    """
    if getattr(repository.store, "retention", None) is not None:
        return nullcontext()
    return repository.lock(exclusive=True, wait=settings.retry_lock, on_wait=output.note)


def _policy(keep: dict[str, Any]) -> KeepPolicy:
    from backstay.repository.prune.retention import KeepPolicy

    values = {name.removeprefix("keep_"): value for name, value in keep.items() if value}
    tags = values.pop("tag", ())
    return KeepPolicy(**values, tags=tuple(tuple(part.strip() for part in text.split(",")) for text in tags))


def decide(
    policy: KeepPolicy, found: Sequence[Snapshot], by: Sequence[str], *, allow_remove_all: bool
) -> list[tuple[Group, Decision]]:
    """What the policy keeps of each group. Raises ForgetRefused."""
    from datetime import UTC, datetime

    from backstay.repository.prune.retention import apply, group

    now, local = datetime.now(UTC), local_zone(os.environ)
    return [
        (key, apply(policy, members, now=now, local=local, allow_remove_all=allow_remove_all))
        for key, members in group(found, by).items()
    ]


def local_zone(environment: Mapping[str, str]) -> tzinfo:
    """The machine's time zone, with all of its changes: TZ, /etc/localtime, or UTC."""
    from datetime import UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    name = environment.get("TZ", "").lstrip(":")
    try:
        if name:
            return ZoneInfo(name)
        with open("/etc/localtime", "rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError, ZoneInfoNotFoundError):
        return UTC


def _tell(output: Output, decisions: list[tuple[Group, Decision]], by: Sequence[str], *, compact: bool) -> None:
    from backstay.cli.repo.snapshots import document, show

    documents = []
    for key, decision in decisions:
        kept = sorted(decision.keep, key=lambda each: each.snapshot.time)
        gone = sorted(decision.remove, key=lambda snapshot: snapshot.time)
        reasons = {each.snapshot.id: "\n".join(each.reasons) for each in decision.keep}
        if not output.json and not output.quiet:
            output.say(f"snapshots for {key}:" if str(key) else "snapshots:")
            if kept:
                output.say(f"keep {counted(len(kept), 'snapshot')}:")
                show(output, [each.snapshot for each in kept], compact=compact, reasons=reasons)
            if gone:
                output.say(f"remove {counted(len(gone), 'snapshot')}:")
                show(output, gone, compact=compact)
            output.say()
        documents.append(
            {
                "tags": list(key.tags) if "tags" in by else None,
                "host": key.host,
                "paths": list(key.paths) if "paths" in by else None,
                "keep": [document(each.snapshot) for each in decision.keep] or None,
                "remove": [document(snapshot) for snapshot in decision.remove] or None,
                "reasons": [
                    {"snapshot": document(each.snapshot), "matches": list(each.reasons)} for each in decision.keep
                ],
            }
        )
    output.record(documents)
