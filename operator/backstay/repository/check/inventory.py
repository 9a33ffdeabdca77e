"""What lies in the bucket and what the indexes say of it, however broken either may be.

Opening a repository believes its indexes and stops at the first that is damaged. Checks and repairs need more: every
copy of a blob, which packs exist and are as long as they should be, and what is wrong with the rest. All of it is read
under a lock, and in the order snapshots, indexes, packs: writers work in the reverse, so that nothing that a writer
adds meanwhile looks like something that is missing.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from backstay.repository.errors import Corrupted, ObjectNotFound
from backstay.repository.format import index as index_file
from backstay.repository.format import pack
from backstay.repository.format.blob import BlobType, Codec
from backstay.repository.format.crypto import OVERHEAD
from backstay.repository.format.index import Entry, Index, Location
from backstay.repository.parallel import ordered
from backstay.repository.stores.store import Store

PACK_PREFIX, INDEX_PREFIX = "data/", "index/"
_THREADS = 4
_AHEAD = 3  # decoded index files in memory, some 30 MiB each
_COPIES = 8  # of one blob that are told apart; more help nobody, and a hostile index may claim millions
_DIGEST = 16
_PLAIN = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")


class Claim(NamedTuple):
    """What an index says of a pack. `size`: bytes that the pack then has; `digest`: of the header that it then has.

    `orderly`: its blobs adjoin from the beginning, without gaps and without lying on each other. `files`: numbers of
    the index files that name it.
    """

    files: tuple[int, ...]
    size: int
    blobs: int
    digest: bytes
    orderly: bool


def header_digest(header: bytes | bytearray) -> bytes:
    """What tells a plain header from others, in a few bytes."""
    return hashlib.blake2b(header, digest_size=_DIGEST).digest()


def claim(entries: Iterable[Entry], file: int) -> Claim:
    """What follows for a pack from its entries in the index file numbered `file`."""
    header = bytearray()
    end = blobs = 0
    orderly = True
    for kind, blob_id, offset, length, plain_length in sorted(entries, key=_by_offset):
        if offset != end:
            orderly = False
        end = max(end, offset + length)
        blobs += 1
        if plain_length:
            header += _COMPRESSED.pack(kind | 2, length, plain_length, blob_id)
        else:
            header += _PLAIN.pack(kind, length, blob_id)
    return Claim((file,), end + len(header) + OVERHEAD + 4, blobs, header_digest(header), orderly)


def _by_offset(entry: Entry) -> int:
    return entry.offset


class Places:
    """Every place where a blob lies, in the order in which they were added."""

    def __init__(
        self,
        first: Index | None = None,
        *,
        without_packs: Container[bytes] = (),
        without: Container[tuple[BlobType, bytes]] = (),
    ) -> None:
        """`first` (default: a new index) gets the first place of each blob. Some packs or blobs may be passed over."""
        self._without_packs = without_packs
        self._without = without
        self._levels = [Index() if first is None else first]  # first places, second ones, and so on

    @property
    def first(self) -> Index:
        """The first place of each blob."""
        return self._levels[0]

    def add(self, pack_id: bytes, entries: list[Entry]) -> None:
        """Take in the blobs of a pack; what is known to lie there already is not doubled."""
        if pack_id in self._without_packs:
            return
        if self._without:
            entries = [entry for entry in entries if (entry.type, entry.id) not in self._without]
        for level in range(_COPIES):
            if level == len(self._levels):
                self._levels.append(Index())
            known = self._levels[level]
            before = len(known)
            known.add(pack_id, entries)
            if len(known) - before == len(entries):
                return
            entries = [
                e for e in entries if known.lookup(e.type, e.id) != (pack_id, e.offset, e.length, e.plain_length)
            ]

    def of(self, kind: BlobType, blob_id: bytes) -> Iterator[Location]:
        """Where the blob lies."""
        for level in self._levels:
            found = level.lookup(kind, blob_id)
            if found is None:
                return
            yield found


@dataclass
class Inventory:
    """The packs in the bucket, and what the readable indexes say.

    `sizes`: bytes of each pack by id. `claims`: by pack id. `places`: blobs in packs that exist, those in packs of the
    right size first; `lost`: blobs whose pack does not exist. `broken`: index files that cannot be read, with why.
    `disagreeing`: packs of which two indexes tell different things; `split`: those of which they are right together, as
    old versions of restic named the blobs of a pack in several index files. `repeated`: how often a pack is in an index
    once more. `strays`: names of objects where packs and indexes lie that are neither.
    """

    index_names: list[str] = field(default_factory=list)
    sizes: dict[bytes, int] = field(default_factory=dict)
    claims: dict[bytes, Claim] = field(default_factory=dict)
    places: Places = field(default_factory=Places)
    lost: Index = field(default_factory=Index)
    broken: dict[str, Corrupted] = field(default_factory=dict)
    disagreeing: set[bytes] = field(default_factory=set)
    split: set[bytes] = field(default_factory=set)
    repeated: int = 0
    strays: list[str] = field(default_factory=list)

    def missing(self) -> Iterator[bytes]:
        """Packs that an index names and that do not exist."""
        return (pack_id for pack_id in self.claims if pack_id not in self.sizes)

    def unindexed(self) -> Iterator[bytes]:
        """Packs that exist and that no index names."""
        return (pack_id for pack_id in self.sizes if pack_id not in self.claims)

    def doubtful(self) -> Iterator[bytes]:
        """Packs that exist and cannot be what the indexes say: their size is another, or their blobs do not adjoin."""
        for pack_id, claimed in self.claims.items():
            size = self.sizes.get(pack_id)
            if size is not None and (size != claimed.size or not claimed.orderly):
                yield pack_id


def object_id(name: str) -> bytes | None:
    """The id that an object's name ends in, or None when it ends in none."""
    text = name.rpartition("/")[2]
    if len(text) != 64 or text != text.lower():
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


