"""Reading blobs back: found by the index, fetched by range, proven by MAC and hash before anybody sees a byte."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence

from backstay.repository.errors import Corrupted, ObjectNotFound
from backstay.repository.format import pack, tree
from backstay.repository.format.blob import BlobType, Codec
from backstay.repository.format.index import Index, Location
from backstay.repository.format.tree import Node, NodeJSON
from backstay.repository.stores.store import Store

WINDOW = 1 << 20  # bytes of a tree pack that are fetched at once: neighbours are wanted next
_WINDOWS = 16  # windows kept
RANGE = 4 << 20  # bytes of adjoining data blobs that are fetched at once


def parse_id(text: str, what: str) -> bytes:
    """A hexadecimal id as 32 bytes. Raises Corrupted, naming `what` it stands in."""
    try:
        blob_id = bytes.fromhex(text)
    except ValueError:
        blob_id = b""
    if len(blob_id) != 32:
        raise Corrupted(f"{what} refers to {text[:80]!r}, which is no id")
    return blob_id


class Reader:
    """Blobs by id. Safe to use from several threads."""

    def __init__(self, store: Store, codec: Codec, index: Index) -> None:
        self._store = store
        self._codec = codec
        self._index = index
        self._windows: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._mutex = threading.Lock()

    def locate(self, kind: BlobType, blob_id: bytes) -> Location:
        """Where a blob lies. Raises Corrupted when no index knows it."""
        location = self._index.lookup(kind, blob_id)
        if location is None:
            raise Corrupted(
                f"{kind.name.lower()} blob {blob_id.hex()} is in no index; the repository has lost it,"
                " or its index: 'restic repair index' may find it again"
            )
        return location

    def fetch(self, pack_id: bytes, offset: int, length: int) -> bytes:
        """A range of a pack as it is stored. Raises Corrupted when the pack is gone."""
        try:
            return self._store.get(pack.name(pack_id), offset, length)
        except ObjectNotFound as error:
            raise Corrupted(
                f"pack {pack_id.hex()} is missing from the repository although an index names it"
            ) from error

    def fetch_into(self, pack_id: bytes, offset: int, room: memoryview) -> None:
        """As `fetch`, of as many bytes as `room` takes."""
        get_into = getattr(self._store, "get_into", None)
        if get_into is None:
            room[:] = self.fetch(pack_id, offset, len(room))
            return
        try:
            get_into(pack.name(pack_id), offset, room)
        except ObjectNotFound as error:
            raise Corrupted(
                f"pack {pack_id.hex()} is missing from the repository although an index names it"
            ) from error

    def open(self, sealed: bytes | memoryview, kind: BlobType, blob_id: bytes, location: Location) -> bytes:
        """A blob's content out of its stored form, proven."""
        what = _what(kind, blob_id, location)
        return self._codec.open_blob(sealed, location.plain_length, blob_id, what)

    def tree(self, tree_id: bytes) -> bytes:
        """A tree blob's content."""
        try:
            sealed, location = self.sealed_tree(tree_id)
            return self.open(sealed, BlobType.TREE, tree_id, location)
        except Corrupted as error:
            return self.blob(BlobType.TREE, tree_id, error)

    def nodes(self, tree_id: bytes) -> Iterator[Node]:
        """The nodes of a tree, which is proven before the first comes; few are held at a time."""
        return tree.stream(self._tree_pieces(tree_id), tree_id.hex())

    def node_batches(self, tree_id: bytes) -> Iterator[list[NodeJSON]]:
        """As `nodes`, as they stand in the tree's JSON, and those together that are held together."""
        return tree.batches(self._tree_pieces(tree_id), tree_id.hex())

    def _tree_pieces(self, tree_id: bytes) -> Iterator[bytes]:
        pieces: Iterator[bytes] = iter(())
        try:
            sealed, location = self.sealed_tree(tree_id)
            what = _what(BlobType.TREE, tree_id, location)
            pieces = self._codec.open_stream(sealed, location.plain_length, tree_id, what)
            first = next(pieces, b"")  # with the first piece the whole is proven
        except Corrupted as error:
            first = self.blob(BlobType.TREE, tree_id, error)
        yield first
        yield from pieces

    def blob(self, kind: BlobType, blob_id: bytes, fault: Corrupted | None = None) -> bytes:
        """A blob's content, fetched alone, from the first of its places where it is whole.

        Raises Corrupted when it is whole nowhere: `fault`, if that is known already.
        """
        return self.whole(kind, blob_id, fault)[0]

    def whole(
        self, kind: BlobType, blob_id: bytes, fault: Corrupted | None = None, gone: Container[bytes] = ()
    ) -> tuple[bytes, bytes, Location]:
        """As `blob`, and how it is stored and where. `gone`: packs that need not be asked for."""
        self.locate(kind, blob_id)
        for location in self._index.copies(kind, blob_id):
            if location.pack in gone:
                continue
            try:
                sealed = self.fetch(location.pack, location.offset, location.length)
                return self.open(sealed, kind, blob_id, location), sealed, location
            except Corrupted as error:
                fault = fault or error
        raise fault or Corrupted(f"{kind.name.lower()} blob {blob_id.hex()} lies only in packs that are gone")

    def sealed_tree(self, tree_id: bytes) -> tuple[bytes, Location]:
        """A tree blob as it is stored. What lies around it is kept for a while, since a walk wants it next."""
        location = self.locate(BlobType.TREE, tree_id)
        number = location.offset // WINDOW
        start = number * WINDOW
        end = location.offset + location.length
        key = (location.pack, number)
        with self._mutex:
            window = self._windows.get(key)
            if window is not None:
                self._windows.move_to_end(key)
        if window is None or start + len(window) < end:
            stop = max(end, min(start + WINDOW, self._index.pack_end(location.pack)))
            window = self.fetch(location.pack, start, stop - start)
            with self._mutex:
                self._windows[key] = window
                while len(self._windows) > _WINDOWS:
                    self._windows.popitem(last=False)
        return window[location.offset - start : end - start], location

    def contents(self, ids: Sequence[bytes]) -> Iterator[bytes]:
        """Data blobs in order, each proven; those that adjoin in a pack are fetched together."""
        position = 0
        while position < len(ids):
            locations = [self.locate(BlobType.DATA, ids[position])]
            first = locations[0]
            end = first.offset + first.length
            for blob_id in ids[position + 1 :]:
                following = self.locate(BlobType.DATA, blob_id)
                if following.pack != first.pack or following.offset != end or end - first.offset >= RANGE:
                    break
                locations.append(following)
                end += following.length
            fault = None
            try:
                fetched = memoryview(self.fetch(first.pack, first.offset, end - first.offset))
            except Corrupted as error:
                fetched, fault = memoryview(b""), error  # gone or cut off: each is looked for apart
            for location in locations:
                start = location.offset - first.offset
                sealed = fetched[start : start + location.length]
                try:
                    content = self.open(sealed, BlobType.DATA, ids[position], location)
                except Corrupted as error:
                    content = self.blob(BlobType.DATA, ids[position], fault or error)
                yield content
                position += 1


def _what(kind: BlobType, blob_id: bytes, location: Location) -> str:
    return f"{kind.name.lower()} blob {blob_id.hex()} in pack {location.pack.hex()}"
