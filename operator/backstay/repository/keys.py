"""Key files: the master key, sealed under a key that scrypt derives from a password.

A repository may have several, one for each password. See "Keys, Encryption and MAC" in restic's design document.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from backstay.repository.errors import Corrupted, KeyRefused, ObjectNotFound, RepositoryNotFound, WrongPassword
from backstay.repository.format import rfc3339
from backstay.repository.format.crypto import Key
from backstay.repository.format.malformed import MALFORMED, malformed
from backstay.repository.format.snapshot import now
from backstay.repository.stores.store import Store

MOST_TRIED = 20  # key files that a password is tried on
SCRYPT_N = 32768
SCRYPT_R = 8
SCRYPT_P = 1
_MOST_WORK = 1 << 23  # N * r * p; 32 times ours, and some seconds: nothing proves that a key file is one of ours
_MEMORY_LIMIT = 512 << 20  # bytes; a key file from the bucket must not make us allocate more


class _KeyFile(msgspec.Struct):
    kdf: str
    N: int
    r: int
    p: int
    salt: bytes
    data: bytes
    created: str = ""
    username: str = ""
    hostname: str = ""


@dataclass(frozen=True)
class KeyInfo:
    """A key file that is in the repository: who made it, where, and when (UTC). All of it is only said, not proven."""

    id: str
    created: datetime
    username: str
    hostname: str


class _MacJSON(msgspec.Struct):
    k: bytes
    r: bytes


class _MasterKey(msgspec.Struct):
    mac: _MacJSON
    encrypt: bytes


def _derive(password: str, salt: bytes, n: int, r: int, p: int) -> Key:
    derived = hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, dklen=64, maxmem=_MEMORY_LIMIT)
    return Key(derived[:32], derived[32:48], derived[48:])


def add(store: Store, password: str, master: Key, *, username: str = "backstay", hostname: str = "backstay") -> str:
    """Write a key file that opens `master` with `password`; returns its id."""
    salt = os.urandom(64)
    encoded = base64.b64encode
    document = {
        "mac": {"k": encoded(master.mac_k).decode(), "r": encoded(master.mac_r).decode()},
        "encrypt": encoded(master.encrypt).decode(),
    }
    sealed = _derive(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P).seal(json.dumps(document).encode())
    key_file = {
        "created": rfc3339.from_datetime(now()),
        "username": username,
        "hostname": hostname,
        "kdf": "scrypt",
        "N": SCRYPT_N,
        "r": SCRYPT_R,
        "p": SCRYPT_P,
        "salt": encoded(salt).decode(),
        "data": encoded(sealed).decode(),
    }
    data = json.dumps(key_file, separators=(",", ":")).encode()
    digest = hashlib.sha256(data)
    store.put(f"keys/{digest.hexdigest()}", data, sha256=digest.digest())
    return digest.hexdigest()


def _read(store: Store, name: str) -> _KeyFile:
    data = store.get(name)
    if hashlib.sha256(data).hexdigest() != name.removeprefix("keys/"):
        raise Corrupted(f"{name} was changed after it was written: its content does not hash to its name")
    try:
        key_file = msgspec.json.decode(data, type=_KeyFile)
    except MALFORMED as error:
        raise malformed(f"{name} is no key file", error) from error
    n, r, p = key_file.N, key_file.r, key_file.p
    if key_file.kdf != "scrypt" or min(n, r, p) < 1 or n * r * p > _MOST_WORK:
        raise Corrupted(f"{name} asks for a key derivation that is out of bounds")
    return key_file


def _try(key_file: _KeyFile, name: str, password: str) -> Key | None:
    try:
        user = _derive(password, key_file.salt, key_file.N, key_file.r, key_file.p)
    except (ValueError, MemoryError) as error:
        raise Corrupted(f"{name} asks for a key derivation that is out of bounds: {error}") from error
    try:
        plain = user.open(key_file.data, name)
    except Corrupted:  # the MAC does not fit: another password's key
        return None
    try:
        master = msgspec.json.decode(plain, type=_MasterKey)
    except MALFORMED as error:
        raise malformed(f"{name} opens but holds no master key", error) from error
    if len(master.encrypt) != 32 or len(master.mac.k) != 16 or len(master.mac.r) != 16:
        raise Corrupted(f"{name} opens but its master key has a wrong length")
    return Key(master.encrypt, master.mac.k, master.mac.r)


def search(store: Store, password: str) -> tuple[Key, str]:
    """The master key and the id of the first key file that `password` opens.

    Raises RepositoryNotFound when there is no key file, WrongPassword when none opens, and Corrupted when none opens
    and one is damaged, since then the password may be right. As restic, it tries 20 at most: each takes a tenth of a
    second and 32 MiB, and anybody who may write to the bucket could add some.
    """
    damage: Corrupted | None = None
    found = 0
    for name, size in store.list("keys/"):
        if size == 0:
            continue
        found += 1
        if found > MOST_TRIED:
            raise WrongPassword(
                f"opening the repository: none of the first {MOST_TRIED} keys opens with this password; check it, or"
                " the Secret that it comes from, and remove keys that nobody needs"
            )
        try:
            key = _try(_read(store, name), name, password)
        except Corrupted as error:
            damage = error
            continue
        if key is not None:
            return key, name.removeprefix("keys/")
    if not found:
        raise RepositoryNotFound(
            "opening the repository: there are no key files; check the address, or create it first"
        )
    if damage is not None:
        raise damage
    raise WrongPassword(
        "opening the repository: no key opens with this password; check it, or the Secret that it comes from"
    )


def infos(store: Store) -> Iterator[KeyInfo]:
    """What the repository's key files tell about themselves. Raises Corrupted on one that is damaged."""
    for name, size in store.list("keys/"):
        if not size:
            continue
        try:
            key_file = _read(store, name)
        except ObjectNotFound:  # removed since it was listed
            continue
        try:
            created = rfc3339.to_datetime(key_file.created)
        except ValueError:
            created = datetime.fromtimestamp(0, UTC)
        yield KeyInfo(name.removeprefix("keys/"), created, key_file.username, key_file.hostname)


