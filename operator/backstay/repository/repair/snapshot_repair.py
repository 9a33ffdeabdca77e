"""Snapshots that have lost something, written anew without it.

What is lost is left out: a file keeps the parts of its content that are there, a directory whose tree cannot be read
becomes empty, a node that could not be restored goes. The new snapshot says which it replaces; it is written before
the old one is removed, and that only when asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from backstay.repository.archive.writer import Writer
from backstay.repository.check import inventory as stock
from backstay.repository.check.forest import Forest
from backstay.repository.check.inventory import Inventory, Places
from backstay.repository.errors import Corrupted, SnapshotNotFound
from backstay.repository.format import tree
from backstay.repository.format.blob import BlobType
from backstay.repository.format.crypto import OVERHEAD
from backstay.repository.format.index import Index
from backstay.repository.format.node_check import binary_id, node_fault, shown
from backstay.repository.format.snapshot import Snapshot
from backstay.repository.format.tree import NodeJSON
from backstay.repository.outcome import Warning
from backstay.repository.repair.index_repair import read_headers
from backstay.repository.repair.under_repair import UnderRepair
from backstay.repository.repository import Repository

TAG = "repaired"
_NAMED = 1000  # changes of a snapshot that are told one by one
_EMPTY = tree.encode(())


@dataclass(frozen=True)
class SnapshotRepair:
    """What was done about one snapshot that was not whole.

    `action`: rewritten; removed (nothing of it was left, or its file could not be read); lost (the same, and it is
    still there, since it was not to be forgotten). `new_id`: of the snapshot that replaces it, which may be there
    since an earlier repair; empty where there is none or it was a dry run. `forgotten`: whether the old snapshot was
    removed. `changes` has the first few paths with what became of them; `change_count` is exact.
    """

    snapshot_id: str
    action: Literal["rewritten", "removed", "lost"]
    new_id: str = ""
    forgotten: bool = False
    changes: tuple[Warning, ...] = ()
    change_count: int = 0


def repair_snapshots(
    repository: Repository,
    ids: Sequence[str] = (),
    *,
    forget: bool = False,
    dry_run: bool = False,
    wait: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
) -> tuple[SnapshotRepair, ...]:
    """Write anew the snapshots, of those with `ids` (default: all), that have lost something; what was done.

    It waits `wait` seconds for its lock, which is exclusive but in a dry run.

    `forget`: remove those that were replaced, or of which nothing is left. A snapshot whose file cannot be read is
    removed only when it is among `ids`. Raises Corrupted while the index is wrong, since what it does not name would be
    taken for lost; SnapshotNotFound.
    """
    if dry_run:
        with repository.lock(wait=wait, on_wait=on_wait):
            return _repair(repository, ids, forget=forget)
    working = UnderRepair(repository)
    with working.writer(wait=wait, on_wait=on_wait) as writer:
        done = _repair(repository, ids, forget=forget, working=working, writer=writer)
    repository.forget_index()
    return done


def _repair(
    repository: Repository,
    ids: Sequence[str],
    *,
    forget: bool,
    working: UnderRepair | None = None,
    writer: Writer | None = None,
) -> tuple[SnapshotRepair, ...]:
    """Without `working` and `writer`, nothing is changed."""
    store, codec = repository.store, repository.codec
    index = Index() if working is None else working.index
    snapshots, unreadable = _read(repository, ids)
    inventory, _ = stock.take(store, codec, Places(index))
    refuse_wrong_index(repository, inventory)
    lost = _unreadable_trees(Forest(store, codec, inventory.places), snapshots)
    if lost:
        # Known no more, so that a tree that is made anew is stored even when it is one of them.
        index.clear()
        inventory, _ = stock.take(store, codec, Places(index, without=lost))
    rewriter = _Rewriter(Forest(store, codec, inventory.places), index, writer)
    replaced = _Replaced(repository)
    done = []
    for snapshot_id, error in unreadable.items():
        forgotten = forget and snapshot_id in ids
        if forgotten and working is not None:
            working.delete(f"snapshots/{snapshot_id}")
        note = (Warning("/", str(error)),)
        done.append(SnapshotRepair(snapshot_id, "removed" if forgotten else "lost", "", forgotten, note, 1))
    for snapshot in snapshots:
        repair = _replace(rewriter, replaced, snapshot, forget=forget, writer=writer)
        if repair is None:
            continue
        if repair.forgotten and working is not None:
            working.delete(f"snapshots/{snapshot.id}")
        done.append(repair)
    return tuple(done)


def _read(repository: Repository, ids: Sequence[str]) -> tuple[list[Snapshot], dict[str, Corrupted]]:
    """The snapshots with some ids (none: all), and why others of them cannot be read."""
    known = {name.removeprefix("snapshots/") for name, _ in repository.store.list("snapshots/")}
    if missing := set(ids) - known:
        raise SnapshotNotFound(f"repairing snapshot {min(missing)}: it is not in the repository")
    snapshots = []
    unreadable = {}
    for snapshot_id in sorted(ids or known):
        try:
            snapshots.append(repository.snapshot(snapshot_id))
        except Corrupted as error:
            unreadable[snapshot_id] = error
    return snapshots, unreadable


def refuse_wrong_index(repository: Repository, inventory: Inventory) -> None:
    """Raise Corrupted when the index does not name what is there, so that more might seem lost than is."""
    wrong = ""
    if inventory.broken:
        wrong = f"{min(inventory.broken)} cannot be read"
    elif inventory.disagreeing:
        wrong = f"it tells different things of pack {min(inventory.disagreeing).hex()}"
    elif pack_id := next(inventory.missing(), None):
        wrong = f"it names pack {pack_id.hex()}, which is missing"
    elif pack_id := next(inventory.doubtful(), None):
        wrong = f"pack {pack_id.hex()} is not what it says"
    else:
        headers = read_headers(repository.store, repository.codec, inventory, sorted(inventory.unindexed()))
        for pack_id, entries in headers:
            if entries is not None:
                wrong = f"it does not name pack {pack_id.hex()}, which may hold what seems lost"
                break
    if wrong:
        raise Corrupted(f"repairing snapshots: the index is wrong: {wrong}; run 'repair index' first")


def _unreadable_trees(forest: Forest, snapshots: Iterable[Snapshot]) -> set[tuple[BlobType, bytes]]:
    visits = forest.visit([bytes.fromhex(snapshot.tree) for snapshot in snapshots])
    return {(BlobType.TREE, visit.tree_id) for visit in visits if visit.nodes is None}


class _Replaced:
    """The snapshots that earlier repairs have written, looked for when the first is wanted."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[tuple[str, str, datetime], str] | None = None

    def by(self, new: Snapshot) -> str:
        """The id of a snapshot that says the same as one that would replace another; empty when there is none."""
        if self._known is None:
            found = self._repository.snapshots(on_error=lambda _, error: None)
            self._known = {(each.tree, each.original, each.time): each.id for each in found if each.original}
        return self._known.get((new.tree, new.original, new.time), "")


