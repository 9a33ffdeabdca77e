"""What a damage hurts: which files of which snapshots.

Snapshots share most of their trees, so a tree is judged once, however many snapshots hold it, and only those that lead
to something broken are remembered with their figures. Paths are named in a second walk, which goes only where there is
something to name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from backstay.repository.errors import Corrupted
from backstay.repository.format.blob import BlobType
from backstay.repository.format.node_check import binary_id, shown
from backstay.repository.format.tree import NodeJSON

Cause = int  # number of the finding that a damage is told by
Fault = Callable[[BlobType, bytes], Cause | None]
_ALL = -1  # in figures: paths that are hurt, whatever the cause


class Hurt(NamedTuple):
    """A path in a snapshot that cannot be restored as it was. A directory: with all that lies below it."""

    snapshot_id: str
    path: str


@dataclass
class Damages:
    """What was hurt, by cause. `named` has the first few paths of each cause; the counts are exact.

    `count`: hurt paths over all snapshots, each once. `snapshots`: ids of those that are hurt.
    """

    named: dict[Cause, list[Hurt]] = field(default_factory=dict)
    counts: dict[Cause, int] = field(default_factory=dict)
    count: int = 0
    snapshots: list[str] = field(default_factory=list)


Figures = dict[Cause, int]


class Survey:
    """Finds what is hurt. `fault` says why a blob cannot be had (None: it can); `read` gives a tree's nodes."""

    def __init__(self, fault: Fault, read: Callable[[bytes], list[NodeJSON]], unreadable: Cause, limit: int) -> None:
        """`unreadable`: the cause of what turns out to be broken only now; `limit`: paths to name for each cause."""
        self._fault = fault
        self._read = read
        self._unreadable = unreadable
        self._limit = limit
        self._hurt: dict[bytes, Figures] = {}
        self._whole: set[bytes] = set()

    def run(self, roots: Iterable[tuple[str, bytes]]) -> Damages:
        """What is hurt in snapshots, given by id and root tree."""
        damages = Damages()
        for snapshot_id, root in roots:
            figures = self._root_figures(root)
            if not figures:
                continue
            damages.snapshots.append(snapshot_id)
            for cause, count in figures.items():
                if cause == _ALL:
                    damages.count += count
                else:
                    damages.counts[cause] = damages.counts.get(cause, 0) + count
            for path, causes in self._paths(root, lambda cause: len(damages.named.get(cause, ())) < self._limit):
                for cause in causes:
                    named = damages.named.setdefault(cause, [])
                    if len(named) < self._limit:
                        named.append(Hurt(snapshot_id, path))
        return damages

    # --- figures --------------------------------------------------------------------------------------------------

    def _root_figures(self, root: bytes) -> Figures:
        cause = self._fault(BlobType.TREE, root)
        return {cause: 1, _ALL: 1} if cause is not None else self._figures(root)

    def _figures(self, root: bytes) -> Figures:
        """How many paths below a tree are hurt, by cause; empty when none is."""
        stack: list[tuple[bytes, Figures, list[bytes], int]] = [(root, *self._judge(root), 0)]
        while stack:
            tree_id, figures, children, position = stack.pop()
            while position < len(children):
                child = children[position]
                known = self._hurt.get(child)
                if known is None and child not in self._whole:
                    break
                for cause, count in (known or {}).items():
                    figures[cause] = figures.get(cause, 0) + count
                position += 1
            else:
                if figures:
                    self._hurt[tree_id] = figures
                else:
                    self._whole.add(tree_id)
                continue
            stack.append((tree_id, figures, children, position))
            stack.append((children[position], *self._judge(children[position]), 0))
        return self._hurt.get(root, {})

    def _judge(self, tree_id: bytes) -> tuple[Figures, list[bytes]]:
        """A tree's own figures, and the trees below it that must be looked into."""
        if tree_id in self._whole or tree_id in self._hurt:
            return dict(self._hurt.get(tree_id, {})), []
        figures: Figures = {}
        children: list[bytes] = []
        for _, causes, child in self._look(tree_id):
            if child is not None:
                children.append(child)
            for cause in causes:
                figures[cause] = figures.get(cause, 0) + 1
            if causes:
                figures[_ALL] = figures.get(_ALL, 0) + 1
        return figures, children

    def _look(self, tree_id: bytes) -> Iterator[tuple[str, Sequence[Cause], bytes | None]]:
        """Each node's name, why it is hurt by itself, and the tree that it leads to when that can be read."""
        try:
            nodes = self._read(tree_id)
        except Corrupted:
            yield "", (self._unreadable,), None
            return
        for node in nodes:
            if node.type == "dir":
                child = binary_id(node.subtree or "")
                cause = self._fault(BlobType.TREE, child) if child is not None else self._unreadable
                yield node.name, () if cause is None else (cause,), child if cause is None else None
            elif node.type == "file":
                causes: dict[Cause, None] = {}
                for text in node.content or ():
                    blob_id = binary_id(text)
                    cause = self._fault(BlobType.DATA, blob_id) if blob_id is not None else self._unreadable
                    if cause is not None:
                        causes[cause] = None
                yield node.name, tuple(causes), None

    # --- names ----------------------------------------------------------------------------------------------------

    def _paths(self, root: bytes, wanted: Callable[[Cause], bool]) -> Iterator[tuple[str, Sequence[Cause]]]:
        """Hurt paths below a root with their causes, as long as one of the causes is wanted."""
        cause = self._fault(BlobType.TREE, root)
        if cause is not None:
            if wanted(cause):
                yield "/", (cause,)
            return
        stack = [("", root)]
        while stack:
            path, tree_id = stack.pop()
            figures = self._hurt.get(tree_id, {})
            if not any(wanted(cause) for cause in figures if cause != _ALL):
                continue
            below = []
            for name, causes, child in self._look(tree_id):
                here = f"{path}/{shown(name)}" if name else path or "/"
                if any(wanted(cause) for cause in causes):
                    yield here, causes
                if child is not None and child in self._hurt:
                    below.append((here, child))
            stack.extend(reversed(below))
