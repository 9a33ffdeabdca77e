"""`copy`: snapshots from one repository into another."""

from __future__ import annotations

from dataclasses import replace

import click

from backstay.cli.repo.choose import Filter, filter_options, several
from backstay.cli.repo.environment import Settings
from backstay.cli.repo.integrity import upload_integrity
from backstay.cli.repo.output import Output, counted, size
from backstay.cli.repo.verb import verb


@verb("copy")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@filter_options
@click.option("--from-repo", metavar="URL", default="", help="The repository to copy from [RESTIC_FROM_REPOSITORY].")
@click.option("--from-repository-file", metavar="FILE", default="", help="File that names it.")
@click.option("--from-password-file", metavar="FILE", default="", help="Its password [RESTIC_FROM_PASSWORD_FILE].")
@click.option("--from-password-command", metavar="COMMAND", default="", help="Prints its password.")
@click.option("--from-insecure-no-password", is_flag=True, help="Its password is empty.")
def copy(
    settings: Settings,
    output: Output,
    ids: tuple[str, ...],
    only: Filter,
    from_repo: str,
    from_repository_file: str,
    from_password_file: str,
    from_password_command: str,
    from_insecure_no_password: bool,
) -> None:
    """Copy snapshots into the repository that --repo names; all, if none is named.

    What is there already is not copied again, so a copy that was cut short goes on where it was. Both repositories are
    reached with the same S3 credentials.
    """
    from backstay.cli.repo.session import open_repository, reading, writing
    from backstay.cli.repo.snapshots import headline
    from backstay.repository import copier

    origin = replace(
        settings,
        repo=from_repo,
        repository_file=from_repository_file,
        password_file=from_password_file,
        password_command=from_password_command,
        insecure_no_password=from_insecure_no_password,
        prefix="FROM",
        object_lock="",
    )
    target_settings = replace(settings, as_of=None, no_lock=False)
    source = open_repository(origin)
    target = open_repository(target_settings)
    new = skipped = 0
    with (
        reading(source, origin, output),
        writing(target, target_settings, output) as writer,
        output.progress("copy", unit="blobs") as tell,
    ):
        snapshots = several(source, ids, only, output)
        for copied in copier.copy(source, target, snapshots, writer=writer, progress=tell):
            if copied.new:
                new += 1
                output.note(headline(copied.source))
                output.say(f"snapshot {copied.snapshot[:8]} saved, copied from {copied.source.id[:8]}")
            else:
                skipped += 1
                output.detail(headline(copied.source))
                output.detail(f"skipping {copied.source.id[:8]}, it was copied to {copied.snapshot[:8]} before")
            output.record(
                {
                    "message_type": "verbose_status",
                    "action": "copied" if copied.new else "skipped",
                    "source_snapshot": copied.source.id,
                    "snapshot_id": copied.snapshot,
                }
            )
        added = writer.added_bytes
    output.record(
        {
            "message_type": "summary",
            "snapshots_copied": new,
            "snapshots_skipped": skipped,
            "data_added_packed": added,
            **upload_integrity(target.store, output),
        }
    )
    output.note(f"{counted(new, 'snapshot')} copied, {skipped} there already; {size(added)} stored")
