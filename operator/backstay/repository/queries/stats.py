"""How large snapshots are, counted in the four ways that restic has.

`restore-size` is what a restore of each snapshot would write; `files-by-contents` counts each content once;
`blobs-per-file` counts each blob once a path; `raw-data` is what lies in the repository for them. The first holds
nothing but the inodes of hard links; the others remember 32 bytes for each content, reference or blob, which is what
telling them apart takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backstay.repository.format.blob import BlobType
from backstay.repository.format.crypto import OVERHEAD
from backstay.repository.format.snapshot import Snapshot
from backstay.repository.outcome import Progress
from backstay.repository.queries.find import walk

if TYPE_CHECKING:
    from backstay.repository.repository import Repository

MODES = ("restore-size", "files-by-contents", "blobs-per-file", "raw-data")


@dataclass
class Stats:
    """Counts of one mode; a count that the mode does not have stays 0. Sizes in bytes.

    `uncompressed_size`: what `size` would be without compression. `compressed_*`: the same of those blobs alone that
    are compressed.
    """

    snapshots: int = 0
    files: int = 0
    blobs: int = 0
    size: int = 0
    uncompressed_size: int = 0
    compressed_size: int = 0
    compressed_uncompressed_size: int = 0

    @property
    def compression_ratio(self) -> float:
        """Times by which compressed blobs are smaller; 0 when none is compressed."""
        return self.compressed_uncompressed_size / self.compressed_size if self.compressed_size else 0.0

    @property
    def compression_progress(self) -> float:
        """Per cent of the data that went through compression."""
        return self.compressed_uncompressed_size / self.uncompressed_size * 100 if self.uncompressed_size else 0.0

    @property
    def compression_saving(self) -> float:
        """Per cent of the space that compression saves."""
        return (1 - self.size / self.uncompressed_size) * 100 if self.uncompressed_size else 0.0


def count(
    repository: Repository,
    snapshots: Iterable[Snapshot],
    mode: str = "restore-size",
    *,
    progress: Callable[[Progress], None] | None = None,
) -> Stats:
    """Count what the snapshots hold. Raises ValueError for a mode that there is not, and Corrupted."""
    counters = {
        "restore-size": _RestoreSize,
        "files-by-contents": _FilesByContents,
        "blobs-per-file": _BlobsPerFile,
        "raw-data": _RawData,
    }
    if mode not in counters:
        raise ValueError(f"counting in mode {mode!r}: the modes are {', '.join(MODES)}")
    counter = counters[mode](repository)
    for snapshot in snapshots:
        counter.stats.snapshots += 1
        counter.take(snapshot.tree)
        if progress is not None:
            progress(Progress(counter.stats.files or counter.stats.blobs, counter.stats.size))
    return counter.stats


class _RestoreSize:
    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.stats = Stats()

    def take(self, tree_id: str) -> None:
        links: set[tuple[int, int]] = set()
        for found in walk(self.repository, tree_id):
            node = found.node
            self.stats.files += 1
            if node.links > 1 and node.type != "dir" and node.inode:
                if (node.inode, node.device_id) in links:
                    continue
                links.add((node.inode, node.device_id))
            self.stats.size += node.size


class _FilesByContents(_RestoreSize):
    def __init__(self, repository: Repository) -> None:
        super().__init__(repository)
        self._seen: set[bytes] = set()

    def take(self, tree_id: str) -> None:
        for found in walk(self.repository, tree_id):
            identity = hashlib.sha256("".join(found.node.content or ()).encode()).digest()
            if identity not in self._seen:
                self._seen.add(identity)
                self.stats.files += 1
                self.stats.size += found.node.size


class _BlobsPerFile(_RestoreSize):
    def __init__(self, repository: Repository) -> None:
        super().__init__(repository)
        self._contents: set[bytes] = set()
        self._paths: set[bytes] = set()
        self._references: set[bytes] = set()

    def take(self, tree_id: str) -> None:
        reader = self.repository.ready()
        for found in walk(self.repository, tree_id):
            content = found.node.content or ()
            identity = hashlib.sha256("".join(content).encode()).digest()
            if not content or identity in self._contents:
                continue
            self._contents.add(identity)
            path = hashlib.sha256(found.path.encode("utf-8", "surrogateescape")).digest()
            if path not in self._paths:
                self._paths.add(path)
                self.stats.files += 1
            for text in content:
                blob_id = bytes.fromhex(text)
                reference = hashlib.sha256(path + blob_id).digest()
                if reference not in self._references:
                    self._references.add(reference)
                    self.stats.blobs += 1
                    located = reader.locate(BlobType.DATA, blob_id)
                    self.stats.size += located.plain_length or located.length - OVERHEAD


class _RawData(_RestoreSize):
    def __init__(self, repository: Repository) -> None:
        super().__init__(repository)
        self._seen: tuple[set[bytes], set[bytes]] = (set(), set())

    def take(self, tree_id: str) -> None:
        if not self._add(BlobType.TREE, tree_id):
            return
        for found in walk(self.repository, tree_id, enter=lambda found: self._add(BlobType.TREE, found.node.subtree)):
            for text in found.node.content or ():
                self._add(BlobType.DATA, text)

    def _add(self, kind: BlobType, text: str) -> bool:
        """Count a blob; whether it was not counted before."""
        blob_id = bytes.fromhex(text)
        if blob_id in self._seen[kind]:
            return False
        self._seen[kind].add(blob_id)
        located = self.repository.ready().locate(kind, blob_id)
        plain = located.plain_length + OVERHEAD if located.plain_length else located.length
        self.stats.blobs += 1
        self.stats.size += located.length
        self.stats.uncompressed_size += plain
        if located.plain_length:
            self.stats.compressed_size += located.length
            self.stats.compressed_uncompressed_size += plain
        return True
