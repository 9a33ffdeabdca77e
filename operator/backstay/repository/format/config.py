"""The repository's config: its format version, its id, and the polynomial that restic's own chunker uses.

We cut files with another chunker, which readers need not know of, but stock restic shall be able to write into our
repositories too: it insists on an irreducible polynomial of degree 53, which is drawn here.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass

import msgspec

from backstay.repository.errors import Corrupted, UnsupportedRepository
from backstay.repository.format.malformed import MALFORMED, malformed

VERSION = 2
_DEGREE = 53
_ID = re.compile("[0-9a-f]{64}")
_POLYNOMIAL = re.compile("(?!0+$)[0-9a-fA-F]{1,16}")


@dataclass(frozen=True)
class Config:
    """What the config file says; `id` is 32 bytes in hexadecimal, `polynomial` has one bit a coefficient."""

    version: int
    id: str
    polynomial: int


class _ConfigJSON(msgspec.Struct):
    version: int
    id: str
    chunker_polynomial: str


def create() -> Config:
    """A config for a new repository, with random id and polynomial."""
    return Config(VERSION, secrets.token_hex(32), random_polynomial())


def encode(config: Config) -> bytes:
    """The config as the JSON that restic writes."""
    document = {"version": config.version, "id": config.id, "chunker_polynomial": f"{config.polynomial:x}"}
    return json.dumps(document, separators=(",", ":")).encode()


def decode(data: bytes) -> Config:
    """Parse the config's JSON. Raises Corrupted, or UnsupportedRepository for a version that we do not write."""
    broken = "the repository's config decrypts but is no config document"
    try:
        raw = msgspec.json.decode(data, type=_ConfigJSON)
    except MALFORMED as error:
        raise malformed(broken, error) from error
    if raw.version != VERSION:
        raise UnsupportedRepository(
            f"the repository has format version {raw.version}, this program uses version {VERSION};"
            " upgrade it with 'restic migrate upgrade_repo_v2'"
        )
    if not _ID.fullmatch(raw.id) or not _POLYNOMIAL.fullmatch(raw.chunker_polynomial):
        raise Corrupted(f"{broken}: its id or its polynomial is none")
    return Config(raw.version, raw.id, int(raw.chunker_polynomial, 16))


def _reduce(value: int, modulus: int) -> int:
    size = modulus.bit_length()
    while (shift := value.bit_length() - size) >= 0:
        value ^= modulus << shift
    return value


def _multiply(a: int, b: int, modulus: int) -> int:
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        b >>= 1
    return _reduce(product, modulus)


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, _reduce(a, b)
    return a


def irreducible(polynomial: int) -> bool:
    """Whether a polynomial p over GF(2) has no factors.

    Ben-Or's test: gcd(x^(2^i) - x, p) = 1 for every i up to half of p's degree.
    """
    degree = polynomial.bit_length() - 1
    if degree < 1:
        return False
    power = 2
    for _ in range(degree // 2):
        power = _multiply(power, power, polynomial)
        if _gcd(polynomial, power ^ 2) != 1:
            return False
    return True


def random_polynomial() -> int:
    """A random irreducible polynomial of degree 53 over GF(2)."""
    while True:
        polynomial = secrets.randbits(_DEGREE) | 1 << _DEGREE | 1
        if irreducible(polynomial):
            return polynomial