def find(store: Store, beginning: str) -> str:
    """The id of the one key file whose id begins so. Raises KeyRefused when there is none, or more than one."""
    names = [name.removeprefix("keys/") for name, size in store.list("keys/") if size]
    found = [key_id for key_id in names if key_id.startswith(beginning)] if beginning else []
    if len(found) != 1:
        many = "more than one key has" if found else "no key has"
        raise KeyRefused(f"looking for key {beginning!r}: {many} an id that begins so; list them to see all")
    return found[0]


def remove(store: Store, key_id: str, *, current: str) -> None:
    """Delete a key file. Raises KeyRefused for the one that is in use and for the last one.

    `current`: id of the key that the repository was opened with. Who has seen the master key keeps it: removing a key
    ends what its password opens from now on, and revokes nothing that was read before.
    """
    if key_id == current:
        raise KeyRefused(
            f"removing key {key_id[:8]}: the repository was opened with it; open it with another key's password,"
            " or change this one's"
        )
    if not any(name != f"keys/{key_id}" for name, size in store.list("keys/") if size):
        raise KeyRefused(f"removing key {key_id[:8]}: it is the last one, and nothing could be read without it")
    store.delete(f"keys/{key_id}")


def change(store: Store, password: str, master: Key, *, current: str, username: str, hostname: str) -> str:
    """Replace the key `current` by one for another password; the new key's id.

    The new one is read back and opened before the old one goes, so that at every moment there is one that works.
    """
    key_id = add(store, password, master, username=username, hostname=hostname)
    prove(store, key_id, password)
    store.delete(f"keys/{current}")
    return key_id


def prove(store: Store, key_id: str, password: str) -> None:
    """Read a key file back and open it. Raises WrongPassword or Corrupted when it does not give the master key."""
    name = f"keys/{key_id}"
    if _try(_read(store, name), name, password) is None:
        raise WrongPassword(f"proving the new key {key_id[:8]}: it does not open with its password; remove it")
