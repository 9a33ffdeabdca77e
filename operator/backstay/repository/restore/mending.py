"""What a restore does about a blob that is damaged where it was fetched: it is looked for alone, and in other packs.

The rest of the restore goes on. Only a part whose blobs are whole nowhere is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from backstay.repository.errors import Corrupted, ObjectNotFound
from backstay.repository.format.blob import BlobType, Codec
from backstay.repository.format.index import Location
from backstay.repository.reader import Reader
from backstay.repository.restore.orders import Blob, Write


class Mender:
    """Mends orders. Safe to use from several threads."""

    def __init__(self, reader: Reader, codec: Codec) -> None:
        self._reader = reader
        self._codec = codec
        self._gone: dict[bytes, Corrupted] = {}

    def failed(self, pack_id: bytes, error: Corrupted) -> None:
        """A range of a pack could not be fetched. What is not there is not asked for again, blob by blob."""
        if isinstance(error.__cause__, ObjectNotFound):
            self._gone[pack_id] = error

    def mend(
        self, order: Write, parts: Iterable[int], room: memoryview, more: Callable[[int], int | None]
    ) -> tuple[Write, list[int], dict[int, str]]:
        """Make the damaged parts of an order anew: an order for those that can be had, which they are, and the faults
        of the rest.

        `room` is the range that was fetched; a blob goes where it was, if it fits, or where `more` gives so many bytes.
        """
        blobs = list(order.blobs)
        judged: dict[int, str] = {}
        redo: list[int] = []
        faults: dict[int, str] = {}
        for number in parts:
            fault = ""
            for blob, _ in order.parts[number].pieces:
                if blob not in judged:
                    judged[blob] = self._find(order.pack, blobs, blob, room, more)
                fault = fault or judged[blob]
            if fault:
                faults[number] = fault
            else:
                redo.append(number)
        again = msgspec.structs.replace(order, blobs=blobs, parts=[order.parts[number] for number in redo])
        return again, redo, faults

    def _find(
        self, pack_id: bytes, blobs: list[Blob], number: int, room: memoryview, more: Callable[[int], int | None]
    ) -> str:
        """Let a blob be in the room; what is wrong when it cannot."""
        blob = blobs[number]
        place = Location(pack_id, blob.offset, blob.length, blob.plain_length)
        try:
            if pack_id not in self._gone:
                try:
                    self._reader.open(room[blob.offset : blob.offset + blob.length], BlobType.DATA, blob.id, place)
                except Corrupted:
                    pass
                else:
                    return ""
            _, sealed, found = self._reader.whole(BlobType.DATA, blob.id, self._gone.get(pack_id), self._gone)
        except Corrupted as error:
            return str(error)
        at = blob.offset if len(sealed) <= blob.length else more(len(sealed))
        if at is None:
            return f"data blob {blob.id.hex()} has too large a copy in pack {found.pack.hex()} to be put in its place"
        room[at : at + len(sealed)] = sealed
        blobs[number] = Blob(blob.id, at, len(sealed), found.plain_length)
        return ""
