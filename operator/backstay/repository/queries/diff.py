"""What differs between two trees: restic's letters for it, and how much was added and removed.

Both trees are walked side by side in their order, so only one directory a level is held. The counts of blobs need to
know which ones occur on both sides: 32 bytes for each blob, unless nobody asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from backstay.repository.format.blob import BlobType
from backstay.repository.format.crypto import OVERHEAD
from backstay.repository.format.tree import Node, name_bytes
from backstay.repository.queries.find import walk

if TYPE_CHECKING:
    from backstay.repository.repository import Repository


@dataclass(frozen=True)
class Change:
    """One path that differs.

    `modifier`: + added, - removed, M other content, U other metadata, T other type, and M? for other content while
    everything else is the same, which hints at a disk that rots. The path of a directory ends in a slash.
    """

    path: str
    modifier: str


@dataclass
class Side:
    """What is on one side only. `bytes`: of blobs, uncompressed."""

    files: int = 0
    dirs: int = 0
    others: int = 0
    data_blobs: int = 0
    tree_blobs: int = 0
    bytes: int = 0

    def add(self, node: Node) -> None:
        """Count one more node."""
        if node.type == "file":
            self.files += 1
        elif node.type == "dir":
            self.dirs += 1
        else:
            self.others += 1


@dataclass
class _Blobs:
    data: set[bytes] = field(default_factory=set)
    trees: set[bytes] = field(default_factory=set)

    def add(self, node: Node) -> None:
        if node.type == "file":
            self.data.update(bytes.fromhex(text) for text in node.content or ())
        elif node.type == "dir":
            self.trees.add(bytes.fromhex(node.subtree))


class Comparison:
    """Two trees compared. The counts are complete when `changes` is at its end."""

    def __init__(
        self, repository: Repository, before: str, after: str, *, metadata: bool = False, blobs: bool = True
    ) -> None:
        """`before`, `after`: tree ids. `metadata`: tell entries that differ in metadata alone. `blobs`: count them."""
        self._repository = repository
        self._roots = before, after
        self._metadata = metadata
        self._count_blobs = blobs
        self._before, self._after, self._common = _Blobs(), _Blobs(), _Blobs()
        self.changed_files = 0
        self.added = Side()
        self.removed = Side()

    def changes(self) -> Iterator[Change]:
        """Every path that differs, in tree order."""
        before, after = self._roots
        if before != after:
            if self._count_blobs:
                self._before.trees.add(bytes.fromhex(before))
                self._after.trees.add(bytes.fromhex(after))
            yield from self._trees(before, after)
        if self._count_blobs:
            self._sum(self._before, self._after, self.removed)
            self._sum(self._after, self._before, self.added)

    def _trees(self, before: str, after: str) -> Iterator[Change]:
        """A loop with a stack of its own, since trees may be deeper than Python's."""
        stack = [("", self._pairs(before, after))]
        while stack:
            prefix, pairs = stack[-1]
            pair = next(pairs, None)
            if pair is None:
                stack.pop()
                continue
            old, new = pair
            if self._count_blobs:
                if old is not None:
                    self._before.add(old)
                if new is not None:
                    self._after.add(new)
            if old is not None and new is not None:
                yield from self._both(prefix, old, new)
                if old.type == new.type == "dir":
                    if old.subtree != new.subtree:
                        stack.append((f"{prefix}/{new.name}", self._pairs(old.subtree, new.subtree)))
                    elif self._count_blobs:
                        self._collect(old.subtree)
            elif old is not None:
                yield from self._one(prefix, old, "-", self.removed, self._before)
            elif new is not None:
                yield from self._one(prefix, new, "+", self.added, self._after)

    def _pairs(self, before: str, after: str) -> Iterator[tuple[Node | None, Node | None]]:
        """The nodes of two trees by name; a side that lacks a name has None."""
        left, right = self._repository.nodes(before), self._repository.nodes(after)
        old, new = next(left, None), next(right, None)
        while old is not None or new is not None:
            if new is None or (old is not None and name_bytes(old.name) < name_bytes(new.name)):
                yield old, None
                old = next(left, None)
            elif old is None or name_bytes(new.name) < name_bytes(old.name):
                yield None, new
                new = next(right, None)
            else:
                yield old, new
                old, new = next(left, None), next(right, None)

    def _both(self, prefix: str, old: Node, new: Node) -> Iterator[Change]:
        modifier = "T" if old.type != new.type else ""
        if old.type == new.type == "file" and old.content != new.content:
            modifier += "M"
            self.changed_files += 1
            if _without_content(old) == _without_content(new):
                modifier += "?"
        elif self._metadata and old != new:
            modifier += "U"
        if modifier:
            yield Change(f"{prefix}/{new.name}{'/' if new.type == 'dir' else ''}", modifier)

    def _one(self, prefix: str, node: Node, modifier: str, side: Side, blobs: _Blobs) -> Iterator[Change]:
        path = f"{prefix}/{node.name}"
        side.add(node)
        if node.type != "dir":
            yield Change(path, modifier)
            return
        yield Change(f"{path}/", modifier)
        for found in walk(self._repository, node.subtree, path):
            side.add(found.node)
            if self._count_blobs:
                blobs.add(found.node)
            yield Change(f"{found.path}/" if found.node.type == "dir" else found.path, modifier)

    def _collect(self, tree_id: str) -> None:
        """Remember what both sides have, once for each tree."""
        if self._first(tree_id):
            for found in walk(self._repository, tree_id, enter=lambda found: self._first(found.node.subtree)):
                if found.node.type == "file":
                    self._common.add(found.node)

    def _first(self, tree_id: str) -> bool:
        known = self._common.trees
        before = len(known)
        known.add(bytes.fromhex(tree_id))
        return len(known) > before

    def _sum(self, here: _Blobs, there: _Blobs, side: Side) -> None:
        reader = self._repository.ready()
        for kind, mine, theirs, common in (
            (BlobType.DATA, here.data, there.data, self._common.data),
            (BlobType.TREE, here.trees, there.trees, self._common.trees),
        ):
            for blob_id in mine:
                if blob_id in theirs or blob_id in common:
                    continue
                located = reader.locate(kind, blob_id)
                side.bytes += located.plain_length or located.length - OVERHEAD
                if kind is BlobType.DATA:
                    side.data_blobs += 1
                else:
                    side.tree_blobs += 1


def _without_content(node: Node) -> Node:
    return msgspec.structs.replace(node, content=None)
