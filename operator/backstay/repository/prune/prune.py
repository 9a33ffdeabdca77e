"""Prune: mark what the snapshots use, repack what lies beside waste, and delete what was unused for long enough.

Marking and repacking need only a shared lock, for all that they write is new packs and indexes that name them; backups
go on beside them. Then, under an exclusive lock, which is held for a short time: what was added meanwhile is marked
too, packs that are not to stay are taken out of the indexes, and packs are deleted that were out of all indexes for
`delete_delay`. Those that went out now are recorded, as are packs that never were in an index, which crashed writers
leave; a later run deletes them.

It may be killed at any moment. An index is only removed when new ones name all that it named of what is kept; a pack is
only deleted when no index names it; and what a run did is found by the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from backstay.repository.errors import Corrupted, ObjectNotFound, RepositoryLocked
from backstay.repository.format import pack
from backstay.repository.format.blob import BlobType
from backstay.repository.format.index import Entry
from backstay.repository.lock import Lock
from backstay.repository.outcome import Progress
from backstay.repository.prune.plan import PackState, Plan, PruneOptions, decide
from backstay.repository.prune.repack import INDEX_BLOBS, Repacker, put_index
from backstay.repository.prune.unreferenced import Record
from backstay.repository.prune.usage import Usage
from backstay.repository.reader import parse_id
from backstay.repository.repository import Repository

_ATTEMPTS = 3
_SMALL_INDEXES = 10  # index files that are less than half full, of which so many are put together
_DELETIONS = 8  # at once
_BATCH = 256  # deletions between which the lock is looked at


@dataclass(frozen=True)
class PruneReport:
    """What a prune did, or with `dry_run` would do. Sizes are bytes of blobs as stored, of packs whole.

    `before` and `after` count what the indexes name. `used_bytes`: what the snapshots need. `unused_bytes`: what stays
    wasted in packs that are kept. `repacked`: blobs that were stored again, and out of which packs. `removed`: packs
    that were deleted. `pending`: packs that no index names any more and that a later run deletes, from `pending_until`
    (UTC) on the first of them. `retained_bytes`: deleted, but kept by S3 Object Lock until `retained_until` (UTC) at
    the latest; those whose time is over were freed.
    """

    snapshots: int = 0
    packs_before: int = 0
    packs_after: int = 0
    blobs_before: int = 0
    blobs_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    used_bytes: int = 0
    unused_bytes: int = 0
    repacked_packs: int = 0
    repacked_blobs: int = 0
    repacked_bytes: int = 0
    removed_packs: int = 0
    removed_bytes: int = 0
    pending_packs: int = 0
    pending_bytes: int = 0
    pending_until: datetime | None = None
    retained_bytes: int = 0
    retained_until: datetime | None = None
    dry_run: bool = False


class _Changed(Exception):  # noqa: N818
    """Somebody else removed indexes that we had read, so what we know is no basis for removing anything."""


def prune(
    repository: Repository,
    options: PruneOptions | None = None,
    *,
    now: datetime,
    without: Iterable[str] = (),
    progress: Callable[[Progress], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
    held: Lock | None = None,
) -> PruneReport:
    """Remove what no snapshot needs.

    `now`: the present, in UTC, from which the delay counts. `without`: snapshots that a dry run takes for forgotten.
    `progress` is told of packs and bytes that are repacked. `held`: the caller's exclusive lock, under which all is
    done; not under Object Lock, where retentions are extended under a lock of their own. Raises RepositoryLocked, and
    Corrupted when the repository is damaged in a way that leaves open what is needed: then nothing is removed.
    """
    options = options or PruneOptions()
    without = frozenset(without) if options.dry_run else frozenset()
    for _ in range(_ATTEMPTS):
        run = _Run(repository, options, now, without, progress, on_wait, held)
        try:
            return _release(repository, run.run(), options, now)
        except _Changed:
            continue
        finally:
            repository.forget_index()
    raise RepositoryLocked("pruning: somebody else changed the indexes each time we had read them; try again later")


def _release(repository: Repository, report: PruneReport, options: PruneOptions, now: datetime) -> PruneReport:
    """Under S3 Object Lock: keep what is needed for longer, and free what was deleted and has been kept long enough.

    A deletion only hides an object there, and may be of any age and by anybody; so what is hidden is looked for.
    """
    store = repository.store
    if options.dry_run or getattr(store, "retention", None) is None:
        return report
    from backstay.repository.prune.prolong import extend_retention
    from backstay.repository.stores.s3 import S3Store

    assert isinstance(store, S3Store)
    extend_retention(repository, now, holder=options.holder, wait=options.wait)
    done = store.sweep(now)
    return replace(report, retained_bytes=done.retained_bytes, retained_until=done.until)


class _Run:
    """One attempt."""

    def __init__(
        self,
        repository: Repository,
        options: PruneOptions,
        now: datetime,
        without: frozenset[str],
        progress: Callable[[Progress], None] | None,
        on_wait: Callable[[str], None] | None,
        held: Lock | None = None,
    ) -> None:
        self._repository = repository
        self._store = repository.store
        self._codec = repository.codec
        self._options = options
        self._now = now
        self._started = time.monotonic()
        self._without = without
        self._progress = progress
        self._on_wait = on_wait
        self._held = held
        self._usage = Usage(repository.store, repository.codec)
        self._record = Record(repository.store, repository.codec)
        self._snapshots: set[str] = set()
        self._sizes: dict[bytes, int] = {}
        self._states: list[PackState] = []
        self._written: set[str] = set()  # index files of our own that say nothing new

    def run(self) -> PruneReport:
        with self._lock(exclusive=False) as lock:
            try:
                self._observe()
            except Corrupted:
                lock.confirm()  # what is missing may only be so because somebody is removing things
                raise
            lock.confirm()
            plan = decide(self._states, self._options)
            if self._options.dry_run:
                return self._report(plan, plan.drop | plan.repack, None, *self._foresee(plan))
            out = plan.drop | plan.repack | self._usage.missing(self._sizes)
            repacker = self._repack(plan, lock)
            old = self._rewrite_indexes(out, lock)
            if not old and not self._due(self._unindexed()):
                since = self._since(self._unindexed())
                self._record.save(since)
                return self._report(plan, out, repacker, set(), since)
        with self._lock(exclusive=True) as lock:
            out = self._catch_up(out, lock)
            self._remove_indexes(old, lock)
            orphans = self._unindexed()
            due = self._due(orphans) | (self._due(out & self._sizes.keys(), new=True))
            self._delete(due, lock)
            since = self._since(orphans - due) | dict.fromkeys((out & self._sizes.keys()) - due, self._present())
            self._record.save(since)
        return self._report(plan, out, repacker, due, since)

    @contextmanager
    def _lock(self, *, exclusive: bool) -> Iterator[Lock]:
        """A lock; a shared one settles while we read, and is confirmed before anything is written."""
        if self._held is not None:
            self._held.ensure_held()
            yield self._held
            return
        lock = self._repository.lock(
            exclusive=exclusive, holder=self._options.holder, wait=self._options.wait, on_wait=self._on_wait
        )
        lock.acquire()
        try:
            yield lock
        finally:
            lock.release()

    # --- under the shared lock ------------------------------------------------------------------------------------

    def _observe(self) -> None:
        """Snapshots first, packs last: writers go the other way, so that all that a snapshot needs is seen."""
        roots = self._new_roots()
        try:
            self._usage.read_indexes(self._index_names())
        except ObjectNotFound as error:
            raise _Changed from error
        for name, size in self._store.list("data/"):
            pack_id = _pack_id(name)
            if pack_id is not None:
                self._sizes[pack_id] = size
        self._record.load()
        self._usage.mark(roots)
        self._states = self._usage.pack_states(self._sizes)

    def _new_roots(self) -> list[bytes]:
        """Trees of the snapshots that were not seen yet."""
        roots = []
        for snapshot in self._repository.snapshots(self._snapshots):
            self._snapshots.add(snapshot.id)
            if snapshot.id not in self._without:
                roots.append(parse_id(snapshot.tree, f"snapshot {snapshot.id}"))
        return roots

    def _index_names(self) -> list[str]:
        return [name for name, size in self._store.list("index/") if size]

    def _repack(self, plan: Plan, lock: Lock) -> Repacker:
        repacker = Repacker(self._store, self._codec, lock, compress=self._options.repack_uncompressed)
        if not plan.repack:
            return repacker
        total = sum(state.used_bytes for state in self._states if state.id in plan.repack)
        done = 0

        def note(count: int) -> None:
            nonlocal done
            done += count
            if self._progress is not None:
                self._progress(Progress(len(repacker.packs), done, None, total))

        repacker.run(self._usage.used_entries(plan.repack), self._sizes, note)
        self._usage.read_indexes(repacker.indexes)
        return repacker

    def _rewrite_indexes(self, out: frozenset[bytes], lock: Lock) -> set[str]:
        """Name what is kept in new index files; the old ones, which can go then.

        What another file names already, maybe one of a run that ended here, is not named again.
        """
        old = {*self._usage.files_naming(out), *self._small_indexes()}
        if not old:
            return old
        named = {*self._usage.named_beside(old), *out}
        batch: list[tuple[bytes, list[Entry]]] = []
        blobs = 0
        for name in sorted(old):
            for pack_id, entries in self._read_index(name):
                if pack_id not in named:
                    batch.append((pack_id, entries))
                    blobs += len(entries)
                    if len(entries) == self._usage.blobs_of(pack_id):
                        named.add(pack_id)
            while blobs >= INDEX_BLOBS or (batch and name == max(old)):
                part, batch = _cut(batch, INDEX_BLOBS)
                blobs = sum(len(entries) for _, entries in batch)
                lock.ensure_held()
                self._written.add(put_index(self._store, self._codec, part))
        return old - self._written

    def _small_indexes(self) -> list[str]:
        """Index files that are worth being put together."""
        small = self._usage.files_below(INDEX_BLOBS // 2)
        return small if len(small) >= _SMALL_INDEXES else []

    def _read_index(self, name: str) -> list[tuple[bytes, list[Entry]]]:
        try:
            return self._usage.read_index(name)[1]
        except ObjectNotFound as error:
            raise _Changed from error

    # --- under the exclusive lock ---------------------------------------------------------------------------------

    def _catch_up(self, out: frozenset[bytes], lock: Lock) -> frozenset[bytes]:
        """See what came meanwhile; the packs that still are to go out of the indexes.

        A snapshot that was committed since may use blobs that nothing used before: their packs stay, unless a pack that
        stays holds them too, and are named by an index of their own, for the old ones will go.
        """
        roots = self._new_roots()
        names = set(self._index_names())
        if not self._usage.index_names | self._written <= names:
            raise _Changed
        try:
            self._usage.read_indexes(sorted(names - self._usage.index_names - self._written))
        except ObjectNotFound as error:
            raise _Changed from error
        new: list[tuple[BlobType, bytes]] = []
        self._usage.mark(roots, new)
        kept: set[bytes] = set()
        for kind, blob_id in new:
            holding = self._usage.packs_holding(kind, blob_id)
            if out.issuperset(holding) and kept.isdisjoint(holding):
                kept.update(holding)
        if kept:
            files = self._usage.files_naming(kept)
            lock.ensure_held()
            found = [(p, entries) for name in files for p, entries in self._read_index(name) if p in kept]
            put_index(self._store, self._codec, found)
        return out - kept

    def _remove_indexes(self, old: set[str], lock: Lock) -> None:
        lock.ensure_held()
        for name in sorted(old):
            self._store.delete(name)

    def _delete(self, packs: set[bytes], lock: Lock) -> None:
        names = sorted(pack.name(pack_id) for pack_id in packs)
        with ThreadPoolExecutor(_DELETIONS, thread_name_prefix="delete") as executor:
            for at in range(0, len(names), _BATCH):
                lock.ensure_held()
                for _ in executor.map(self._store.delete, names[at : at + _BATCH]):
                    pass

    # --- packs that no index names --------------------------------------------------------------------------------

    def _present(self) -> datetime:
        return self._now + timedelta(seconds=time.monotonic() - self._started)

    def _unindexed(self) -> set[bytes]:
        """Packs that were there when we looked, and that no index names."""
        return self._sizes.keys() - set(self._usage.packs())

    def _due(self, unreferenced: Iterable[bytes], *, new: bool = False) -> set[bytes]:
        """Which of the unreferenced packs were so for long enough; `new`: no index stopped to name them before now."""
        if not self._options.delete_delay:
            return set(unreferenced)
        if new:
            return set()
        latest = self._now - self._options.delete_delay
        return {pack_id for pack_id in unreferenced if self._record.since.get(pack_id, self._now) <= latest}

    def _since(self, unreferenced: Iterable[bytes]) -> dict[bytes, datetime]:
        """Since when packs are unreferenced. A time to come is of a clock that was wrong."""
        present = self._present()
        return {pack_id: min(self._record.since.get(pack_id, present), present) for pack_id in unreferenced}

    def _foresee(self, plan: Plan) -> tuple[set[bytes], dict[bytes, datetime]]:
        """What a run would delete, and leave to a later one."""
        orphans, out = self._unindexed(), plan.drop | plan.repack
        due = self._due(orphans) | self._due(out, new=True)
        return due, self._since(orphans - due) | dict.fromkeys(out - due, self._now)

    # --- the report -----------------------------------------------------------------------------------------------

    def _report(
        self,
        plan: Plan,
        out: set[bytes] | frozenset[bytes],
        repacker: Repacker | None,
        removed: set[bytes],
        pending: dict[bytes, datetime],
    ) -> PruneReport:
        states = self._states
        gone = [state for state in states if state.id in out]
        moved = [state for state in states if state.id in plan.repack]
        moved_bytes = sum(state.used_bytes for state in moved)
        moved_blobs = sum(state.used_blobs for state in moved)
        if repacker is None:
            made = -(-moved_bytes // pack.TARGET_SIZE)
        else:
            made, moved_bytes = len(repacker.packs), repacker.bytes
        blobs = sum(state.used_blobs + state.unused_blobs for state in states)
        size = sum(state.bytes for state in states)
        return PruneReport(
            snapshots=len(self._snapshots - self._without),
            packs_before=len(states),
            packs_after=len(states) - len(gone) + made,
            blobs_before=blobs,
            blobs_after=blobs - sum(state.used_blobs + state.unused_blobs for state in gone) + moved_blobs,
            bytes_before=size,
            bytes_after=size - sum(state.bytes for state in gone) + moved_bytes,
            used_bytes=sum(state.used_bytes for state in states),
            unused_bytes=plan.unused_bytes,
            repacked_packs=len(moved),
            repacked_blobs=moved_blobs,
            repacked_bytes=moved_bytes,
            removed_packs=len(removed),
            removed_bytes=sum(self._sizes.get(pack_id, 0) for pack_id in removed),
            pending_packs=len(pending),
            pending_bytes=sum(self._sizes.get(pack_id, 0) for pack_id in pending),
            pending_until=min(pending.values()) + self._options.delete_delay if pending else None,
            dry_run=self._options.dry_run,
        )


def _cut(packs: list[tuple[bytes, list[Entry]]], blobs: int) -> tuple[list[tuple[bytes, list[Entry]]], ...]:
    """The first packs, with so many blobs or a few more, and the rest."""
    count = 0
    for number, (_, entries) in enumerate(packs):
        count += len(entries)
        if count >= blobs:
            return packs[: number + 1], packs[number + 1 :]
    return packs, []


def _pack_id(name: str) -> bytes | None:
    """The id of a pack from its object's name, None for what is no pack."""
    try:
        pack_id = bytes.fromhex(name[-64:])
    except ValueError:
        return None
    return pack_id if len(pack_id) == 32 and pack.name(pack_id) == name else None