class IndexFiles:
    """The index files of an inventory, read again when the entries of a pack are wanted. Safe to use by threads."""

    def __init__(self, store: Store, codec: Codec, names: list[str]) -> None:
        self._store = store
        self._codec = codec
        self._names = names
        self._mutex = threading.Lock()
        self._kept: dict[int, dict[bytes, list[Entry]]] = {}  # the files read last, by number

    def read(self, name: str) -> list[tuple[bytes, list[Entry]]]:
        """The packs of one file. Raises Corrupted, when it is so on a second reading too."""
        try:
            return self._read(name)
        except Corrupted:
            return self._read(name)  # once more: it may have been damaged on its way here

    def _read(self, name: str) -> list[tuple[bytes, list[Entry]]]:
        try:
            stored = self._store.get(name)
        except ObjectNotFound:
            raise Corrupted(f"{name} vanished while the repository was locked") from None
        return index_file.decode(self._codec.open_file(stored, name), name)

    def entries(self, claimed: Claim, pack_id: bytes) -> list[Entry]:
        """A pack's entries as all indexes together tell them, each once, in the pack's order."""
        found: dict[Entry, None] = {}
        with self._mutex:
            for number in claimed.files:
                if number not in self._kept:
                    packs: dict[bytes, list[Entry]] = {}
                    for other, entries in self.read(self._names[number]):
                        packs.setdefault(other, []).extend(entries)
                    while len(self._kept) >= _AHEAD:
                        del self._kept[next(iter(self._kept))]
                    self._kept[number] = packs
                found.update(dict.fromkeys(self._kept[number].get(pack_id, ())))
        return sorted(found, key=_by_offset)


def take(store: Store, codec: Codec, places: Places | None = None) -> tuple[Inventory, IndexFiles]:
    """List the packs, read the indexes. A lock must be held, and snapshots must have been listed before.

    `places`: to be filled, if there is something special about them.
    """
    inventory = Inventory(places=places or Places())
    for name, _ in store.list(INDEX_PREFIX):
        if object_id(name) is None:
            inventory.strays.append(name)
        else:
            inventory.index_names.append(name)
    for name, size in store.list(PACK_PREFIX):
        pack_id = object_id(name)
        if pack_id is None or pack.name(pack_id) != name:
            inventory.strays.append(name)
        else:
            inventory.sizes[pack_id] = size
    files = IndexFiles(store, codec, inventory.index_names)
    held_back: set[bytes] = set()
    for number, packs in _read_all(files, inventory, range(len(inventory.index_names))):
        _take_file(inventory, number, packs, held_back)
    _settle(inventory, files)
    # Last, so that a reader who tries one place after the other meets the good ones first.
    numbers = {number for pack_id in held_back for number in inventory.claims[pack_id].files}
    for _, packs in _read_all(files, inventory, sorted(numbers)):
        for pack_id, entries in packs:
            if pack_id in held_back:
                inventory.places.add(pack_id, entries)
    return inventory, files


def _read_all(
    files: IndexFiles, inventory: Inventory, numbers: Iterable[int]
) -> Iterator[tuple[int, list[tuple[bytes, list[Entry]]]]]:
    def read(number: int) -> tuple[int, list[tuple[bytes, list[Entry]]] | Corrupted]:
        try:
            return number, files.read(inventory.index_names[number])
        except Corrupted as error:
            return number, error

    for number, packs in ordered(read, numbers, threads=_THREADS, ahead=_AHEAD, name="index"):
        if isinstance(packs, Corrupted):
            inventory.broken[inventory.index_names[number]] = packs
        else:
            yield number, packs


def _take_file(
    inventory: Inventory, number: int, packs: list[tuple[bytes, list[Entry]]], held_back: set[bytes]
) -> None:
    """Take in one index file, but for packs that do not seem to be what it says: those are held back."""
    for pack_id, entries in packs:
        told = claim(entries, number)
        known = inventory.claims.get(pack_id)
        if known is None:
            inventory.claims[pack_id] = told
        else:
            inventory.repeated += 1
            if known.digest != told.digest or known.orderly != told.orderly:
                inventory.disagreeing.add(pack_id)
            inventory.claims[pack_id] = known._replace(files=tuple(dict.fromkeys((*known.files, number))))
        size = inventory.sizes.get(pack_id)
        if size is None:
            inventory.lost.add(pack_id, entries)
        elif size == told.size and told.orderly:
            inventory.places.add(pack_id, entries)
        else:
            held_back.add(pack_id)


def _settle(inventory: Inventory, files: IndexFiles) -> None:
    """Claims of packs that several indexes tell differently: what they say together."""
    for pack_id in sorted(inventory.disagreeing, key=lambda pack_id: inventory.claims[pack_id].files):
        known = inventory.claims[pack_id]
        together = claim(files.entries(known, pack_id), known.files[0])._replace(files=known.files)
        inventory.claims[pack_id] = together
        if together.orderly and together.size == inventory.sizes.get(pack_id):
            inventory.disagreeing.discard(pack_id)
            inventory.split.add(pack_id)
