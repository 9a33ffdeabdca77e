"""Copying snapshots into another repository: opened with one master key, sealed with the other.

Trees and files keep their ids, so what the target has already is not read at all, and a copy that was cut short goes on
where it was. A snapshot is written when everything below it is durable; it gets a new id and remembers the first one in
`original`, by which a later run knows that it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from backstay.repository.format import tree
from backstay.repository.format.blob import BlobType
from backstay.repository.format.snapshot import Snapshot
from backstay.repository.outcome import Progress
from backstay.repository.reader import parse_id

if TYPE_CHECKING:
    from backstay.repository.archive.writer import Writer
    from backstay.repository.reader import Reader
    from backstay.repository.repository import Repository

_READERS = 4  # runs of blobs that are fetched, sealed and handed on at once
_RUN_BYTES = 8 << 20  # stored bytes of data blobs that one of them takes


@dataclass(frozen=True)
class Copied:
    """A snapshot that was copied, or was there before. `snapshot`: its id in the target."""

    source: Snapshot
    snapshot: str
    new: bool


def copy(
    source: Repository,
    target: Repository,
    snapshots: Iterable[Snapshot],
    *,
    writer: Writer,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[Copied]:
    """Copy snapshots one after the other, each told when it is written. `writer` is an open writer of the target.

    Raises Corrupted when the source has lost something that a snapshot needs; those before it are copied then.
    """
    there: dict[str, list[Snapshot]] = {}
    for known in target.snapshots():
        there.setdefault(known.original or known.id, []).append(known)
        if known.original:
            there.setdefault(known.id, []).append(known)
    done: set[bytes] = set()  # trees that are in the target with all that is below them
    counts = _Counts(progress)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="copy") as executor:
        for snapshot in snapshots:
            original = snapshot.original or snapshot.id
            same = next((known for known in there.get(original, ()) if similar(known, snapshot)), None)
            if same is not None:
                yield Copied(snapshot, same.id, new=False)
                continue
            _Transfer(source.ready(), writer, executor, done, counts).run(snapshot.tree)
            yield Copied(snapshot, writer.commit(replace(snapshot, id="", parent="", original=original)), new=True)


def similar(a: Snapshot, b: Snapshot) -> bool:
    """Whether two snapshots are copies of one: all is equal but the parent and the ids."""

    def essence(snapshot: Snapshot) -> tuple[object, ...]:
        return (
            snapshot.time,
            snapshot.tree,
            snapshot.hostname,
            snapshot.username,
            snapshot.uid,
            snapshot.gid,
            sorted(snapshot.paths),
            sorted(snapshot.tags),
            snapshot.excludes,
        )

    return essence(a) == essence(b)


@dataclass
class _Counts:
    progress: Callable[[Progress], None] | None
    blobs: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        self.blobs += 1
        self.bytes += size
        if self.progress is not None:
            self.progress(Progress(self.blobs, self.bytes))


class _Transfer:
    """All that one snapshot needs. Data goes in runs that adjoin in the source as far as files do."""

    def __init__(
        self, reader: Reader, writer: Writer, executor: ThreadPoolExecutor, done: set[bytes], counts: _Counts
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._executor = executor
        self._done = done
        self._counts = counts
        self._run: list[bytes] = []
        self._queued: set[bytes] = set()  # data blobs that are in a run which is not stored yet
        self._run_bytes = 0
        self._jobs: dict[Future[int], list[bytes]] = {}

    def run(self, tree_id: str) -> None:
        seen: set[bytes] = set()  # counted as done once the data is there as well
        try:
            self._trees(parse_id(tree_id, "the snapshot"), seen)
            self._start()
            while self._jobs:
                self._collect()
        finally:
            for job in self._jobs:
                job.cancel()
        self._done |= seen

    def _trees(self, root: bytes, seen: set[bytes]) -> None:
        waiting = [root]
        while waiting:
            tree_id = waiting.pop()
            if tree_id in self._done or tree_id in seen:
                continue
            seen.add(tree_id)
            content = self._reader.tree(tree_id)
            nodes = tree.decode_raw(content, tree_id.hex())
            what = f"tree {tree_id.hex()}"
            below = []
            for node in nodes:
                if node.type == "dir" and node.subtree:
                    below.append(parse_id(node.subtree, what))
                for text in node.content or ():
                    self._data(parse_id(text, what))
            waiting.extend(reversed(below))  # in tree order, in which their data was stored
            if not self._known(BlobType.TREE, tree_id):
                self._writer.save_blob(BlobType.TREE, content)
                self._counts.add(len(content))

    def _known(self, kind: BlobType, blob_id: bytes) -> bool:
        return bool(self._writer.known(kind, blob_id)[0])

    def _data(self, blob_id: bytes) -> None:
        if blob_id in self._queued or self._known(BlobType.DATA, blob_id):
            return
        self._queued.add(blob_id)
        self._run.append(blob_id)
        self._run_bytes += self._reader.locate(BlobType.DATA, blob_id).length
        if self._run_bytes >= _RUN_BYTES:
            self._start()

    def _start(self) -> None:
        if not self._run:
            return
        while len(self._jobs) >= _READERS:
            self._collect()
        run, self._run, self._run_bytes = self._run, [], 0
        self._jobs[self._executor.submit(self._store, run)] = run

    def _store(self, run: list[bytes]) -> int:
        size = 0
        for content in self._reader.contents(run):
            self._writer.save_blob(BlobType.DATA, content)
            size += len(content)
        return size

    def _collect(self) -> None:
        finished, _ = wait(self._jobs, return_when=FIRST_COMPLETED)
        for job in finished:
            run = self._jobs.pop(job)
            self._counts.blobs += len(run) - 1
            self._counts.add(job.result())
            self._queued.difference_update(run)
