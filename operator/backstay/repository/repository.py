"""The facade: open a repository, list and read what it holds, write into it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING

from backstay.repository import keys
from backstay.repository.archive.writer import INDEX_BLOBS, INDEX_SECONDS, Writer
from backstay.repository.errors import (
    Corrupted,
    NodeNotFound,
    ObjectNotFound,
    RepositoryError,
    RepositoryExists,
    RepositoryNotFound,
    SnapshotNotFound,
)
from backstay.repository.format import config, snapshot, tree
from backstay.repository.format.blob import Codec
from backstay.repository.format.chunker import seed
from backstay.repository.format.config import Config
from backstay.repository.format.crypto import Key
from backstay.repository.format.index import Index
from backstay.repository.format.snapshot import Snapshot
from backstay.repository.format.tree import Node
from backstay.repository.lock import REFRESH_SECONDS, Lock
from backstay.repository.outcome import Progress, Restoration
from backstay.repository.reader import Reader, parse_id
from backstay.repository.stores.store import Store

if TYPE_CHECKING:
    from backstay.repository.crew import Crew
    from backstay.repository.restore.existing import Overwrite, Select

_CONNECTIONS = 4  # small files that are read at once
_ID_DIGITS = 64
_DIGITS = frozenset("0123456789abcdef")


class Repository:
    """A restic repository of format version 2, opened with a password.

    Reading is safe from several threads; each writer is a block of its own.
    """

    def __init__(self, store: Store, key: Key, settings: Config, key_id: str) -> None:
        """Use `init` or `open`."""
        self.id = settings.id
        self.config = settings
        self.key_id = key_id
        self.store = store
        self.codec = Codec(key)
        self.index = Index()  # `ready` fills it
        self._seed = seed(key)
        self._indexes_read: set[str] = set()
        self._index_mutex = threading.Lock()
        self.reader = Reader(store, self.codec, self.index)

    @classmethod
    def init(cls, store: Store, password: str, *, username: str = "backstay", hostname: str = "backstay") -> Repository:
        """Create a repository, whose key says who made it and where. Raises RepositoryExists when there is one."""
        try:
            there = store.exists("config") or any(True for _ in store.list("keys/"))
        except RepositoryNotFound:  # not even the directory
            there = False
        if there:
            raise RepositoryExists(
                "creating a repository: there is one at this address; open it, or choose another prefix or directory"
            )
        master = Key.random()
        settings = config.create()
        key_id = keys.add(store, password, master, username=username, hostname=hostname)
        store.put("config", master.seal(config.encode(settings)))
        if _read_config(store, master) != settings:
            raise RepositoryExists(
                "creating a repository: another process created one at the same moment; open that one"
            )
        return cls(store, master, settings, key_id)

    @classmethod
    def open(cls, store: Store, password: str) -> Repository:
        """Open a repository. Raises RepositoryNotFound or WrongPassword."""
        master, key_id = keys.search(store, password)
        return cls(store, master, _read_config(store, master), key_id)

    # --- snapshots ------------------------------------------------------------------------------------------------

    def snapshot_ids(self) -> list[str]:
        """Ids of all snapshots, without reading them."""
        return [name.removeprefix("snapshots/") for name, size in self.store.list("snapshots/") if size]

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """One snapshot, by its full id or a unique beginning of it. Raises SnapshotNotFound."""
        if len(snapshot_id) != _ID_DIGITS:
            found = [known for known in self.snapshot_ids() if known.startswith(snapshot_id)] if snapshot_id else []
            if len(found) != 1:
                many = "more than one snapshot has" if found else "no snapshot has"
                raise SnapshotNotFound(
                    f"reading snapshot {snapshot_id!r}: {many} an id that begins so; list them to see all"
                )
            snapshot_id = found[0]
        if not _DIGITS.issuperset(snapshot_id):
            raise SnapshotNotFound(f"reading snapshot {snapshot_id!r}: an id has {_ID_DIGITS} hexadecimal digits")
        name = f"snapshots/{snapshot_id}"
        try:
            stored = self.store.get(name)
        except ObjectNotFound:
            raise SnapshotNotFound(f"reading snapshot {snapshot_id}: it is not in the repository (any more)") from None
        return snapshot.decode(self.codec.open_file(stored, name), snapshot_id)

    def snapshots(
        self,
        ids_known: Container[str] = (),
        *,
        on_error: Callable[[str, RepositoryError], None] | None = None,
    ) -> Iterator[Snapshot]:
        """All snapshots but those in `ids_known`, which are not downloaded.

        A broken one raises Corrupted, unless `on_error` takes its id and the error. One that is forgotten meanwhile is
        left out, and so is what is younger than the time as of which the store shows the repository.
        """
        until: datetime | None = getattr(self.store, "as_of", None)
        wanted = [snapshot_id for snapshot_id in self.snapshot_ids() if snapshot_id not in ids_known]
        with ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="snapshots") as executor:
            jobs = [(snapshot_id, executor.submit(self.snapshot, snapshot_id)) for snapshot_id in wanted]
            try:
                for snapshot_id, job in jobs:
                    try:
                        found = job.result()
                    except SnapshotNotFound:
                        continue
                    except Corrupted as error:
                        if on_error is None:
                            raise
                        on_error(snapshot_id, error)
                    else:
                        if until is None or found.time <= until:
                            yield found
            finally:
                executor.shutdown(wait=False, cancel_futures=True)

    # --- reading --------------------------------------------------------------------------------------------------

    def load_index(self) -> None:
        """Read the index files that are not in memory yet. Readers do so once; call it again to see what is new."""
        with self._index_mutex:
            there = [name for name, size in self.store.list("index/") if size]
            if not self._indexes_read - {""} <= set(there):
                # A prune has run, so packs that we know may be gone: a writer must not take their blobs for stored.
                self.index.clear()
                self._indexes_read.clear()
            new = [name for name in there if name not in self._indexes_read]
            with ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="index") as executor:
                for at in range(0, len(new), 2 * _CONNECTIONS):  # a few decoded files at a time
                    batch = new[at : at + 2 * _CONNECTIONS]
                    for name, document in zip(batch, executor.map(self._read_index, batch), strict=True):
                        if document:
                            self.index.load(document, name)
                        self._indexes_read.add(name)
            self._indexes_read.add("")  # loaded once, even when there was nothing

    def index_is_current(self) -> bool:
        """Whether all indexes that were read are still there: a prune replaces them when it removes packs."""
        with self._index_mutex:
            return self._indexes_read - {""} <= {name for name, size in self.store.list("index/") if size}

    def forget_index(self) -> None:
        """Know no blobs any more; the next use reads all indexes anew."""
        with self._index_mutex:
            self.index.clear()
            self._indexes_read.clear()

    def _read_index(self, name: str) -> bytes:
        try:
            stored = self.store.get(name)
        except ObjectNotFound:  # a prune replaced it since it was listed
            return b""
        return self.codec.open_file(stored, name)

    def ready(self) -> Reader:
        """The reader of blobs, with the index loaded if it was not yet."""
        if not self._indexes_read:
            self.load_index()
        return self.reader

    def read_tree(self, tree_id: str) -> list[Node]:
        """The nodes of a tree, verified."""
        return tree.decode(self.ready().tree(parse_id(tree_id, "the request")), tree_id)

    def nodes(self, tree_id: str) -> Iterator[Node]:
        """The nodes of a tree, verified, few of them in memory at a time."""
        return self.ready().nodes(parse_id(tree_id, "the request"))

    def find(self, tree_id: str, path: str, *, within: str = "") -> Node:
        """The node at `path` below a tree, which an error calls `within`. Raises NodeNotFound."""
        place = within or f"tree {tree_id}"
        parts = [part for part in path.split("/") if part]
        if not parts:
            raise NodeNotFound(f"looking for {path!r}: the root of a tree has no node of its own")
        node: Node | None = None
        for part in parts:
            if node is not None:
                if node.type != "dir":
                    raise NodeNotFound(f"looking for {path!r} in {place}: {node.name!r} is no directory")
                nodes = self.nodes(node.subtree)
            else:
                nodes = self.nodes(tree_id)
            node = next((found for found in nodes if found.name == part), None)
            if node is None:
                raise NodeNotFound(f"looking for {path!r} in {place}: there is no {part!r}")
        assert node is not None
        return node

    def read_file(self, node: Node) -> Iterator[bytes]:
        """A file's content, blob by blob, each verified before it is given out."""
        ids = [parse_id(text, f"the file {node.name!r}") for text in node.content or ()]
        return self.ready().contents(ids)

    def walk(self, tree_id: str) -> Iterator[tuple[str, Node]]:
        """Every node below a tree with its path, parents before children, in tree order."""
        stack = [("", self.nodes(tree_id))]
        while stack:
            path, nodes = stack[-1]
            node = next(nodes, None)
            if node is None:
                stack.pop()
                continue
            below = f"{path}/{node.name}" if path else node.name
            yield below, node
            if node.type == "dir":
                stack.append((below, self.nodes(node.subtree)))

    def restore(
        self,
        tree_id: str,
        target: str,
        *,
        root: Node | None = None,
        progress: Callable[[Progress], None] | None = None,
        total_files: int | None = None,
        total_bytes: int | None = None,
        overwrite: Overwrite = "always",
        delete: bool = False,
        select: Select | None = None,
        verify: bool = False,
        dry_run: bool = False,
        sparse: bool = True,
        crew: Crew | None = None,
    ) -> Restoration:
        """Write a tree's content into the directory `target`, each blob verified before a byte of it is written.

        What is in the target already stays, but for what stands in a restored entry's place: of a plain file with one
        name only the blobs that differ are written, anything else is replaced. `overwrite` if-changed takes size and
        mtime as proof that a file's content is right, if-newer leaves what is not older than the snapshot's entry,
        never leaves all that is there. `delete`: remove from restored directories what the snapshot lacks, as far as
        `select` takes it. `select(path, is_dir)`: which paths, from the root of the tree on, are restored and descended
        into. `verify`: read back and hash what was written. `dry_run`: only count. `sparse`: leave holes in new files
        where there are zeros. `root`: the node whose mode, owner and times the target itself gets. `crew`: processes
        that write; without them threads do. Totals are only passed on to `progress`.

        What the repository has lost costs only the entries that need it: `damaged` counts them, and with any the
        restore has failed. Raises UnsafeName, NoSpace, TargetError, and Corrupted when the tree itself cannot be read;
        what could not be carried over otherwise is a warning.
        """
        from backstay.repository.restore.existing import Options
        from backstay.repository.restore.restorer import Restorer

        options = Options(overwrite, delete, select, verify, dry_run, sparse)
        restorer = Restorer(
            self.ready(), self.codec, target, options, crew=crew,
            progress=progress, total_files=total_files, total_bytes=total_bytes,
        )  # fmt: skip
        return restorer.run(tree_id, root)

    # --- writing --------------------------------------------------------------------------------------------------

    def lock(
        self,
        *,
        exclusive: bool = False,
        holder: str = "",
        wait: float = 0.0,
        refresh_seconds: float = REFRESH_SECONDS,
        on_wait: Callable[[str], None] | None = None,
    ) -> Lock:
        """A block under a lock in the name of `holder` (default: made from this host's name); see `Lock`."""
        return Lock(
            self.store,
            self.codec,
            # Not the bare name: restic sends a hangup to a holder of that name, to see whether it lives.
            holder or f"backstay@{socket.gethostname()}",
            exclusive=exclusive,
            refresh_seconds=refresh_seconds,
            wait=wait,
            on_wait=on_wait,
        )

    def writer(
        self,
        holder: str = "",
        *,
        index_blobs: int = INDEX_BLOBS,
        index_seconds: float = INDEX_SECONDS,
        refresh_seconds: float = REFRESH_SECONDS,
        wait: float = 0.0,
        on_wait: Callable[[str], None] | None = None,
    ) -> Writer:
        """A block in which to write, under a shared lock in the name of `holder` (default: made from this host's name).

        Leaving it stores what is pending and removes the lock. An index is saved each time `index_blobs` new blobs or
        `index_seconds` have come together. Raises RepositoryLocked when an exclusive lock is held for all of the `wait`
        seconds; `on_wait` is told when waiting begins.
        """
        lock = self.lock(holder=holder, refresh_seconds=refresh_seconds, wait=wait, on_wait=on_wait)
        return Writer(
            self.store,
            self.codec,
            self.index,
            self.reader,
            lock,
            self.load_index,
            self.forget_index,
            self.index_is_current,
            self._seed,
            index_blobs=index_blobs,
            index_seconds=index_seconds,
        )


def _read_config(store: Store, master: Key) -> Config:
    try:
        stored = store.get("config")
    except ObjectNotFound:
        raise RepositoryNotFound(
            "opening the repository: there are keys but no config; check the address, or restore the config file"
        ) from None
    return config.decode(master.open(stored, "the repository's config"))
