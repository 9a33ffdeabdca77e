"""Which blobs the snapshots use, and where all of them lie: what prune decides by.

The places of blobs are an index of our own, read under a lock, beside which a byte for each blob says whether it is
used; a set of ids would take ten times as much memory. Trees are read in waves: those wanted next are ordered by where
they lie, so that neighbours are fetched together, and only what refers to other blobs is taken out of them.
"""

from __future__ import annotations

import itertools
import struct
from array import array
from collections.abc import Container, Iterable, Iterator, Set
from typing import NamedTuple

import msgspec

from backstay.repository.errors import Corrupted
from backstay.repository.format import index as index_file
from backstay.repository.format.blob import BlobType, Codec
from backstay.repository.format.crypto import OVERHEAD
from backstay.repository.format.index import Entry, Index, Location
from backstay.repository.parallel import ordered
from backstay.repository.prune.plan import PackState
from backstay.repository.reader import Reader
from backstay.repository.stores.store import Store

_THREADS = 3
_AHEAD = 6
_RANGE = 1 << 20  # bytes of trees that are fetched at once; what they hold takes many times as much in memory
_GAP = 64 << 10  # bytes that are rather fetched for nothing than left out by a request more
_WAVE = 50_000  # trees whose places are sorted at once
_UNUSED = itertools.repeat(0)
_USED, _USED_ELSEWHERE = 1, 2  # elsewhere: another place than the first was chosen to stay
_KINDS = tuple(BlobType)
_ENTRY = struct.Struct("<B32sIII")


class _NodeJSON(msgspec.Struct, gc=False):
    content: list[str] | None = None
    subtree: str | None = None


class _TreeJSON(msgspec.Struct, gc=False):
    nodes: list[_NodeJSON] | None = None


class _Group(NamedTuple):
    """Trees that adjoin in a pack."""

    pack: bytes
    start: int
    end: int
    trees: tuple[tuple[bytes, Location], ...]


