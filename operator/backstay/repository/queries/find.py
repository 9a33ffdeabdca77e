"""Looking for things in snapshots: by path, or by the id of a blob or tree.

Everything is a walk that holds one directory a level, so a snapshot's size does not matter. `walk` is shared by all
verbs that look through trees; what it need not descend into, it does not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backstay.repository.errors import NodeNotFound
from backstay.repository.format.tree import Node

if TYPE_CHECKING:
    from backstay.repository.repository import Repository


@dataclass(frozen=True)
class Found:
    """A node in a snapshot. `path` begins with a slash; `tree` is the id of the tree that holds the node."""

    path: str
    node: Node
    tree: str


@dataclass(frozen=True)
class Sighting:
    """Where a blob or tree is used. `kind`: blob or tree; `parent`: the tree whose file holds the blob."""

    kind: str
    id: str
    path: str
    parent: str = ""


def walk(
    repository: Repository, tree_id: str, path: str = "", enter: Callable[[Found], bool] | None = None
) -> Iterator[Found]:
    """Every node below a tree, parents before children, in tree order.

    `path`: where the tree itself lies, without a slash at its end. `enter`: whether to descend into a directory.
    """
    stack = [(path, tree_id, repository.nodes(tree_id))]
    while stack:
        above, holder, nodes = stack[-1]
        node = next(nodes, None)
        if node is None:
            stack.pop()
            continue
        found = Found(f"{above}/{node.name}", node, holder)
        yield found
        if node.type == "dir" and (enter is None or enter(found)):
            stack.append((found.path, node.subtree, repository.nodes(node.subtree)))


def subtree(repository: Repository, tree_id: str, path: str, *, within: str = "") -> str:
    """The id of the tree at `path` below a tree, which for an empty path is the tree itself.

    `within`: what an error calls that tree. Raises NodeNotFound.
    """
    if not path.strip("/"):
        return tree_id
    node = repository.find(tree_id, path, within=within)
    if node.type != "dir":
        raise NodeNotFound(f"looking for the directory {path!r} in {within or f'tree {tree_id}'}: it is a {node.type}")
    return node.subtree


def uses(repository: Repository, tree_id: str, blobs: tuple[str, ...], trees: tuple[str, ...]) -> Iterator[Sighting]:
    """Where the blobs and trees whose ids begin with the given texts are used below a tree."""
    if trees and tree_id.startswith(trees):
        yield Sighting("tree", tree_id, "/")
    for found in walk(repository, tree_id):
        node = found.node
        if trees and node.type == "dir" and node.subtree.startswith(trees):
            yield Sighting("tree", node.subtree, found.path)
        if blobs and node.content:
            for blob_id in dict.fromkeys(node.content):
                if blob_id.startswith(blobs):
                    yield Sighting("blob", blob_id, found.path, found.tree)
