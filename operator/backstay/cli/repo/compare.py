"""`diff` and `stats`: what changed between two snapshots, and how large they are."""

from __future__ import annotations

from dataclasses import asdict

import click

from backstay.cli.repo.choose import Filter, filter_options, one, several, tree_of
from backstay.cli.repo.environment import Settings
from backstay.cli.repo.output import Output, size
from backstay.cli.repo.verb import verb


@verb("diff")
@click.argument("before", metavar="ID")
@click.argument("after", metavar="ID")
@click.option("--metadata", is_flag=True, help="Tell entries that differ in metadata alone.")
def diff(settings: Settings, output: Output, before: str, after: str, metadata: bool) -> None:
    """Tell what differs between two snapshots, or folders of them (ID:folder).

    \b
    +  added             U  its metadata changed (with --metadata)
    -  removed           T  its type changed
    M  its content changed
    M? its content changed and nothing else, as when a disk rots
    """
    from backstay.cli.repo.session import open_repository, reading
    from backstay.repository.queries.diff import Comparison

    repository = open_repository(settings)
    with reading(repository, settings, output):
        (first, first_folder), (second, second_folder) = one(repository, before), one(repository, after)
        output.note(f"comparing snapshot {first.id[:8]} to {second.id[:8]}:")
        comparison = Comparison(
            repository,
            tree_of(repository, first, first_folder),
            tree_of(repository, second, second_folder),
            metadata=metadata,
        )
        for change in comparison.changes():
            output.record({"message_type": "change", "path": change.path, "modifier": change.modifier})
            output.say(f"{change.modifier:<5}{change.path}")
    added, removed = comparison.added, comparison.removed
    output.record(
        {
            "message_type": "statistics",
            "source_snapshot": before,
            "target_snapshot": after,
            "changed_files": comparison.changed_files,
            "added": asdict(added),
            "removed": asdict(removed),
        }
    )
    output.say()
    files = comparison.changed_files
    output.say(f"Files:       {added.files:5} new, {removed.files:5} removed, {files:5} changed")
    output.say(f"Dirs:        {added.dirs:5} new, {removed.dirs:5} removed")
    output.say(f"Others:      {added.others:5} new, {removed.others:5} removed")
    output.say(f"Data Blobs:  {added.data_blobs:5} new, {removed.data_blobs:5} removed")
    output.say(f"Tree Blobs:  {added.tree_blobs:5} new, {removed.tree_blobs:5} removed")
    output.say(f"  Added:   {size(added.bytes)}")
    output.say(f"  Removed: {size(removed.bytes)}")


@verb("stats")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@filter_options
@click.option(
    "--mode",
    type=click.Choice(["restore-size", "files-by-contents", "blobs-per-file", "raw-data"]),
    default="restore-size",
    show_default=True,
    help="What is counted.",
)
def stats(settings: Settings, output: Output, ids: tuple[str, ...], only: Filter, mode: str) -> None:
    """Tell how large snapshots are.

    \b
    restore-size       what restoring each of them would write
    files-by-contents  each different content once
    blobs-per-file     each blob once a file
    raw-data           what lies in the repository for them
    """
    from backstay.cli.repo.session import open_repository, reading
    from backstay.repository.queries.stats import count

    repository = open_repository(settings)
    with reading(repository, settings, output), output.progress("stats") as tell:
        found = count(repository, several(repository, ids, only, output), mode, progress=tell)
    document: dict[str, object] = {"total_size": found.size}
    if found.uncompressed_size:
        document["total_uncompressed_size"] = found.uncompressed_size
        ratios = {
            "compression_ratio": found.compression_ratio,
            "compression_progress": found.compression_progress,
            "compression_space_saving": found.compression_saving,
        }
        document.update((name, value) for name, value in ratios.items() if value)
    document.update(
        (name, n) for name, n in (("total_file_count", found.files), ("total_blob_count", found.blobs)) if n
    )
    output.record({**document, "snapshots_count": found.snapshots})
    lines: list[tuple[str, object]] = [("Snapshots processed", found.snapshots)]
    lines += [(name, n) for name, n in (("Total Blob Count", found.blobs), ("Total File Count", found.files)) if n]
    if found.uncompressed_size:
        lines.append(("Total Uncompressed Size", size(found.uncompressed_size)))
    lines.append(("Total Size", size(found.size)))
    if found.compressed_size:
        lines.append(("Compression Progress", f"{found.compression_progress:.2f}%"))
        lines.append(("Compression Ratio", f"{found.compression_ratio:.2f}x"))
        lines.append(("Compression Space Saving", f"{found.compression_saving:.2f}%"))
    output.say(f"Stats in {mode} mode:")
    for name, value in lines:
        output.say(f"{name:>24}:  {value}")