class Usage:
    """Blobs, their places and whether they are used. To be used by one thread."""

    def __init__(self, store: Store, codec: Codec) -> None:
        self.index = Index()
        self._store = store
        self._codec = codec
        self._reader = Reader(store, codec, self.index)
        self._marks: tuple[dict[bytes, bytearray], dict[bytes, bytearray]] = ({}, {})
        self._others: dict[tuple[BlobType, bytes], list[tuple[int, Entry]]] = {}  # places but the first
        self._packs_of_file: dict[str, array[int]] = {}
        self._counts_of_file: dict[str, array[int]] = {}  # blobs of each of those packs
        self._blobs = array("I")  # of each pack, in all indexes together
        self._packs: list[bytes] = []  # by number

    # --- indexes --------------------------------------------------------------------------------------------------

    @property
    def index_names(self) -> set[str]:
        """The index files that were read."""
        return set(self._packs_of_file)

    def read_indexes(self, names: Iterable[str]) -> None:
        """Take in index files. Raises Corrupted, or ObjectNotFound when one is gone."""
        for name, packs in ordered(self.read_index, names, threads=_THREADS, ahead=_THREADS, name="index"):
            self._packs_of_file[name] = array("I", (self._add(pack_id, entries) for pack_id, entries in packs))
            self._counts_of_file[name] = array("I", (len(entries) for _, entries in packs))

    def read_index(self, name: str) -> tuple[str, list[tuple[bytes, list[Entry]]]]:
        """An index file's packs, with its name."""
        return name, index_file.decode(self._codec.open_file(self._store.get(name), name), name)

    def files_naming(self, packs: Set[bytes]) -> list[str]:
        """Index files that name any of the packs."""
        numbers = {number for number, pack_id in enumerate(self._packs) if pack_id in packs}
        return [name for name, named in self._packs_of_file.items() if not numbers.isdisjoint(named)]

    def files_below(self, blobs: int) -> list[str]:
        """Index files that hold fewer than so many blobs."""
        return [name for name, counts in self._counts_of_file.items() if sum(counts) < blobs]

    def blobs_of(self, pack_id: bytes) -> int:
        """How many blobs the indexes together name of a pack."""
        return self._blobs[self._number(pack_id)]

    def named_beside(self, files: Container[str]) -> set[bytes]:
        """Packs all of whose blobs are named by an index file that is none of `files`."""
        found: set[bytes] = set()
        for name, numbers in self._packs_of_file.items():
            if name not in files:
                counts = self._counts_of_file[name]
                found.update(
                    self._packs[n] for n, count in zip(numbers, counts, strict=True) if count == self._blobs[n]
                )
        return found

    def _add(self, pack_id: bytes, entries: list[Entry]) -> int:
        again: list[Entry] = []
        number = self.index.add(pack_id, entries, again)
        if number == len(self._packs):
            self._packs.append(pack_id)
            self._blobs.append(0)
        self._blobs[number] += len(entries)
        for entry in again:
            first = self.index.lookup(entry.type, entry.id)
            assert first is not None
            others = self._others.get((entry.type, entry.id), [])
            if (first.pack, first.offset) == (pack_id, entry.offset) or (number, entry) in others:
                self._blobs[number] -= 1  # the same pack in two index files, as a crash leaves it
            else:
                self._others[entry.type, entry.id] = [*others, (number, entry)]
        return number

    # --- marks ----------------------------------------------------------------------------------------------------

    def mark(self, roots: Iterable[bytes], new: list[tuple[BlobType, bytes]] | None = None) -> None:
        """Mark all that these trees reach. `new` gets the blobs that were not marked before.

        Raises Corrupted when a blob is in no index or a tree cannot be read: then nothing must be removed.
        """
        wanted = [root for root in dict.fromkeys(roots) if self._mark(BlobType.TREE, root, new)]
        while wanted:
            wave = wanted[-_WAVE:]
            del wanted[-_WAVE:]
            for trees in ordered(self._fetch, self._groups(wave), threads=_THREADS, ahead=_AHEAD, name="trees"):
                for contents, subtrees in trees:
                    for at in range(0, len(contents), 32):
                        self._mark(BlobType.DATA, contents[at : at + 32], new)
                    for at in range(0, len(subtrees), 32):
                        blob_id = subtrees[at : at + 32]
                        if self._mark(BlobType.TREE, blob_id, new):
                            wanted.append(blob_id)

    def _mark(self, kind: BlobType, blob_id: bytes, new: list[tuple[BlobType, bytes]] | None) -> bool:
        """Mark a blob; whether it was not marked before."""
        slot = self.index.slot(kind, blob_id)
        marks = self._marks[kind].get(blob_id[:2])
        if marks is not None and 0 <= slot < len(marks):
            if marks[slot]:
                return False
        elif slot < 0:
            raise Corrupted(
                f"{kind.name.lower()} blob {blob_id.hex()} is needed by a snapshot and in no index, so nothing is"
                " removed; check the repository, and repair its index"
            )
        else:
            if marks is None:
                marks = self._marks[kind][blob_id[:2]] = bytearray()
            marks.extend(bytes(slot + 1 - len(marks)))
        marks[slot] = _USED
        if new is not None:
            new.append((kind, blob_id))
        return True

    def _groups(self, trees: list[bytes]) -> Iterator[_Group]:
        located = [(self._reader.locate(BlobType.TREE, tree_id), tree_id) for tree_id in trees]
        located.sort()
        group: list[tuple[bytes, Location]] = []
        pack_id, start, end = b"", 0, 0
        for location, tree_id in located:
            stop = location.offset + location.length
            if group and (location.pack != pack_id or location.offset > end + _GAP or stop > start + _RANGE):
                yield _Group(pack_id, start, end, tuple(group))
                group = []
            if not group:
                pack_id, start, end = location.pack, location.offset, 0
            group.append((tree_id, location))
            end = max(end, stop)
        if group:
            yield _Group(pack_id, start, end, tuple(group))

    def _fetch(self, group: _Group) -> list[tuple[bytes, bytes]]:
        """Ids of contents and of subtrees of each of some trees, joined."""
        fetched = memoryview(self._reader.fetch(group.pack, group.start, group.end - group.start))
        found = []
        for tree_id, location in group.trees:
            at = location.offset - group.start
            try:
                plain = self._reader.open(fetched[at : at + location.length], BlobType.TREE, tree_id, location)
            except Corrupted:
                plain = self._open_other(tree_id)
            found.append(_references(plain, tree_id))
        return found

    def _open_other(self, tree_id: bytes) -> bytes:
        """A tree from another of its places, its first being damaged."""
        for number, entry in self._others.get((BlobType.TREE, tree_id), ()):
            location = Location(self._packs[number], entry.offset, entry.length, entry.plain_length)
            try:
                sealed = self._reader.fetch(location.pack, location.offset, location.length)
                return self._reader.open(sealed, BlobType.TREE, tree_id, location)
            except Corrupted:
                continue
        raise Corrupted(
            f"tree {tree_id.hex()} is needed by a snapshot and cannot be read, so nothing is removed; check the"
            " repository"
        )

    # --- what follows for packs -----------------------------------------------------------------------------------

    def pack_states(self, sizes: dict[bytes, int]) -> list[PackState]:
        """What is used of each pack that exists, where of a blob's places the best one counts as used.

        `sizes`: bytes of each pack in the bucket by id. Raises Corrupted when a pack that is needed is missing, or has
        another size than it should.
        """
        count = len(self._packs)
        figures = _Figures(count)
        for kind in BlobType:
            for prefix, places in self.index.places(kind):
                marks = self._marks[kind].get(prefix, b"")
                for (number, _, length, plain), mark in zip(places, itertools.chain(marks, _UNUSED), strict=False):
                    figures.add(kind, number, length, plain, bool(mark))
        for (kind, _), others in self._others.items():
            for number, entry in others:
                figures.add(kind, number, entry.length, entry.plain_length, False)
        self._choose(figures, sizes)
        states = []
        for number, pack_id in enumerate(self._packs):
            size = sizes.get(pack_id)
            state = figures.state(number, pack_id)
            if state.used_blobs and size != figures.size(number):
                found = "it is missing" if size is None else f"it has {size}"
                raise Corrupted(
                    f"pack {pack_id.hex()} should have {figures.size(number)} bytes and {found}, so nothing is removed;"
                    " check the repository, and repair its index"
                )
            if size is not None:
                states.append(state)
        return states

    def missing(self, sizes: dict[bytes, int]) -> set[bytes]:
        """Packs that an index names and that are not there."""
        return {pack_id for pack_id in self._packs if pack_id not in sizes}

    def _choose(self, figures: _Figures, sizes: dict[bytes, int]) -> None:
        """Of the places of each used blob that has several, count one as used, in a pack that is to stay anyway."""
        used = [key for key in self._others if self._is_used(*key)]
        for kind, blob_id in used:
            first = self.index.lookup(kind, blob_id)
            assert first is not None
            figures.doubt(self._number(first.pack), first.length)
            for number, entry in self._others[kind, blob_id]:
                figures.doubt_other(number, entry.length)
        ranks = [figures.rank(number, sizes.get(pack_id)) for number, pack_id in enumerate(self._packs)]
        for kind, blob_id in used:
            first = self.index.lookup(kind, blob_id)
            assert first is not None
            number = self._number(first.pack)
            others = self._others[kind, blob_id]
            best = max(range(len(others)), key=lambda at: ranks[others[at][0]])
            if ranks[others[best][0]] > ranks[number]:
                others.insert(0, others.pop(best))
                self._marks[kind][blob_id[:2]][self.index.slot(kind, blob_id)] = _USED_ELSEWHERE
                figures.use(others[0][0], others[0][1].length)
            else:
                figures.use(number, first.length)

    def _is_used(self, kind: BlobType, blob_id: bytes) -> bool:
        marks = self._marks[kind].get(blob_id[:2], b"")
        slot = self.index.slot(kind, blob_id)
        return slot < len(marks) and bool(marks[slot])

    def _number(self, pack_id: bytes) -> int:
        return self.index.add(pack_id, ())

    def used_entries(self, packs: Iterable[bytes]) -> Iterator[tuple[bytes, list[Entry]]]:
        """Of each pack, the used blobs that count as its own, in the order in which they lie."""
        wanted = {self._number(pack_id): bytearray() for pack_id in packs}
        for kind in BlobType:
            for prefix, places in self.index.places(kind):
                marks = self._marks[kind].get(prefix)
                if marks is None or _USED not in marks:
                    continue
                if not any(place[0] in wanted for place in places):
                    continue
                records = zip(self.index.records(kind, prefix), marks, strict=False)
                for (blob_id, number, offset, length, plain), mark in records:
                    if mark == _USED and number in wanted:
                        wanted[number] += _ENTRY.pack(kind, blob_id, offset, length, plain)
        for (kind, blob_id), others in self._others.items():
            number, entry = others[0]
            if number in wanted and self._chosen_elsewhere(kind, blob_id):
                wanted[number] += _ENTRY.pack(*entry)
        for number, raw in wanted.items():
            entries = [Entry(_KINDS[kind], *place) for kind, *place in _ENTRY.iter_unpack(raw)]
            yield self._packs[number], sorted(entries, key=lambda entry: entry.offset)

    def _chosen_elsewhere(self, kind: BlobType, blob_id: bytes) -> bool:
        marks = self._marks[kind].get(blob_id[:2], b"")
        slot = self.index.slot(kind, blob_id)
        return slot < len(marks) and marks[slot] == _USED_ELSEWHERE

    def packs_holding(self, kind: BlobType, blob_id: bytes) -> list[bytes]:
        """All packs in which a blob lies."""
        first = self.index.lookup(kind, blob_id)
        others = self._others.get((kind, blob_id), ())
        return [] if first is None else [first.pack, *(self._packs[number] for number, _ in others)]

    def packs(self) -> list[bytes]:
        """All packs that an index names."""
        return list(self._packs)


