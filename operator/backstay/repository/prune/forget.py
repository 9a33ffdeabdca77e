"""Removing snapshots. What only they needed stays until the next prune."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext

from backstay.repository.lock import Lock
from backstay.repository.repository import Repository


def forget(
    repository: Repository,
    ids: Iterable[str],
    *,
    dry_run: bool = False,
    holder: str = "",
    wait: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
    held: Lock | None = None,
) -> tuple[str, ...]:
    """Remove snapshots by their ids, full or unique beginnings; the full ids.

    It takes an exclusive lock, for which it waits `wait` seconds, since a backup may be using a snapshot as its parent;
    `held`: the caller's, which is used instead. Raises SnapshotNotFound, and then removes none, when any is unknown;
    RepositoryLocked.
    """
    ids = list(ids)
    if dry_run:
        return _resolve(repository, ids)
    taken = repository.lock(exclusive=True, holder=holder, wait=wait, on_wait=on_wait) if held is None else None
    with taken or nullcontext(held) as lock:
        assert lock is not None
        found = _resolve(repository, ids)
        for snapshot_id in found:
            lock.ensure_held()
            repository.store.delete(f"snapshots/{snapshot_id}")
    return found


def _resolve(repository: Repository, ids: Iterable[str]) -> tuple[str, ...]:
    """Full ids, each once. A snapshot that cannot be read can be forgotten too, when it is named in full."""
    known = set(repository.snapshot_ids())
    return tuple(dict.fromkeys(wanted if wanted in known else repository.snapshot(wanted).id for wanted in ids))
