"""A stream of unknown length as one file: what a command writes, or standard input.

One thread reads and cuts, a few hash, compress and seal; when they fall behind, the reading waits. So a long stream
takes no more memory than a short one, but for 32 bytes a blob.
"""

from __future__ import annotations

import os
import stat
import time as clock
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from backstay.repository.archive.single_file import Tally, save_tree
from backstay.repository.errors import UnsafeName
from backstay.repository.format import rfc3339, tree
from backstay.repository.format.blob import BlobType
from backstay.repository.format.tree import MODE_DIR, Node
from backstay.repository.outcome import Archive, Progress
from backstay.repository.parallel import ordered

if TYPE_CHECKING:
    from backstay.repository.archive.writer import Writer

WORKERS = 2
CHUNKS = 6  # cuts in memory at once, each of 8 MiB at most
_PROGRESS_SECONDS = 0.25
_DIRECTORY_MODE = MODE_DIR | 0o755


def save(
    writer: Writer,
    readinto: Callable[[memoryview], int],
    *,
    name: str,
    time: datetime,
    mode: int = 0o644,
    progress: Callable[[Progress], None] | None = None,
) -> Archive:
    """Store a stream as the file `name`; nothing refers to it until a snapshot is committed.

    `readinto` fills some of a buffer and returns how many bytes, 0 at the end; what it raises ends the run, and nothing
    is stored that a snapshot could name. `name` may be a path, whose directories are made up. `time` (UTC) goes to
    every node; `mode`: the file's permissions. Raises UnsafeName for what no file can be called.
    """
    *directories, base = _parts(name)
    tally = Tally(writer)
    ids = bytearray()
    size = 0
    told = clock.monotonic()

    def store(chunk: bytes) -> tuple[bytes, int]:
        return writer.save_blob(BlobType.DATA, chunk), len(chunk)

    chunks = writer.chunker().cut(readinto)
    for blob_id, length in ordered(store, chunks, threads=WORKERS, ahead=CHUNKS, name="stream"):
        ids += blob_id
        size += length
        if progress is not None and clock.monotonic() - told > _PROGRESS_SECONDS:
            told = clock.monotonic()
            progress(Progress(0, size))
    moment = rfc3339.to_ns(rfc3339.from_datetime(time))
    node = Node(
        name=base,
        type="file",
        mode=tree.go_mode(stat.S_IFREG | mode),
        mtime=moment,
        atime=moment,
        ctime=moment,
        uid=os.geteuid(),
        gid=os.getegid(),
        size=size,
        links=1,
    )
    tree_id = save_tree(writer, node, ids)
    for directory in reversed(directories):
        node = replace(node, name=directory, type="dir", mode=_DIRECTORY_MODE, size=0, links=0, subtree=tree_id.hex())
        tree_id = writer.save_blob(BlobType.TREE, tree.encode([node]))
    if progress is not None:
        progress(Progress(1, size))
    return tally.archive(tree_id, size)


def _parts(name: str) -> list[str]:
    parts = name.removeprefix("/").split("/")
    if any(part in ("", ".", "..") or "\0" in part or len(tree.name_bytes(part)) > 255 for part in parts):
        raise UnsafeName(f"storing a stream as {name!r}: no file can be called so; choose another name")
    return parts
