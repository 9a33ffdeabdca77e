"""The check of a repository: a referee that trusts nothing, and says whom each damage hurts.

The structure is always checked: keys, config, snapshots, indexes, that packs are there in the size that follows from
the indexes, that each tree which a snapshot reaches is intact and that each blob it names is to be had. The content
of packs is read in whole when asked for, all of it or a share, and wherever the structure gives cause for doubt.

A damage that is found in one copy of a blob hurts nobody while there is another. See "Repository Layout" and "Pack
Format" in restic's design document for what is held against what.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from backstay.repository.check import inventory
from backstay.repository.check.damage import Cause, Hurt, Survey
from backstay.repository.check.forest import Forest
from backstay.repository.check.pack_check import read_packs
from backstay.repository.check.subset import Subset
from backstay.repository.errors import Corrupted, ObjectNotFound, SnapshotNotFound
from backstay.repository.format import config
from backstay.repository.format.blob import BlobType
from backstay.repository.format.index import Entry, Index
from backstay.repository.format.node_check import binary_id, node_fault, shown
from backstay.repository.format.snapshot import Snapshot
from backstay.repository.format.tree import NodeJSON
from backstay.repository.lock import Lock
from backstay.repository.outcome import Progress
from backstay.repository.parallel import ordered
from backstay.repository.repository import Repository

Kind = Literal["config", "key", "index", "pack", "missing", "tree", "snapshot"]
MOST = 1000  # findings, and hurt paths over all of them, that are told one by one
_FEW = 10  # names in a sentence; and hurt paths that each finding may name at least
_THREADS = 4


@dataclass(frozen=True)
class Finding:
    """One thing that is broken.

    `name`: the object or id it is about. `message`: what was found, and what to do. `hurts` has the first few
    snapshots and paths that cannot be restored because of it, `hurt_count` how many there are.
    """

    kind: Kind
    name: str
    message: str
    hurts: tuple[Hurt, ...] = ()
    hurt_count: int = 0


@dataclass(frozen=True)
class Report:
    """What a check came to.

    `findings` has the first thousand, `finding_count` is exact. `notices`: what is no damage but worth knowing.
    `hurt_count`: paths over all snapshots that cannot be restored as they were; `hurt_snapshots`: ids of snapshots that
    hold one. `broken_packs`: hexadecimal ids, for `repair packs`. The rest is how much was looked at; `bytes_read`:
    of packs that were proven in whole.
    """

    findings: tuple[Finding, ...] = ()
    finding_count: int = 0
    notices: tuple[str, ...] = ()
    hurt_count: int = 0
    hurt_snapshots: tuple[str, ...] = ()
    broken_packs: tuple[str, ...] = ()
    snapshots: int = 0
    trees: int = 0
    indexes: int = 0
    packs: int = 0
    packs_read: int = 0
    bytes_read: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is broken."""
        return not self.finding_count


def check(
    repository: Repository,
    *,
    read_data: Subset | None = None,
    progress: Callable[[Progress], None] | None = None,
    source: random.Random | None = None,
    lock: bool = True,
    wait: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
) -> Report:
    """Check a repository under a shared lock, for which it waits `wait` seconds; without `lock` under none.

    `read_data`: which packs to read in whole (None: only doubtful ones). `progress` is called with packs and bytes
    read. `source`: of the randomness by which a share is drawn. Damage is told in the report; only what keeps the check
    from looking, such as AccessDenied or Unreachable, is raised.
    """
    held = repository.lock(wait=wait, on_wait=on_wait) if lock else None
    if held is not None:
        held.acquire()
    try:
        return _Check(repository, held, progress or (lambda _: None)).run(read_data, source or random.Random())
    finally:
        if held is not None:
            held.release()


@dataclass
class _Findings:
    """Findings in the order in which they came up. A finding's number is the cause of what it hurts."""

    told: list[Finding] = field(default_factory=list)
    count: int = 0

    def add(self, kind: Kind, name: str, message: str) -> Cause:
        self.count += 1
        if len(self.told) < MOST:
            self.told.append(Finding(kind, name, message))
        return len(self.told) - 1  # what is not told any more is counted with the last


