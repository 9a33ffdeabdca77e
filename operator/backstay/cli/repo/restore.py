"""`restore`: from a snapshot back to files, or onto a device."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from backstay.cli.repo.choose import Filter, filter_options, node_of, one, tree_of
from backstay.cli.repo.environment import Settings, refuse
from backstay.cli.repo.output import Output, counted, duration, size
from backstay.cli.repo.verb import Incomplete, verb
from backstay.repository.errors import Corrupted

if TYPE_CHECKING:
    from backstay.repository.archive.patterns import Patterns
    from backstay.repository.format.tree import Node
    from backstay.repository.outcome import Restoration
    from backstay.repository.repository import Repository
    from backstay.repository.restore.existing import Choice, Overwrite


@verb("restore")
@click.argument("snapshot", metavar="ID")
@filter_options
@click.option("-t", "--target", metavar="DIR", required=True, help="Directory to restore into.")
@click.option("-i", "--include", multiple=True, metavar="PATTERN", help="Restore only what matches.")
@click.option("--iinclude", multiple=True, metavar="PATTERN", help="The same, upper and lower case being equal.")
@click.option("--include-file", multiple=True, metavar="FILE", help="File of patterns, one a line.")
@click.option("--iinclude-file", multiple=True, metavar="FILE", help="The same, ignoring case.")
@click.option("-e", "--exclude", multiple=True, metavar="PATTERN", help="Restore all but what matches.")
@click.option("--iexclude", multiple=True, metavar="PATTERN", help="The same, upper and lower case being equal.")
@click.option("--exclude-file", multiple=True, metavar="FILE", help="File of patterns, one a line.")
@click.option("--iexclude-file", multiple=True, metavar="FILE", help="The same, ignoring case.")
@click.option(
    "--overwrite",
    type=click.Choice(["always", "if-changed", "if-newer", "never"]),
    default="always",
    show_default=True,
    help="What happens to files that are there.",
)
@click.option("--delete", is_flag=True, help="Remove from the target what is not in the snapshot.")
@click.option("--sparse/--no-sparse", default=True, help="Make holes of zeros.")
@click.option("--verify", is_flag=True, help="Read everything back afterwards.")
@click.option("-n", "--dry-run", is_flag=True, help="Write nothing, and tell what would be done.")
@click.option(
    "--image", metavar="PATH", default="", help="This file of the snapshot is an image; --target is a device."
)
def restore(
    settings: Settings,
    output: Output,
    snapshot: str,
    only: Filter,
    target: str,
    include: tuple[str, ...],
    iinclude: tuple[str, ...],
    include_file: tuple[str, ...],
    iinclude_file: tuple[str, ...],
    exclude: tuple[str, ...],
    iexclude: tuple[str, ...],
    exclude_file: tuple[str, ...],
    iexclude_file: tuple[str, ...],
    overwrite: Overwrite,
    delete: bool,
    sparse: bool,
    verify: bool,
    dry_run: bool,
    image: str,
) -> None:
    """Restore a snapshot, or a folder of it (ID:folder), into a directory.

    Every blob is verified before a byte of it is written, and nothing is written outside the target. With --image, one
    file of the snapshot is written to a device or file.
    """
    from backstay.cli.repo.backup import patterns_from
    from backstay.cli.repo.session import open_with_crew, reading

    selection = Selection.parse(
        (*include, *patterns_from(include_file)),
        (*iinclude, *patterns_from(iinclude_file)),
        (*exclude, *patterns_from(exclude_file)),
        (*iexclude, *patterns_from(iexclude_file)),
    )
    if delete and selection.includes and os.path.abspath(target) == "/":
        refuse("restoring into / with --delete: give a target below it")
    with open_with_crew(settings) as (repository, crew), reading(repository, settings, output):
        found, folder = one(repository, snapshot, only)
        if image:
            node = node_of(repository, found, folder, image)
            _image(repository, output, node, image, target, sparse=sparse)
            return
        tree_id = tree_of(repository, found, folder)
        from backstay.cli.repo.snapshots import headline

        output.note(f"restoring {headline(found)} to {target}")
        whole = not folder.strip("/") and found.summary is not None and not selection
        totals: dict[str, Any] = {}
        if whole and found.summary is not None:
            totals["total_files"] = found.summary.total_files_processed
            totals["total_bytes"] = found.summary.total_bytes_processed
        begun = time.monotonic()
        with output.progress("restore") as tell:
            done = repository.restore(
                tree_id,
                target,
                overwrite=overwrite,
                delete=delete,
                select=selection.choose if selection else None,
                verify=verify,
                dry_run=dry_run,
                sparse=sparse,
                crew=crew,
                progress=tell,
                **totals,
            )
        _tell(output, done, time.monotonic() - begun, dry_run=dry_run, verify=verify)


def _tell(output: Output, done: Restoration, seconds: float, *, dry_run: bool, verify: bool) -> None:
    for warning in done.warnings:
        output.warn(warning.message, warning.path, "restore")
    document: dict[str, Any] = {
        "message_type": "summary",
        "seconds_elapsed": int(seconds),
        "total_files": done.files + done.dirs,
        "files_restored": done.files_restored + done.files_updated + done.dirs,
        "files_skipped": done.files_unchanged + done.files_skipped,
        "files_deleted": done.deleted,
        "total_bytes": done.bytes,
        "bytes_restored": done.bytes_restored,
        "bytes_skipped": done.bytes_skipped,
    }
    verified = {"files_verified": done.files_verified, "verify_errors": done.verify_errors} if verify else {}
    told = {name: value for name, value in document.items() if value or name == "total_files"}
    output.record({**told, **verified})
    would = "Would restore" if dry_run else "Restored"
    there = done.files_unchanged + done.files_skipped
    output.note(
        f"Summary: {would} {document['files_restored']} files/dirs ({size(done.bytes_restored)}) in {duration(seconds)}"
        + (f", left {there} as they were" if there else "")
        + (f", deleted {done.deleted}" if done.deleted else "")
    )
    if verify and not dry_run:
        wrong = (
            f", and {done.verify_errors} are not as they should be" if done.verify_errors else ", all as they should be"
        )
        output.note(f"Verified: read {counted(done.files_verified, 'file')} back{wrong}")
    if done.damaged:
        raise Corrupted(
            f"{done.damaged} of the snapshot's entries could not be restored, since the repository is damaged: run"
            " 'check --read-data', and look for them in other snapshots"
        )
    if done.warning_count:
        raise Incomplete(
            f"{counted(done.warning_count, 'entry')} could not be restored as in the snapshot; see the warnings"
        )


def _image(repository: Repository, output: Output, node: Node, path: str, target: str, *, sparse: bool) -> None:
    from backstay.repository.archive import image

    with output.progress("restore", unit="images") as tell:
        done = image.restore(repository, node, target, progress=tell, sparse=sparse)
    output.record({"message_type": "summary", "total_bytes": node.size, "bytes_restored": node.size})
    output.detail(str(done))
    output.note(f"Summary: Restored {path} ({size(node.size)}) to {target}")


@dataclass(frozen=True)
class Selection:
    """What is restored: what one of the including patterns matches (all, without any) and no excluding one."""

    includes: tuple[Patterns, ...] = ()
    excludes: tuple[Patterns, ...] = ()

    @classmethod
    def parse(
        cls, include: tuple[str, ...], iinclude: tuple[str, ...], exclude: tuple[str, ...], iexclude: tuple[str, ...]
    ) -> Selection:
        """Compile the patterns. Raises InvalidPattern, and InvalidSetting when there are both kinds."""
        if not (include or iinclude or exclude or iexclude):
            return cls()
        if (include or iinclude) and (exclude or iexclude):
            refuse("restoring: give patterns to include or to exclude, not both")
        from backstay.repository.archive.patterns import Patterns

        def compiled(exact: tuple[str, ...], folded: tuple[str, ...]) -> tuple[Patterns, ...]:
            both = (Patterns.parse(exact), Patterns.parse(folded, ignore_case=True))
            return tuple(patterns for patterns in both if patterns)

        return cls(compiled(include, iinclude), compiled(exclude, iexclude))

    def __bool__(self) -> bool:
        return bool(self.includes or self.excludes)

    @property
    def choose(self) -> Callable[[bytes, bool], Choice]:
        """Says of a path below the restored tree whether to take it and whether to look below it."""
        from backstay.repository.restore.existing import Choice

        def including(path: bytes, is_dir: bool) -> Choice:
            take = any(patterns.includes(path, is_dir) for patterns in self.includes)
            return Choice(take, take or (is_dir and any(patterns.may_contain(path) for patterns in self.includes)))

        def excluding(path: bytes, is_dir: bool) -> Choice:
            take = not any(patterns.excludes(path, is_dir) for patterns in self.excludes)
            return Choice(take, take and is_dir)

        return including if self.includes else excluding
