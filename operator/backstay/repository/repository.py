"""The facade: open a repository, list and read what it holds, write into it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from backstay.repository.archiver import Archive, Progress
from backstay.repository.errors import RepositoryError
from backstay.repository.restorer import Restoration
from backstay.repository.snapshot import Snapshot
from backstay.repository.store import Store
from backstay.repository.tree import Node


@dataclass(frozen=True)
class Subtree:
    """A tree that is in the repository already, to be grafted into a virtual tree."""

    tree_id: str


class Writer(Protocol):
    """What `Repository.writer()` gives: the only way to add to a repository."""

    def save_files(self, files: Mapping[str, bytes | Subtree], time: datetime) -> str: ...
    def flush(self) -> None: ...
    def commit(self, snapshot: Snapshot) -> str: ...
    def backup(
        self, path: str, *, progress: Callable[[Progress], None] | None = None, parent: Snapshot | None = None
    ) -> Archive: ...


class Repository:
    """A restic repository of format version 2, opened with a password."""

    id: str

    @classmethod
    def init(cls, store: Store, password: str) -> Repository:
        """Create a repository. Raises RepositoryExists when there is one."""
        raise NotImplementedError

    @classmethod
    def open(cls, store: Store, password: str) -> Repository:
        """Open a repository. Raises RepositoryNotFound or WrongPassword."""
        raise NotImplementedError

    def snapshot_ids(self) -> list[str]:
        """Ids of all snapshots, without reading them."""
        raise NotImplementedError

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """One snapshot, by its full id or a unique beginning of it. Raises SnapshotNotFound."""
        raise NotImplementedError

    def snapshots(
        self,
        ids_known: Container[str] = (),
        *,
        on_error: Callable[[str, RepositoryError], None] | None = None,
    ) -> Iterator[Snapshot]:
        """All snapshots but those in `ids_known`, which are not downloaded.

        A broken one raises Corrupted, unless `on_error` takes its id and the error.
        """
        raise NotImplementedError

    def load_index(self) -> None:
        """Read the index files that are not in memory yet; readers call it themselves."""
        raise NotImplementedError

    def read_tree(self, tree_id: str) -> list[Node]:
        """The nodes of a tree, verified."""
        raise NotImplementedError

    def find(self, tree_id: str, path: str) -> Node:
        """The node at `path` below a tree. Raises NodeNotFound."""
        raise NotImplementedError

    def read_file(self, node: Node) -> Iterator[bytes]:
        """A file's content, blob by blob, each verified before it is given out."""
        raise NotImplementedError

    def walk(self, tree_id: str) -> Iterator[tuple[str, Node]]:
        """Every node below a tree with its path, parents before children, in tree order."""
        raise NotImplementedError

    def writer(self, holder: str = "") -> AbstractContextManager[Writer]:
        """Take a shared lock, held in the name of `holder`, and write; leaving the block flushes and unlocks."""
        raise NotImplementedError

    def restore(
        self,
        tree_id: str,
        target: str,
        *,
        progress: Callable[[Progress], None] | None = None,
        total_files: int | None = None,
        total_bytes: int | None = None,
    ) -> Restoration:
        """Write a tree's content into the directory `target`, each blob verified before a byte of it is written."""
        raise NotImplementedError
