"""Where files are cut: by content (FastCDC), so that an insertion moves few cuts and equal parts are stored once.

A reader does not care where blobs are cut, so the chunker may differ from restic's. The gear table is mixed with a seed
from the master key, so that the cuts of a known file differ between repositories.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator

from backstay.repository.format.crypto import Key

MIN_SIZE = 512 << 10  # bytes; a file up to this size is one blob
AVERAGE_SIZE = 1 << 20
MAX_SIZE = 8 << 20
BUFFER_SIZE = 2 * MAX_SIZE
SPARSE_MARK = 512 << 10  # bytes of zeros in one blob by which restic knows a sparse file


def seed(key: Key) -> int:
    """A non-zero number of 63 bits that depends on the master key alone (HKDF with SHA-256, one block)."""
    secret = hmac.new(b"backstay chunker", key.encrypt + key.mac_k + key.mac_r, hashlib.sha256).digest()
    expanded = hmac.new(secret, b"gear table seed\x01", hashlib.sha256).digest()
    return int.from_bytes(expanded[:8], "big") >> 1 or 1


class Chunker:
    """Cuts one stream after another; not to be used by two threads at once. Holds one buffer of BUFFER_SIZE bytes."""

    def __init__(self, seed: int) -> None:
        from pyfastcdc import FastCDC

        self._cdc = FastCDC(AVERAGE_SIZE, min_size=MIN_SIZE, max_size=MAX_SIZE, seed=seed)
        self._buffer = bytearray(BUFFER_SIZE)

    def cut(self, readinto: Callable[[memoryview], int]) -> Iterator[bytes]:
        """The chunks of a stream, as copies that the caller may keep.

        `readinto` fills some of a buffer and returns how many bytes, 0 at the end.
        """
        view = memoryview(self._buffer)
        filled, ended = 0, False
        while not ended:
            while filled < BUFFER_SIZE:
                count = readinto(view[filled:])
                if not count:
                    ended = True
                    break
                filled += count
            done = 0
            for chunk in self._cdc.cut_buf(view[:filled]):
                if filled - done < MAX_SIZE and not ended:
                    break  # the cut might only be the buffer's end
                yield bytes(chunk.data)
                done += chunk.length
            rest = filled - done
            view[:rest] = bytes(view[done:filled])
            filled = rest
