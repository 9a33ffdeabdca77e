"""Snapshots: the roots from which everything in a repository is reached.

A snapshot file is the last thing a backup writes, so that it never points at anything that is not yet durable. See
"Snapshots" in restic's design document; field names and their order are those of restic's own files.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from backstay.repository.format import rfc3339
from backstay.repository.format.malformed import MALFORMED, malformed


@dataclass(frozen=True)
class Summary:
    """Statistics of the backup that made a snapshot. Sizes are in bytes, times in UTC."""

    backup_start: datetime
    backup_end: datetime
    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    dirs_new: int = 0
    dirs_changed: int = 0
    dirs_unmodified: int = 0
    data_blobs: int = 0
    tree_blobs: int = 0
    data_added: int = 0
    data_added_packed: int = 0
    total_files_processed: int = 0
    total_bytes_processed: int = 0


@dataclass(frozen=True)
class Snapshot:
    """One root: which tree, of what, from whom and when.

    `time` is in UTC; `tree`, `id`, `parent` and `original` are hexadecimal ids. `id` is the name of the snapshot's
    file, empty while it has not been written; `original` is the id that a rewritten snapshot first had. `utc_offset`:
    seconds east of UTC of the zone in which the time is written, by whose days policies count. `exact_time`: the time
    as it is written, where that tells more digits than `time` can hold; restic takes copies for different without them.
    """

    time: datetime
    tree: str
    paths: tuple[str, ...]
    hostname: str = ""
    username: str = ""
    tags: tuple[str, ...] = ()
    id: str = ""
    parent: str = ""
    original: str = ""
    uid: int = 0
    gid: int = 0
    excludes: tuple[str, ...] = ()
    program_version: str = ""
    summary: Summary | None = None
    utc_offset: int = 0
    exact_time: str = field(default="", compare=False)


class _SummaryJSON(msgspec.Struct):
    backup_start: str = ""
    backup_end: str = ""
    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    dirs_new: int = 0
    dirs_changed: int = 0
    dirs_unmodified: int = 0
    data_blobs: int = 0
    tree_blobs: int = 0
    data_added: int = 0
    data_added_packed: int = 0
    total_files_processed: int = 0
    total_bytes_processed: int = 0


class _SnapshotJSON(msgspec.Struct):
    time: str
    tree: str
    paths: list[str] | None = None
    parent: str = ""
    hostname: str = ""
    username: str = ""
    uid: int = 0
    gid: int = 0
    excludes: list[str] | None = None
    tags: list[str] | None = None
    original: str = ""
    program_version: str = ""
    summary: _SummaryJSON | None = None


_decoder = msgspec.json.Decoder(_SnapshotJSON)
_TREE_ID = re.compile("[0-9a-f]{64}")
_COUNTS = [name for name in Summary.__dataclass_fields__ if not name.startswith("backup_")]


def encode(snapshot: Snapshot) -> bytes:
    """The snapshot as the JSON that restic writes (fields that are empty are left out)."""
    time = rfc3339.from_datetime(snapshot.time, snapshot.utc_offset)
    if snapshot.exact_time and rfc3339.to_datetime(snapshot.exact_time) == snapshot.time:
        time = snapshot.exact_time
    document: dict[str, object] = {"time": time}
    if snapshot.parent:
        document["parent"] = snapshot.parent
    document["tree"] = snapshot.tree
    document["paths"] = list(snapshot.paths)
    optional: list[tuple[str, object]] = [
        ("hostname", snapshot.hostname),
        ("username", snapshot.username),
        ("uid", snapshot.uid),
        ("gid", snapshot.gid),
        ("excludes", list(snapshot.excludes)),
        ("tags", list(snapshot.tags)),
        ("original", snapshot.original),
        ("program_version", snapshot.program_version),
    ]
    document.update((name, value) for name, value in optional if value)
    if snapshot.summary is not None:
        summary: dict[str, object] = {
            "backup_start": rfc3339.from_datetime(snapshot.summary.backup_start),
            "backup_end": rfc3339.from_datetime(snapshot.summary.backup_end),
        }
        summary.update((name, getattr(snapshot.summary, name)) for name in _COUNTS)
        document["summary"] = summary
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def decode(data: bytes, snapshot_id: str) -> Snapshot:
    """Parse a snapshot file's JSON. Raises Corrupted, naming the snapshot, on anything that is not a snapshot."""
    try:
        raw = _decoder.decode(data)
        if not _TREE_ID.fullmatch(raw.tree):
            raise ValueError("its tree is named by no id")
        summary = None
        if raw.summary is not None:
            summary = Summary(
                rfc3339.to_datetime(raw.summary.backup_start),
                rfc3339.to_datetime(raw.summary.backup_end),
                **{name: getattr(raw.summary, name) for name in _COUNTS},
            )
        time, utc_offset = rfc3339.to_datetime(raw.time), rfc3339.offset(raw.time)
    except MALFORMED as error:
        raise malformed(f"snapshot {snapshot_id} decrypts but is no snapshot document", error) from error
    return Snapshot(
        time=time,
        tree=raw.tree,
        paths=tuple(raw.paths or ()),
        hostname=raw.hostname,
        username=raw.username,
        tags=tuple(raw.tags or ()),
        id=snapshot_id,
        parent=raw.parent,
        original=raw.original,
        uid=raw.uid,
        gid=raw.gid,
        excludes=tuple(raw.excludes or ()),
        program_version=raw.program_version,
        summary=summary,
        utc_offset=utc_offset,
        exact_time="" if raw.time == rfc3339.from_datetime(time, utc_offset) else raw.time,
    )


def now() -> datetime:
    """The present, in UTC, as snapshots store it."""
    return datetime.now(UTC)
