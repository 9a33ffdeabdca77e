"""`backup`: from paths, devices or a stream to a snapshot."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from backstay.cli.repo.environment import Settings, refuse, username
from backstay.cli.repo.exclusion import Exclusion
from backstay.cli.repo.integrity import upload_integrity
from backstay.cli.repo.output import Output, Tell, counted, duration, size
from backstay.cli.repo.verb import Incomplete, Moment, Size, verb

if TYPE_CHECKING:
    from backstay.repository.archive.writer import Writer
    from backstay.repository.crew import Crew
    from backstay.repository.format.snapshot import Snapshot
    from backstay.repository.outcome import Archive
    from backstay.repository.repository import Repository


@dataclass(frozen=True)
class Plan:
    """What is to be backed up, and how. `command`: whose output is stored. `time`: of the snapshot."""

    targets: tuple[str, ...]
    time: datetime
    host: str
    tags: tuple[str, ...]
    stdin: bool = False
    command: tuple[str, ...] = ()
    stdin_filename: str = "stdin"
    parent: str = ""
    force: bool = False
    group_by: tuple[str, ...] = ("host", "paths")
    exclusion: Exclusion = field(default_factory=Exclusion)
    one_file_system: bool = False
    image: bool = False
    dry_run: bool = False
    skip_if_unchanged: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """As the snapshot tells them."""
        if self.stdin or self.command:
            return ("/" + self.stdin_filename.lstrip("/"),)
        return tuple(os.path.abspath(target) for target in self.targets)


@verb("backup")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
@click.option("--files-from", "lists", multiple=True, metavar="FILE", help="File with more paths, one a line.")
@click.option("-H", "--host", metavar="NAME", help="Host of the snapshot [RESTIC_HOST] (default: this one).")
@click.option("--tag", "tags", multiple=True, metavar="TAGS", help="Tags of the snapshot, separated by commas.")
@click.option("--time", type=Moment(), metavar="TIME", help="Time of the snapshot (default: now).")
@click.option("--parent", metavar="ID", default="", help="Compare with this snapshot (default: the last of the group).")
@click.option("-g", "--group-by", default="host,paths", show_default=True, metavar="GROUP", help="Which one is that.")
@click.option("-f", "--force", is_flag=True, help="Read all files, whatever the parent says.")
@click.option("-e", "--exclude", multiple=True, metavar="PATTERN", help="Leave out what matches.")
@click.option("--iexclude", multiple=True, metavar="PATTERN", help="The same, upper and lower case being equal.")
@click.option("--exclude-file", multiple=True, metavar="FILE", help="File of patterns, one a line.")
@click.option("--iexclude-file", multiple=True, metavar="FILE", help="The same, ignoring case.")
@click.option("--exclude-caches", is_flag=True, help="Leave out what is in directories with a CACHEDIR.TAG.")
@click.option("--exclude-if-present", multiple=True, metavar="NAME[:HEADER]", help="And in those that hold this file.")
@click.option("--exclude-larger-than", type=Size(), metavar="SIZE", help="Leave out larger files.")
@click.option("-x", "--one-file-system", is_flag=True, help="Leave out what is mounted below the paths.")
@click.option("-n", "--dry-run", is_flag=True, help="Read everything, store nothing, and tell what would be added.")
@click.option("--skip-if-unchanged", is_flag=True, help="Write no snapshot that equals its parent.")
@click.option("--stdin", is_flag=True, help="Store standard input as a file.")
@click.option("--stdin-filename", default="stdin", show_default=True, metavar="NAME", help="And call it so.")
@click.option("--stdin-from-command", is_flag=True, help="Store what the command in the arguments prints.")
@click.option("--image", is_flag=True, help="The paths are disk images, or links to such or to devices.")
def backup(
    settings: Settings,
    output: Output,
    paths: tuple[str, ...],
    lists: tuple[str, ...],
    host: str | None,
    tags: tuple[str, ...],
    time: datetime | None,
    parent: str,
    group_by: str,
    force: bool,
    exclude: tuple[str, ...],
    iexclude: tuple[str, ...],
    exclude_file: tuple[str, ...],
    iexclude_file: tuple[str, ...],
    exclude_caches: bool,
    exclude_if_present: tuple[str, ...],
    exclude_larger_than: int | None,
    one_file_system: bool,
    dry_run: bool,
    skip_if_unchanged: bool,
    stdin: bool,
    stdin_filename: str,
    stdin_from_command: bool,
    image: bool,
) -> None:
    """Store files and directories as a new snapshot; only what changed since the last one is read and sent.

    A block device is stored as the image of its content, and with --image so are files, and what links lead to. With
    --stdin-from-command, the arguments are a command, and a
    snapshot is written only if it succeeds:

    \b
        backstay repo backup --stdin-from-command --stdin-filename shop.sql -- pg_dump shop

    Exit code 3 says that a snapshot was written, but some of the source could not be read.
    """
    from backstay.cli.repo.session import open_with_crew
    from backstay.cli.repo.snapshots import grouping

    targets = (*paths, *_listed(lists))
    if stdin and (targets or stdin_from_command):
        refuse("backing up standard input: leave out paths and --stdin-from-command")
    if not stdin and not targets:
        refuse("backing up: nothing is named; give files or directories")
    exclusion = Exclusion(
        (*exclude, *patterns_from(exclude_file)),
        (*iexclude, *patterns_from(iexclude_file)),
        exclude_caches,
        exclude_if_present,
        exclude_larger_than,
    )
    exclusion.prove()
    plan = Plan(
        targets=() if stdin_from_command else targets,
        time=time or datetime.now(UTC).astimezone(),
        host=host or settings.variable("HOST") or os.uname().nodename,
        tags=tuple(dict.fromkeys(tag.strip() for text in tags for tag in text.split(",") if tag.strip())),
        stdin=stdin,
        command=targets if stdin_from_command else (),
        stdin_filename=stdin_filename,
        parent=parent,
        force=force,
        group_by=grouping(group_by),
        exclusion=exclusion,
        one_file_system=one_file_system,
        image=image,
        dry_run=dry_run,
        skip_if_unchanged=skip_if_unchanged,
    )
    there, missing = _existing(plan.targets)
    for path in missing:
        output.warn("does not exist, so it is left out", path, "scan")
    if plan.targets and not there:
        refuse("backing up: none of the paths exists; check them")
    plan = replace(plan, targets=there)
    for path in () if image else there:
        if _leads_to_device(path):
            output.note(
                f"{path} is a link to a device, and stored as a link; use --image to store the device's content"
            )
    with open_with_crew(settings, dry_run=dry_run) as (repository, crew):
        _Run(settings, output, plan, repository, crew).run(len(missing))


def _listed(files: Sequence[str]) -> Iterator[str]:
    """Paths and globs out of files; empty lines and lines that begin with # mean nothing."""
    import glob

    for line in _lines(files, "the paths"):
        yield from sorted(glob.glob(line, include_hidden=True)) or [line]