def _replace(
    rewriter: _Rewriter, replaced: _Replaced, snapshot: Snapshot, *, forget: bool, writer: Writer | None
) -> SnapshotRepair | None:
    """Write the snapshot anew unless it is whole; what was done about it, or is to be done."""
    made = rewriter.rewrite(bytes.fromhex(snapshot.tree))
    if made is None:
        note = (Warning("/", "the tree of its root cannot be read"),)
        return SnapshotRepair(snapshot.id, "removed" if forget else "lost", "", forget, note, 1)
    if made.tree_id.hex() == snapshot.tree:
        return None
    summary = snapshot.summary
    if summary is not None:
        summary = dataclasses.replace(summary, total_files_processed=made.files, total_bytes_processed=made.size)
    tags = snapshot.tags if forget or TAG in snapshot.tags else (*snapshot.tags, TAG)
    new = dataclasses.replace(
        snapshot, id="", tree=made.tree_id.hex(), original=snapshot.id, tags=tags, summary=summary
    )
    new_id = (replaced.by(new) or writer.commit(new)) if writer is not None else ""
    changes = tuple(Warning(path, message) for path, message in made.notes)
    return SnapshotRepair(snapshot.id, "rewritten", new_id, forget, changes, made.changes)


class _Made(NamedTuple):
    """What became of a tree: its new id, how many paths in it change and how the first few, its files and bytes."""

    tree_id: bytes
    changes: int = 0
    notes: Sequence[tuple[str, str]] = ()
    files: int = 0
    size: int = 0


