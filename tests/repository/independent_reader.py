"""A second reader of the repository format, written from docs/repository.md alone, in plain loops.

It shares no code with Backstay, so that an error which the writer and the reader of the engine make alike is seen here.
It proves every id and every authentication code, keeps all that it has read, and knows no lock.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import zstandard
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

Get, Names = Callable[[str], bytes], Callable[[str], Iterable[str]]


def expect(true: bool, what: str) -> None:
    """Raises ValueError when the repository is not what the format says."""
    if not true:
        raise ValueError(what)


def directory(root: Path) -> tuple[Get, Names]:
    """How to read a repository in a local directory: an object by its name, and the names in a directory of it."""

    def names(prefix: str) -> list[str]:
        return [str(path.relative_to(root)) for path in sorted((root / prefix).rglob("*")) if path.is_file()]

    return lambda name: (root / name).read_bytes(), names


def bucket(client: Any, name: str, prefix: str) -> tuple[Get, Names]:
    """How to read a repository in S3, with a client of boto3."""

    def names(under: str) -> list[str]:
        found = []
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=f"{prefix}/{under}"):
            found += [entry["Key"].removeprefix(f"{prefix}/") for entry in page.get("Contents", [])]
        return found

    return lambda key: client.get_object(Bucket=name, Key=f"{prefix}/{key}")["Body"].read(), names


def unseal(keys: tuple[bytes, bytes, bytes], sealed: bytes) -> bytes:
    """IV, ciphertext, MAC -> plain."""
    encrypt, mac_k, mac_r = keys
    iv, ciphertext, mac = sealed[:16], sealed[16:-16], sealed[-16:]
    one_time = Cipher(algorithms.AES(mac_k), modes.ECB()).encryptor().update(iv)
    expect(Poly1305.generate_tag(mac_r + one_time, ciphertext) == mac, "an authentication code does not fit")
    return Cipher(algorithms.AES(encrypt), modes.CTR(iv)).decryptor().update(ciphertext)


def decompress(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def unquote(text: str) -> bytes:
    """The bytes of a name that was quoted as Go quotes strings."""
    letters = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}
    name, at = b"", 0
    while at < len(text):
        if text[at] != "\\":
            name, at = name + text[at].encode(), at + 1
        elif text[at + 1] in letters:
            name, at = name + bytes([letters[text[at + 1]]]), at + 2
        elif text[at + 1] == "x":
            name, at = name + bytes([int(text[at + 2 : at + 4], 16)]), at + 4
        else:
            digits = {"u": 4, "U": 8}[text[at + 1]]
            name, at = name + chr(int(text[at + 2 : at + 2 + digits], 16)).encode(), at + 2 + digits
    return name


def nanoseconds(time: str) -> int:
    """Since 1970, of a time such as 2026-11-24T02:00:00.123456789+01:00."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", time)
    assert found is not None, f"{time!r} is no time"
    whole = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
    return int(whole.timestamp()) * 10**9 + int((found[2] or "0").ljust(9, "0"))


def unix_mode(mode: int) -> int:
    """Permissions, set-uid, set-gid and sticky bit out of Go's file mode."""
    return mode & 0o777 | (mode >> 23 & 1) << 11 | (mode >> 22 & 1) << 10 | (mode >> 20 & 1) << 9