def patterns_from(files: Sequence[str]) -> Iterator[str]:
    """The patterns in files."""
    from backstay.repository.archive.patterns import from_file

    for file in files:
        yield from from_file(_content(file, "patterns"), os.environ)


def _lines(files: Sequence[str], what: str) -> Iterator[str]:
    for file in files:
        for line in os.fsdecode(_content(file, what)).splitlines():
            if line.strip() and not line.startswith("#"):
                yield line.strip()


def _content(file: str, what: str) -> bytes:
    try:
        if file == "-":
            return sys.stdin.buffer.read()
        with open(file, "rb") as stream:
            return stream.read()
    except OSError as error:
        refuse(f"reading {what} from {file}: {error.strerror}; check the path")


def _existing(targets: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    missing = [target for target in targets if not os.path.lexists(target)]
    return tuple(target for target in targets if target not in missing), missing


def _leads_to_device(path: str) -> bool:
    try:
        return os.path.islink(path) and stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:  # the archiver will tell
        return False


class _Run:
    """One backup."""

    def __init__(self, settings: Settings, output: Output, plan: Plan, repository: Repository, crew: Crew) -> None:
        self._settings = settings
        self._output = output
        self._plan = plan
        self._repository = repository
        self._crew = crew

    def run(self, missing: int) -> None:
        """Do it and tell; raises Incomplete when a snapshot lacks something."""
        from backstay.cli.repo.session import writing

        plan, output = self._plan, self._output
        begun = datetime.now(UTC)
        with writing(self._repository, self._settings, output) as writer, output.progress("backup") as tell:
            # The index is loaded by now, and reading snapshots meanwhile would only compete with that.
            parent = self._parent()
            if parent is not None:
                output.note(f"using parent snapshot {parent.id[:8]}")
            elif not (plan.stdin or plan.command):
                output.note("no parent snapshot found, will read all files")
            archive = self._archive(writer, parent, tell)
            snapshot = self._snapshot(archive, parent, begun)
            same = parent is not None and parent.tree == archive.tree
            snapshot_id = ""
            if not plan.dry_run and not (plan.skip_if_unchanged and same):
                snapshot_id = writer.commit(snapshot)
        for note in archive.notes:
            output.detail(f"{note.path}: {note.message}")
        for warning in archive.warnings:
            output.warn(warning.message, warning.path, "archival")
        self._tell(archive, snapshot, snapshot_id)
        lacking = archive.warning_count + missing
        if lacking:
            raise Incomplete(f"{counted(lacking, 'entry')} could not be stored as in the source; see the warnings")

    def _parent(self) -> Snapshot | None:
        from backstay.cli.repo.choose import Filter, latest, one
        from backstay.repository.errors import SnapshotNotFound

        plan = self._plan
        if plan.force or plan.stdin or plan.command:
            return None
        if plan.parent:
            return one(self._repository, plan.parent)[0]
        only = Filter(
            (plan.host,) if "host" in plan.group_by else (),
            (plan.tags,) if "tags" in plan.group_by and plan.tags else (),
            plan.paths if "paths" in plan.group_by else (),
        )
        try:
            return latest(self._repository, only, before=plan.time)
        except SnapshotNotFound:
            return None

    # --- content --------------------------------------------------------------------------------------------------

    def _archive(self, writer: Writer, parent: Snapshot | None, tell: Tell) -> Archive:
        plan = self._plan
        if plan.stdin:
            return self._stream(writer, sys.stdin.fileno(), tell)
        if plan.command:
            with _output_of(plan.command) as descriptor:
                return self._stream(writer, descriptor, tell)
        from backstay.repository.archive import roots

        def archive(path: str, **options: Any) -> Archive:
            return writer.backup(path, crew=self._crew, one_file_system=plan.one_file_system, **options)

        return roots.Saver(
            self._repository,
            writer,
            archive,
            parent=parent,
            image=_save_image,
            images=plan.image,
            exclude=plan.exclusion or None,
            progress=tell,
        ).save(roots.plan(plan.targets))

    def _stream(self, writer: Writer, descriptor: int, tell: Tell) -> Archive:
        from backstay.repository.archive import stream

        def read(room: memoryview) -> int:
            return os.readv(descriptor, [room])

        return stream.save(
            writer, read, name=self._plan.stdin_filename.lstrip("/"), time=self._plan.time, progress=tell
        )

    # --- the snapshot ---------------------------------------------------------------------------------------------

    def _snapshot(self, archive: Archive, parent: Snapshot | None, begun: datetime) -> Snapshot:
        from backstay import __version__
        from backstay.repository.format.snapshot import Snapshot

        plan = self._plan
        offset = plan.time.utcoffset()
        return Snapshot(
            time=plan.time.astimezone(UTC),
            utc_offset=int(offset.total_seconds()) if offset else 0,
            tree=archive.tree,
            paths=plan.paths,
            hostname=plan.host,
            username=username(),
            uid=os.getuid(),
            gid=os.getgid(),
            tags=plan.tags,
            excludes=(*plan.exclusion.patterns, *plan.exclusion.ignoring_case),
            parent=parent.id if parent else "",
            program_version=f"backstay {__version__}",
            summary=archive.summary(begun, datetime.now(UTC)),
        )

    def _tell(self, archive: Archive, snapshot: Snapshot, snapshot_id: str) -> None:
        from dataclasses import asdict

        from backstay.repository.format import rfc3339

        output, dry_run = self._output, self._plan.dry_run
        assert snapshot.summary is not None
        summary = asdict(snapshot.summary)
        begun, ended = summary.pop("backup_start"), summary.pop("backup_end")
        seconds = (ended - begun).total_seconds()
        document = {
            "message_type": "summary",
            **({"dry_run": True} if dry_run else {}),
            **summary,
            "total_duration": seconds,
            "backup_start": rfc3339.from_datetime(begun),
            "backup_end": rfc3339.from_datetime(ended),
            **upload_integrity(self._repository.store, output),
        }
        output.record({**document, "snapshot_id": snapshot_id} if snapshot_id else document)
        for word, kind in (("Files:", "files"), ("Dirs: ", "dirs")):
            new, changed, same = (summary[f"{kind}_{each}"] for each in ("new", "changed", "unmodified"))
            output.note(f"{word}       {new:5} new, {changed:5} changed, {same:5} unmodified")
        would = "Would add" if dry_run else "Added"
        output.note(f"{would} to the repository: {size(archive.data_added)} ({size(archive.added_bytes)} stored)")
        output.note(f"\nprocessed {counted(archive.files, 'file')}, {size(archive.bytes)} in {duration(seconds)}")
        if snapshot_id:
            output.note(f"snapshot {snapshot_id[:8]} saved")
        elif not dry_run:
            output.note("nothing changed, so no snapshot was written")


def _save_image(*arguments: Any, **options: Any) -> Archive:
    from backstay.repository.archive import image

    return image.save(*arguments, **options)


@contextmanager
def _output_of(command: Sequence[str]) -> Iterator[int]:
    """What a command prints. Raises SourceError if it does not succeed, after all was read."""
    import subprocess

    from backstay.repository.errors import SourceError

    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
    except OSError as error:
        raise SourceError(f"running {command[0]!r}: {error.strerror}; check the command") from error
    assert process.stdout is not None
    with _ended(process.terminate):
        yield process.stdout.fileno()
    code = process.wait()
    if code:
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        raise SourceError(f"running {command[0]!r}: it ended {how}, so no snapshot is written; see what it printed")


@contextmanager
def _ended(stop: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        stop()
        raise