@dataclass
class _Frame:
    """A tree that is being rewritten: which nodes are done, and what came of them."""

    tree_id: bytes
    nodes: list[NodeJSON]
    position: int = 0
    kept: list[NodeJSON] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    changed: bool = False
    changes: int = 0
    notes: list[tuple[str, str]] = field(default_factory=list)
    files: int = 0
    size: int = 0


class _Rewriter:
    """Makes trees without what is lost."""

    def __init__(self, forest: Forest, index: Index, writer: Writer | None) -> None:
        self._forest = forest
        self._index = index
        self._writer = writer
        self._made: dict[bytes, _Made] = {}  # by old id

    def rewrite(self, root: bytes) -> _Made | None:
        """What a tree becomes; None when it cannot be read."""
        if root in self._made:
            return self._made[root]
        first = self._open(root)
        if first is None:
            return None
        stack = [first]
        while stack:
            child = self._advance(stack[-1])
            if child is not None:
                stack.append(child)
            else:
                self._close(stack.pop())
        return self._made[root]

    def _open(self, tree_id: bytes) -> _Frame | None:
        try:
            return _Frame(tree_id, self._forest.read(tree_id))
        except Corrupted:
            return None

    def _advance(self, frame: _Frame) -> _Frame | None:
        """Deal with nodes until one leads to a tree that must be dealt with first."""
        while frame.position < len(frame.nodes):
            node = frame.nodes[frame.position]
            wrong = "comes twice" if node.name in frame.names else node_fault(node)
            if wrong:
                self._note(frame, node, f"left out: it {wrong}")
            elif node.type == "dir":
                child = binary_id(node.subtree or "")
                assert child is not None  # or it would have been left out
                made = self._made.get(child)
                if made is None:
                    below = self._open(child)
                    if below is not None:
                        return below
                    made = _Made(self._save(_EMPTY))
                    self._note(frame, node, "its tree cannot be read: replaced by an empty directory")
                if made.tree_id != child:
                    node.subtree = made.tree_id.hex()
                    frame.changed = True
                frame.changes += made.changes
                frame.files += made.files
                frame.size += made.size
                here = f"/{shown(node.name)}"
                frame.notes += [(here + path, message) for path, message in made.notes[: _NAMED - len(frame.notes)]]
                frame.kept.append(node)
            else:
                if node.type == "file":
                    self._reduce(frame, node)
                    frame.files += 1
                    frame.size += node.size
                frame.kept.append(node)
            frame.names.add(node.name)
            frame.position += 1
        return None

    def _reduce(self, frame: _Frame, node: NodeJSON) -> None:
        """Leave to a file what is there of its content, and give it the size of that."""
        content = []
        size = 0
        for text in node.content or ():
            location = self._index.lookup(BlobType.DATA, bytes.fromhex(text))
            if location is not None:
                content.append(text)
                size += location.plain_length or location.length - OVERHEAD
        missing = len(node.content or ()) - len(content)
        if missing:
            self._note(frame, node, f"{missing} of its {missing + len(content)} parts are lost and left out")
        elif size != node.size:
            self._note(frame, node, f"its size is {size} bytes and not {node.size}")
        node.content, node.size = content, size

    def _close(self, frame: _Frame) -> None:
        tree_id = frame.tree_id
        if frame.changed:
            tree_id = self._save(tree.encode([tree.to_node(node) for node in frame.kept]))
        self._made[frame.tree_id] = _Made(tree_id, frame.changes, frame.notes, frame.files, frame.size)

    def _save(self, content: bytes) -> bytes:
        if self._writer is None:
            return hashlib.sha256(content).digest()
        return self._writer.save_blob(BlobType.TREE, content)

    def _note(self, frame: _Frame, node: NodeJSON, message: str) -> None:
        frame.changed = True
        frame.changes += 1
        if len(frame.notes) < _NAMED:
            frame.notes.append((f"/{shown(node.name)}", message))
