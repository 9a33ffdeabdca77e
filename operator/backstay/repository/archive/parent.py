"""The parent's tree of a directory, read beside the directory itself to see what did not change.

Both are in the order of the names' bytes, so one pass is enough. A huge directory's tree is decoded piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterator

from backstay.repository.format import tree
from backstay.repository.format.tree import NodeJSON


class Batch:
    """Some nodes of a tree that follow each other, and the text that they were decoded from."""

    def __init__(self, array: bytes, tree_id: str) -> None:
        self._array = array
        self._texts: list[bytes] = []
        self.nodes = tree.decode_array(array, tree_id)

    def text(self, number: int) -> str:
        """A node as it stands in the tree."""
        if not self._texts:
            self._texts = tree.texts(self._array)
        return self._texts[number].decode()


class ParentTree:
    """A tree's nodes, from the first to the last. `all_taken`: no node so far was passed over."""

    def __init__(self, pieces: Iterator[bytes], tree_id: str) -> None:
        """`pieces`: the tree's JSON, proven already. Raises Corrupted, naming the tree, when it is none."""
        self._batches = (Batch(array, tree_id) for array in tree.arrays(pieces, tree_id))
        self.batch = Batch(b"[]", tree_id)
        self._at = 0
        self.all_taken = True
        self._following()

    def _following(self) -> NodeJSON | None:
        """The next node; it stays the next one."""
        while self._at == len(self.batch.nodes):
            batch = next(self._batches, None)
            if batch is None:
                return None
            self.batch, self._at = batch, 0
        return self.batch.nodes[self._at]

    def exhausted(self) -> bool:
        """Whether the last node was taken or passed over."""
        return self._following() is None

    def at_hand(self) -> tuple[Batch, int]:
        """Some nodes, and where among them the next one is; for who looks at them before `pass_over`."""
        self._following()
        return self.batch, self._at

    def pass_over(self, count: int) -> None:
        """Take the next `count` nodes of those at hand."""
        self._at += count

    def find(self, quoted: str) -> NodeJSON | None:
        """Take the node whose name is quoted so, passing over those before it. Names must be asked for in order.

        `taken` tells where in its batch it is.
        """
        node = self._following()
        if node is not None and node.name == quoted:
            self._at += 1
            return node
        wanted = _raw(quoted)
        while node is not None and (name := _raw(node.name)) <= wanted:
            self._at += 1
            if name == wanted:
                return node
            self.all_taken = False
            node = self._following()
        return None

    @property
    def taken(self) -> tuple[Batch, int]:
        """The batch of the node that was taken last, and its number there."""
        return self.batch, self._at - 1

    def subtrees(self, names: list[str]) -> list[bytes]:
        """For each of `names` (in order) the tree id of the directory here that has the name, or nothing."""
        found = []
        for name in names:
            node = self.find(tree.quote(name))
            try:
                found.append(bytes.fromhex(node.subtree or "") if node is not None else b"")
            except ValueError:
                found.append(b"")
        return found


def _raw(quoted: str) -> bytes:
    try:
        return tree.name_bytes(tree.unquote(quoted))
    except ValueError:
        return b"\xff"  # no name of ours: after all others