class _Check:
    """One run of a check."""

    def __init__(self, repository: Repository, lock: Lock | None, progress: Callable[[Progress], None]) -> None:
        self._repository = repository
        self._lock = lock
        self._store = repository.store
        self._codec = repository.codec
        self._progress = progress
        self._findings = _Findings()
        self._notices: list[str] = []
        self._lost_packs: dict[bytes, Cause] = {}
        self._damaged: dict[bytes, tuple[Cause, frozenset[tuple[BlobType, bytes]]]] = {}  # by pack
        self._bad_trees: dict[bytes, Cause] = {}  # intact as blobs, but no trees that could be restored
        self._unread_trees: dict[bytes, Corrupted] = {}
        self._wanting = Index()  # blobs that are in no index of the repository
        self._wanting_names: list[str] = []
        self._wanting_cause: Cause | None = None
        self._packs_read = self._bytes_read = self._trees = 0

    def run(self, read_data: Subset | None, source: random.Random) -> Report:
        """Check everything."""
        self._check_keys()
        self._check_config()
        snapshots = self._check_snapshots()
        self._inventory, self._files = inventory.take(self._store, self._codec)
        if self._lock is not None:
            self._lock.confirm()  # or somebody else may have begun to remove things at the same moment
        self._forest = Forest(self._store, self._codec, self._inventory.places)
        self._check_indexes()
        self._check_missing_packs()
        self._check_trees(root for _, root in snapshots)
        self._read_packs(read_data, source)
        self._tell_wanting()
        return self._report(snapshots)

    # --- small files ----------------------------------------------------------------------------------------------

    def _check_keys(self) -> None:
        known = False
        for name, _ in self._store.list("keys/"):
            if name == f"keys/{self._repository.key_id}":
                known = True
            key_id = inventory.object_id(name)
            if key_id is None:
                self._notices.append(f"{name} is no key file; nobody needs it")
                continue
            try:
                intact = hashlib.sha256(self._store.get(name)).digest() == key_id
            except ObjectNotFound:
                continue  # removed since it was listed
            if not intact:
                self._findings.add(
                    "key",
                    name,
                    f"{name} was changed after it was written, so its password opens nothing any more; remove it, and"
                    " add the password anew with one that still opens the repository",
                )
        if not known and self._repository.key_id:
            self._findings.add(
                "key",
                f"keys/{self._repository.key_id}",
                "the key file by which the repository was opened is gone; add a key while the repository is open",
            )

    def _check_config(self) -> None:
        try:
            found = config.decode(self._codec.key.open(self._store.get("config"), "the repository's config"))
            if found != self._repository.config:
                raise Corrupted("the repository's config is another than when the repository was opened")
        except (Corrupted, ObjectNotFound) as error:
            self._findings.add("config", "config", f"{error}; put the file back from a copy of the bucket")

    def _check_snapshots(self) -> list[tuple[str, bytes]]:
        """Ids and root trees of the snapshots that can be read."""
        ids = []
        for name, _ in self._store.list("snapshots/"):
            if inventory.object_id(name) is None:
                self._notices.append(f"{name} is no snapshot; nobody needs it")
            else:
                ids.append(name.removeprefix("snapshots/"))

        def read(snapshot_id: str) -> tuple[str, Snapshot | Corrupted | None]:
            for last in (False, True):
                try:
                    return snapshot_id, self._repository.snapshot(snapshot_id)
                except SnapshotNotFound:  # forgotten since it was listed
                    break
                except Corrupted as error:
                    if last:  # not what was damaged on its way here
                        return snapshot_id, error
            return snapshot_id, None

        found = []
        for snapshot_id, snapshot in ordered(read, ids, threads=_THREADS, ahead=64, name="snapshots"):
            if isinstance(snapshot, Snapshot):
                found.append((snapshot_id, bytes.fromhex(snapshot.tree)))
            elif snapshot is not None:
                self._findings.add("snapshot", snapshot_id, f"{snapshot}; remove it with 'repair snapshots --forget'")
        return found

    # --- indexes and packs ----------------------------------------------------------------------------------------

    def _check_indexes(self) -> None:
        stock = self._inventory
        for name, error in stock.broken.items():
            self._findings.add("index", name, f"{error}; make a new one with 'repair index'")
        for pack_id in stock.disagreeing:
            self._findings.add(
                "index",
                pack_id.hex(),
                f"indexes tell different things of pack {pack_id.hex()}; read it anew with 'repair index"
                " --read-all-packs'",
            )
        if stock.repeated:
            self._notices.append(
                f"{stock.repeated} packs are in an index more than once, which hurts nothing; 'repair index' tidies up"
            )
        unindexed = [pack_id.hex() for pack_id in stock.unindexed()]
        if unindexed:
            self._notices.append(
                f"{_count(unindexed, 'pack')} in no index, be it that a backup is under way or was broken off; 'prune'"
                f" removes what nobody needs, 'repair index' takes them in: {_some(unindexed)}"
            )
        if stock.strays:
            self._notices.append(f"{_count(stock.strays, 'object')} of no known kind: {_some(stock.strays)}")

    def _check_missing_packs(self) -> None:
        for pack_id in self._inventory.missing():
            count = self._inventory.claims[pack_id].blobs
            self._lost_packs[pack_id] = self._findings.add(
                "pack",
                pack_id.hex(),
                f"pack {pack_id.hex()} is missing, with {count} blobs that the indexes place in it; put it back from a"
                " copy of the bucket, or let 'repair index' and 'repair snapshots' go on without it",
            )

    def _read_packs(self, subset: Subset | None, source: random.Random) -> None:
        stock = self._inventory
        there = {pack_id: size for pack_id, size in stock.sizes.items() if pack_id in stock.claims}
        chosen = dict.fromkeys([] if subset is None else subset.choose(there, source))
        chosen.update(dict.fromkeys(stock.doubtful()))
        chosen.update(dict.fromkeys(self._forest.suspects))
        chosen.update(dict.fromkeys(pack_id for pack_id in stock.disagreeing if pack_id in there))
        total = sum(there[pack_id] for pack_id in chosen)
        self._progress(Progress(0, 0, len(chosen), total))
        for verdict in read_packs(self._store, self._codec, stock, self._files, list(chosen)):
            self._packs_read += 1
            self._bytes_read += verdict.size
            self._progress(Progress(self._packs_read, self._bytes_read, len(chosen), total))
            if not verdict.problems:
                continue
            name = verdict.pack_id.hex()
            left = stock.claims[verdict.pack_id].blobs - len(verdict.damaged)
            cause = self._findings.add(
                "pack",
                name,
                f"pack {name} is damaged: {'; '.join(verdict.problems)}. {max(0, left)} of its blobs are intact:"
                " 'repair packs' saves them",
            )
            self._damaged[verdict.pack_id] = (cause, frozenset(verdict.damaged))

    # --- trees ----------------------------------------------------------------------------------------------------

    def _check_trees(self, roots: Iterable[bytes]) -> None:
        for visit in self._forest.visit(roots):
            self._trees += 1
            if visit.nodes is None:
                assert visit.error is not None
                self._unread_trees[visit.tree_id] = visit.error
                continue
            fault = self._check_nodes(visit.nodes)
            if fault:
                name = visit.tree_id.hex()
                self._bad_trees[visit.tree_id] = self._findings.add("tree", name, f"tree {name} {fault}")

    def _check_nodes(self, nodes: list[NodeJSON]) -> str:
        """What is wrong with a tree that is intact as a blob; data blobs that are in no index are noted down."""
        names = set()
        fault = ""
        has, lost = self._inventory.places.first.has, self._inventory.lost.has
        for node in nodes:
            wrong = node_fault(node)
            if not wrong and node.name in names:
                wrong = "comes twice"
            names.add(node.name)
            for text in node.content or () if node.type == "file" else ():
                blob_id = binary_id(text)
                if blob_id is None:
                    continue
                if not has(BlobType.DATA, blob_id) and not lost(BlobType.DATA, blob_id):
                    self._want(BlobType.DATA, blob_id)
            if wrong and not fault:
                fault = f"cannot be restored: {shown(node.name)[:200]!a} {wrong}"
        return fault

    def _tell_wanting(self) -> None:
        """Trees that could not be read for a reason that no pack's verdict has told, and blobs that no index knows."""
        for tree_id, error in self._unread_trees.items():
            if self._stored_fault(BlobType.TREE, tree_id) is not None:
                continue
            if next(self._inventory.places.of(BlobType.TREE, tree_id), None) is None:
                self._want(BlobType.TREE, tree_id)
            else:
                self._bad_trees[tree_id] = self._findings.add("tree", tree_id.hex(), str(error))
        if self._wanting:
            names = self._wanting_names
            more = f" and {len(self._wanting) - len(names)} more" if len(self._wanting) > len(names) else ""
            helps = "they are lost, and 'repair snapshots' goes on without them"
            if self._inventory.broken or any(True for _ in self._inventory.unindexed()):
                helps = "'repair index' finds those whose packs are still there"
            self._wanting_cause = self._findings.add(
                "missing", "index", f"snapshots need blobs that are in no index: {', '.join(names)}{more}; {helps}"
            )

    def _want(self, kind: BlobType, blob_id: bytes) -> None:
        if len(self._wanting_names) < _FEW and not self._wanting.has(kind, blob_id):
            self._wanting_names.append(f"{kind.name.lower()} blob {blob_id.hex()}")
        self._wanting.add(b"", (Entry(kind, blob_id, 0, 0, 0),))

    # --- whom it hurts --------------------------------------------------------------------------------------------

    def _stored_fault(self, kind: BlobType, blob_id: bytes) -> Cause | None:
        """Why no intact copy of a blob is left in the packs that indexes name, or None."""
        cause: Cause | None = None
        for location in self._inventory.places.of(kind, blob_id):
            damage = self._damaged.get(location.pack)
            if damage is None or (kind, blob_id) not in damage[1]:
                return None
            cause = damage[0]
        if cause is None:
            lost = self._inventory.lost.lookup(kind, blob_id)
            if lost is not None:
                cause = self._lost_packs[lost.pack]
        return cause

    def _fault(self, kind: BlobType, blob_id: bytes) -> Cause | None:
        if kind is BlobType.TREE and blob_id in self._bad_trees:
            return self._bad_trees[blob_id]
        if self._wanting.has(kind, blob_id):
            return self._wanting_cause
        return self._stored_fault(kind, blob_id)

    def _report(self, snapshots: list[tuple[str, bytes]]) -> Report:
        findings = list(self._findings.told)
        hurt_count = 0
        hurt_snapshots: tuple[str, ...] = ()
        if self._damaged or self._lost_packs or self._wanting or self._bad_trees:
            limit = max(_FEW, MOST // len(findings))
            survey = Survey(self._fault, self._forest.read, len(findings) - 1, limit)
            damages = survey.run(snapshots)
            hurt_count, hurt_snapshots = damages.count, tuple(damages.snapshots)
            for cause, count in damages.counts.items():
                found = findings[cause]
                findings[cause] = Finding(found.kind, found.name, found.message, tuple(damages.named[cause]), count)
        return Report(
            findings=tuple(findings),
            finding_count=self._findings.count,
            notices=tuple(self._notices[:MOST]),
            hurt_count=hurt_count,
            hurt_snapshots=hurt_snapshots,
            broken_packs=tuple(sorted(pack_id.hex() for pack_id in (*self._lost_packs, *self._damaged))),
            snapshots=len(snapshots),
            trees=self._trees,
            indexes=len(self._inventory.index_names),
            packs=len(self._inventory.sizes),
            packs_read=self._packs_read,
            bytes_read=self._bytes_read,
        )


def _count(things: list[str], word: str) -> str:
    return f"1 {word} is" if len(things) == 1 else f"{len(things)} {word}s are"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more
