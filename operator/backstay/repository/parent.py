"""The parent's tree of a directory, read beside the directory itself to see what did not change.

Both are in the order of the names' bytes, so one pass is enough, and since we write trees in exact bytes, a node that
begins with what we would write now is that very node: most of a backup without changes is comparing text. Nodes that
restic wrote are decoded and compared field by field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from backstay.repository import tree
from backstay.repository.tree import NodeJSON

_MARGIN = 1 << 20  # characters of the text that are kept in reach, where there are more
_NAME = re.compile(r'\{"name":"((?:[^"\\]|\\.)*)","type":')
_NEXT = re.compile(r'\},\{"name":"(?:[^"\\]|\\.)*","type":')  # an attribute has a name too, but no type
_BEGINNING = '{"nodes":['
_CONTENT = ',"content":['
_ATTRIBUTES = ',"extended_attributes":['
_AFTER_ATTRIBUTES = re.compile(
    r',"extended_attributes":\[(?:\{"name":"(?:[^"\\]|\\.)*","value":"[A-Za-z0-9+/=]*"\},?)*\],"content":\['
)


class ParentTree:
    """A tree's text, from its first node to its last. `verbatim`: all nodes so far were taken, none was left out."""

    def __init__(self, chunks: Iterator[str]) -> None:
        """`chunks`: the tree's JSON, proven already, in pieces of which few are held at a time."""
        self._chunks = chunks
        self._text = ""
        self._at = 0
        self._ended = False
        self._name: bytes | None = None  # of the node at `_at`, once it was looked at
        self._reach(_MARGIN)
        self._usable = self._text.startswith(_BEGINNING)
        self._at = len(_BEGINNING)
        self.verbatim = self._usable

    def _reach(self, count: int) -> None:
        """Have `count` characters from here, if there are so many."""
        while not self._ended and len(self._text) - self._at < count:
            more = next(self._chunks, None)
            if more is None:
                self._ended = True
            else:
                self._text, self._at = self._text[self._at :] + more, 0

    def exhausted(self) -> bool:
        """Whether the last node was passed."""
        return self._text.startswith("]}", self._at)

    def take(self, node: str) -> bool:
        """Pass the next node if it is exactly `node`."""
        if self._usable:
            if not self._ended:
                self._reach(len(node) + _MARGIN)
            end = self._at + len(node)
            if self._text.startswith(node, self._at) and self._text[end : end + 1] in (",", "]"):
                self._pass(end)
                return True
        self.verbatim = False
        return False

    def take_file(self, head: str) -> tuple[str, str] | None:
        """Pass the next node if it is a file's that begins with `head`: what follows there, and its content list."""
        text = self._text
        if not self._ended and len(text) - self._at < _MARGIN:
            self._reach(_MARGIN)
            text = self._text
        begin = self._at + len(head)
        if not text.startswith(head, self._at) or not self._usable:
            self.verbatim = False
            return None
        if text.startswith(_CONTENT, begin):
            start = begin + len(_CONTENT)
        elif text.startswith(_ATTRIBUTES, begin) and (found := _AFTER_ATTRIBUTES.match(text, begin)):
            start = found.end()
        else:
            self.verbatim = False
            return None
        end = text.find("]", start)
        if (
            end < 0 or text[end + 1 : end + 2] != "}"
        ):  # the list goes on beyond what is in reach, or more members follow
            self.verbatim = False
            return None
        rest = text[begin : end + 2]
        content = text[start:end]
        self._pass(end + 2)
        return rest, content

    def seek(self, name: str) -> NodeJSON | None:
        """The node of that name, passing those before it. Names must be asked for in order."""
        self.verbatim = False
        wanted = tree.name_bytes(name)
        while self._usable and not self.exhausted():
            if self._name is None:
                self._name = self._read_name()
                if self._name is None:
                    break
            if self._name > wanted:
                return None
            found = self._name == wanted
            end = self._end()
            node = self._text[self._at : end] if found else ""
            self._pass(end)
            if found:
                try:
                    return msgspec.json.decode(node, type=NodeJSON)
                except msgspec.MsgspecError:
                    break
        if self._usable and not self.exhausted():
            self._usable = False
        return None

    def subtrees(self, names: list[str]) -> dict[str, bytes]:
        """The tree ids of those of `names` (in order) that are directories here."""
        found = {}
        for name in names:
            node = self.seek(name)
            if node is not None and node.type == "dir" and node.subtree and len(node.subtree) == 64:
                try:
                    found[name] = bytes.fromhex(node.subtree)
                except ValueError:
                    continue
        return found

    def _pass(self, end: int) -> None:
        self._at = end + 1 if self._text[end : end + 1] == "," else end
        self._name = None

    def _read_name(self) -> bytes | None:
        match = _NAME.match(self._text, self._at)
        while match is None and not self._ended:
            self._reach(2 * (len(self._text) - self._at) + 1)
            match = _NAME.match(self._text, self._at)
        try:
            if match is None:
                return None
            quoted = msgspec.json.decode(f'"{match[1]}"', type=str)
            return tree.name_bytes(tree.unquote(quoted))
        except (msgspec.MsgspecError, ValueError):
            return None

    def _end(self) -> int:
        """Where the node at `_at` ends."""
        while True:
            match = _NEXT.search(self._text, self._at)
            if match is not None:
                return match.start() + 1
            if self._ended:
                return self._text.rindex("]}")
            self._reach(2 * (len(self._text) - self._at) + 1)
