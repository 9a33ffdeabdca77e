"""All trees that any snapshot reaches, each read and proven once.

They are read in waves: what is wanted next is ordered by where it lies, and what adjoins is fetched together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backstay.repository.check.inventory import Places
from backstay.repository.errors import Corrupted
from backstay.repository.format import tree
from backstay.repository.format.blob import BlobType, Codec
from backstay.repository.format.index import Location
from backstay.repository.format.node_check import binary_id
from backstay.repository.format.tree import NodeJSON
from backstay.repository.parallel import ordered
from backstay.repository.reader import Reader
from backstay.repository.stores.store import Store

_THREADS = 4
_WAVE = 4096  # trees
_RANGE = 1 << 20  # bytes that are fetched at once; what they hold takes 20 times as much in memory
_GAP = 64 << 10  # bytes that are fetched for nothing rather than asked for apart


class Visit(NamedTuple):
    """A tree that was read. `nodes` is None when it could not be, for the reason in `error`."""

    tree_id: bytes
    nodes: list[NodeJSON] | None
    error: Corrupted | None = None


class Forest:
    """Trees by id, wherever an intact copy lies.

    `suspects`: packs that held a copy which was not intact.
    """

    def __init__(self, store: Store, codec: Codec, places: Places) -> None:
        self.suspects: set[bytes] = set()
        self._places = places
        self._reader = Reader(store, codec, places.first)

    def read(self, tree_id: bytes) -> list[NodeJSON]:
        """The nodes of one tree. Raises Corrupted when no copy is intact."""
        try:
            content = self._reader.tree(tree_id)
        except Corrupted:
            content = self._search(tree_id)
        return tree.decode_raw(content, tree_id.hex())

    def _search(self, tree_id: bytes) -> bytes:
        """A tree that was not to be had in the usual way, from any of its places."""
        failure: Corrupted | None = None
        for location in self._places.of(BlobType.TREE, tree_id):
            try:
                sealed = self._reader.fetch(location.pack, location.offset, location.length)
                return self._reader.open(sealed, BlobType.TREE, tree_id, location)
            except Corrupted as error:
                self.suspects.add(location.pack)
                failure = failure or error
        raise failure or Corrupted(f"tree blob {tree_id.hex()} is in no index")

    def visit(self, roots: Iterable[bytes]) -> Iterator[Visit]:
        """All trees from `roots` on, each once, parents before children."""
        wanted = list(dict.fromkeys(roots))
        seen = set(wanted)
        while wanted:
            wave, wanted = wanted[-_WAVE:], wanted[:-_WAVE]
            for visits in ordered(self._fetch, self._groups(wave), threads=_THREADS, ahead=_THREADS, name="trees"):
                for visit in visits:
                    for child in _subtrees(visit.nodes or []):
                        if child not in seen:
                            seen.add(child)
                            wanted.append(child)
                    yield visit

    def _groups(self, wave: list[bytes]) -> Iterator[list[tuple[bytes, Location | None]]]:
        """Trees that are fetched together, in the order in which they lie."""
        unknown: list[tuple[bytes, Location | None]] = []
        known: list[tuple[Location, bytes]] = []
        for tree_id in wave:
            location = self._places.first.lookup(BlobType.TREE, tree_id)
            if location is None:
                unknown.append((tree_id, None))
            else:
                known.append((location, tree_id))
        if unknown:
            yield unknown
        group: list[tuple[bytes, Location | None]] = []
        pack_id, start, end = b"", 0, 0
        for location, tree_id in sorted(known):
            stop = location.offset + location.length
            if group and (location.pack != pack_id or location.offset > end + _GAP or stop > start + _RANGE):
                yield group
                group = []
            if not group:
                pack_id, start, end = location.pack, location.offset, 0
            group.append((tree_id, location))
            end = max(end, stop)
        if group:
            yield group

    def _fetch(self, group: list[tuple[bytes, Location | None]]) -> list[Visit]:
        first, last = group[0][1], group[-1][1]
        fetched = memoryview(b"")
        start = 0
        if first is not None and last is not None:
            start = first.offset
            try:
                end = max(location.offset + location.length for _, location in group if location is not None)
                fetched = memoryview(self._reader.fetch(first.pack, start, end - start))
            except Corrupted:
                fetched = memoryview(b"")  # each is looked for apart
        visits = []
        for tree_id, location in group:
            try:
                try:
                    if location is None:
                        raise Corrupted("it is in no index")
                    at = location.offset - start
                    sealed = fetched[at : at + location.length]
                    content = self._reader.open(sealed, BlobType.TREE, tree_id, location)
                except Corrupted:
                    content = self._search(tree_id)
                visits.append(Visit(tree_id, tree.decode_raw(content, tree_id.hex())))
            except Corrupted as error:
                visits.append(Visit(tree_id, None, error))
        return visits


def _subtrees(nodes: list[NodeJSON]) -> Iterator[bytes]:
    for node in nodes:
        if node.type == "dir":
            child = binary_id(node.subtree or "")
            if child is not None:
                yield child