class _Figures:
    """Sums for each pack, by its number."""

    def __init__(self, count: int) -> None:
        self._used_bytes = array("Q", bytes(8 * count))
        self._all_bytes = array("Q", bytes(8 * count))
        self._used_blobs = array("I", bytes(4 * count))
        self._all_blobs = array("I", bytes(4 * count))
        self._header = array("I", bytes(4 * count))
        self._doubtful = array("Q", bytes(8 * count))  # bytes of used blobs that have another place too
        self._flags = bytearray(count)

    def add(self, kind: BlobType, number: int, length: int, plain_length: int, used: bool) -> None:
        self._all_bytes[number] += length
        self._all_blobs[number] += 1
        self._header[number] += 41 if plain_length else 37
        self._flags[number] |= (1 << kind) if plain_length else (5 << kind)
        if used:
            self._used_bytes[number] += length
            self._used_blobs[number] += 1

    def doubt(self, number: int, length: int) -> None:
        """A used blob that was counted here may be left to another pack."""
        self._used_bytes[number] -= length
        self._used_blobs[number] -= 1
        self._doubtful[number] += length

    def doubt_other(self, number: int, length: int) -> None:
        self._doubtful[number] += length

    def use(self, number: int, length: int) -> None:
        self._used_bytes[number] += length
        self._used_blobs[number] += 1

    def rank(self, number: int, size: int | None) -> tuple[bool, bool, bool, int]:
        """How gladly a blob is left to a pack: one without waste first, and of these one that is needed anyway.

        A prune that was interrupted leaves packs of which all blobs lie elsewhere too, beside waste.
        """
        used = self._used_bytes[number]
        clean = used + self._doubtful[number] == self._all_bytes[number]
        return size == self.size(number), clean, used > 0, used

    def size(self, number: int) -> int:
        """Bytes that the pack must have."""
        return self._all_bytes[number] + self._header[number] + OVERHEAD + 4

    def state(self, number: int, pack_id: bytes) -> PackState:
        flags = self._flags[number]
        kinds = flags & 3
        used, total = self._used_bytes[number], self._all_bytes[number]
        blobs = self._used_blobs[number]
        return PackState(
            pack_id,
            used,
            total - used,
            blobs,
            self._all_blobs[number] - blobs,
            kind=BlobType(kinds - 1) if kinds in (1, 2) else None,
            uncompressed=bool(flags & 4),
            plain_trees=bool(flags & 8),
        )


def _references(plain: bytes, tree_id: bytes) -> tuple[bytes, bytes]:
    try:
        nodes = _decoder.decode(plain).nodes or ()
        contents = [blob_id for node in nodes if node.content for blob_id in node.content]
        subtrees = [node.subtree for node in nodes if node.subtree]
        if any(len(text) != 64 for text in contents) or any(len(text) != 64 for text in subtrees):
            raise ValueError("an id in it is not 32 bytes long")
        return bytes.fromhex("".join(contents)), bytes.fromhex("".join(subtrees))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Corrupted(
            f"tree {tree_id.hex()} decrypts but is no tree document ({error}), so nothing is removed"
        ) from error


_decoder = msgspec.json.Decoder(_TreeJSON)