class Reader:
    """An opened repository. `blobs`: (type, id) -> pack, offset, length, length before compression (0: none)."""

    def __init__(self, get: Get, names: Names, password: str) -> None:
        self.get, self.names = functools.cache(get), names
        self.keys = self._open(password)
        self.config = json.loads(unseal(self.keys, get("config")))
        expect(self.config["version"] == 2, "the format's version is not 2")
        self.blobs: dict[tuple[str, str], tuple[str, int, int, int]] = {}
        for name in names("index/"):
            for pack in json.loads(self.file(name))["packs"]:
                for blob in pack["blobs"]:
                    place = (pack["id"], blob["offset"], blob["length"], blob.get("uncompressed_length", 0))
                    self.blobs[blob["type"], blob["id"]] = place

    def _open(self, password: str) -> tuple[bytes, bytes, bytes]:
        for name in self.names("keys/"):
            key = json.loads(self.proven(name))
            expect(key["kdf"] == "scrypt", "a key is derived in an unknown way")
            salt = base64.b64decode(key["salt"])
            cost = {"n": key["N"], "r": key["r"], "p": key["p"], "maxmem": 1 << 30}
            derived = hashlib.scrypt(password.encode(), salt=salt, dklen=64, **cost)
            try:
                plain = unseal((derived[:32], derived[32:48], derived[48:]), base64.b64decode(key["data"]))
            except ValueError:
                continue  # another password's
            master = json.loads(plain)
            encrypt, mac = base64.b64decode(master["encrypt"]), master["mac"]
            return encrypt, base64.b64decode(mac["k"]), base64.b64decode(mac["r"])
        raise ValueError("no key opens with this password")

    def proven(self, name: str) -> bytes:
        """An object whose name is its hash."""
        data = self.get(name)
        expect(hashlib.sha256(data).hexdigest() == name.rpartition("/")[2], f"{name} does not hash to its name")
        return data

    def file(self, name: str) -> bytes:
        """The JSON in an index, a snapshot or a lock."""
        plain = unseal(self.keys, self.proven(name))
        expect(plain[:1] in (b"{", b"[", b"\x02"), f"{name} is encoded in an unknown way")
        return decompress(plain[1:]) if plain[0] == 2 else plain

    def snapshots(self) -> dict[str, Any]:
        """All snapshots by their ids."""
        return {name.rpartition("/")[2]: json.loads(self.file(name)) for name in self.names("snapshots/")}

    def blob(self, kind: str, blob_id: str) -> bytes:
        """A blob's content, found through the index."""
        pack, offset, length, plain_length = self.blobs[kind, blob_id]
        data = unseal(self.keys, self.get(f"data/{pack[:2]}/{pack}")[offset : offset + length])
        data = decompress(data) if plain_length else data
        expect(plain_length in (0, len(data)), f"blob {blob_id} has another length than the index says")
        expect(hashlib.sha256(data).hexdigest() == blob_id, f"blob {blob_id} has another content")
        return data

    def header(self, pack: str) -> list[tuple[str, str, int, int, int]]:
        """What a pack's own header says: type, id, offset, length, length before compression of each blob."""
        body = self.proven(f"data/{pack[:2]}/{pack}")
        length = int.from_bytes(body[-4:], "little")
        header = unseal(self.keys, body[-4 - length : -4])
        found, at, offset = [], 0, 0
        while at < len(header):
            kind, size = header[at], int.from_bytes(header[at + 1 : at + 5], "little")
            expect(kind < 4, f"pack {pack} holds a blob of an unknown type")
            plain_length = int.from_bytes(header[at + 5 : at + 9], "little") if kind & 2 else 0
            at += 9 if kind & 2 else 5
            found.append(("tree" if kind & 1 else "data", header[at : at + 32].hex(), offset, size, plain_length))
            at, offset = at + 32, offset + size
        expect(offset + length + 4 == len(body), f"pack {pack} has a gap")
        return found

    def tree(self, tree_id: str) -> list[dict[str, Any]]:
        """The nodes of a directory, in strict order of their names' bytes."""
        nodes: list[dict[str, Any]] = json.loads(self.blob("tree", tree_id))["nodes"] or []
        names = [unquote(node["name"]) for node in nodes]
        expect(names == sorted(set(names)), f"the nodes of tree {tree_id} are not in order")
        return nodes

    def restore(self, tree_id: str, at: bytes = b"") -> dict[bytes, dict[str, Any]]:
        """All that lies below a tree, by path: type, mode, owner, mtime, xattrs, and content, target or device."""
        found: dict[bytes, dict[str, Any]] = {}
        for node in self.tree(tree_id):
            path = at + unquote(node["name"])
            found[path] = entry = {
                "type": node["type"],
                "mode": unix_mode(node.get("mode", 0)),
                "owner": (node["uid"], node["gid"]),
                "mtime": nanoseconds(node["mtime"]),
                "xattrs": {x["name"]: base64.b64decode(x["value"] or "") for x in node.get("extended_attributes", [])},
            }
            if node["type"] == "dir":
                found |= self.restore(node["subtree"], path + b"/")
            elif node["type"] == "file":
                entry["content"] = b"".join(self.blob("data", blob_id) for blob_id in node["content"])
                expect(len(entry["content"]) == node.get("size", 0), f"{path!r} has another length than its node says")
                if node.get("links", 1) > 1:
                    entry["same file as"] = (node["device_id"], node["inode"])
            elif node["type"] == "symlink":
                raw = node.get("linktarget_raw")
                entry["target"] = base64.b64decode(raw) if raw else node["linktarget"].encode()
            elif node["type"] in ("dev", "chardev"):
                entry["device"] = node.get("device", 0)
        return found
