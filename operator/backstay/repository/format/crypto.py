"""Sealing and opening: AES-256 in counter mode, authenticated by Poly1305-AES, as restic's format prescribes.

A sealed message is IV (16 bytes), ciphertext, MAC (16 bytes). The MAC binds neither a name nor a type; callers prove
those by SHA-256. Cipher contexts are kept for each thread: making one costs more than sealing a small blob.
See "Keys, Encryption and MAC" in restic's design document.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

from backstay.repository.errors import Corrupted

OVERHEAD = 32  # bytes that sealing adds
_IVS = 256  # IVs taken from the system's random source at once


class _Contexts(threading.local):
    """Contexts of one thread; `ivs` holds random bytes not used yet."""

    ctr: CipherContext
    ecb: CipherContext
    made: bool = False
    ivs: bytes = b""
    next_iv: int = 0


@dataclass(frozen=True)
class Key:
    """A 32-byte encryption key and the two 16-byte halves, `k` and `r`, of a Poly1305-AES key."""

    encrypt: bytes = field(repr=False)
    mac_k: bytes = field(repr=False)
    mac_r: bytes = field(repr=False)
    _contexts: _Contexts = field(default_factory=_Contexts, repr=False, compare=False)

    @classmethod
    def random(cls) -> Key:
        """A new master key."""
        return cls(os.urandom(32), os.urandom(16), os.urandom(16))

    def _ready(self) -> _Contexts:
        contexts = self._contexts
        if not contexts.made:
            contexts.made = True
            contexts.ecb = Cipher(algorithms.AES(self.mac_k), modes.ECB()).encryptor()
            contexts.ctr = Cipher(algorithms.AES(self.encrypt), modes.CTR(bytes(16))).encryptor()
        return contexts

    def _iv(self, contexts: _Contexts) -> bytes:
        position = contexts.next_iv
        if position >= len(contexts.ivs):
            contexts.ivs, position = os.urandom(16 * _IVS), 0
        contexts.next_iv = position + 16
        return contexts.ivs[position : position + 16]

    def seal(self, data: bytes | bytearray | memoryview) -> bytes:
        """IV, ciphertext and MAC of `data`, under a fresh random IV."""
        contexts = self._ready()
        iv = self._iv(contexts)
        contexts.ctr.reset_nonce(iv)
        ciphertext = contexts.ctr.update(data)
        return iv + ciphertext + Poly1305.generate_tag(self.mac_r + contexts.ecb.update(iv), ciphertext)

    def seal_into(self, data: bytes | memoryview, room: memoryview) -> None:
        """As `seal`, into `room`, which is OVERHEAD bytes longer than `data`."""
        contexts = self._ready()
        iv = self._iv(contexts)
        room[:16] = iv
        contexts.ctr.reset_nonce(iv)
        contexts.ctr.update_into(data, room[16:])
        room[-16:] = Poly1305.generate_tag(self.mac_r + contexts.ecb.update(iv), room[16:-16])

    def open(self, sealed: bytes | memoryview, what: str) -> bytes:
        """The data that was sealed. Raises Corrupted, naming `what`, when the MAC does not fit."""
        if len(sealed) < OVERHEAD:
            raise Corrupted(f"{what} is only {len(sealed)} bytes long and cannot be a sealed message")
        contexts = self._ready()
        view = memoryview(sealed)
        iv, ciphertext = bytes(view[:16]), view[16:-16]
        try:
            Poly1305.verify_tag(self.mac_r + contexts.ecb.update(iv), ciphertext, bytes(view[-16:]))
        except InvalidSignature:
            raise Corrupted(f"{what} was changed after it was written: its authentication code does not fit") from None
        contexts.ctr.reset_nonce(iv)
        return contexts.ctr.update(ciphertext)
