"""The repository's own files, decrypted, and their ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from backstay.repository.errors import ObjectNotFound
from backstay.repository.format.blob import BlobType
from backstay.repository.reader import parse_id

if TYPE_CHECKING:
    from backstay.repository.repository import Repository

_DIRECTORIES = {
    "snapshot": "snapshots/",
    "index": "index/",
    "key": "keys/",
    "lock": "locks/",
    "pack": "data/",
    "snapshots": "snapshots/",
    "keys": "keys/",
    "locks": "locks/",
    "packs": "data/",
}


def read(repository: Repository, kind: str, beginning: str) -> bytes:
    """One file's plain content; documents are indented, packs are as they are stored. Raises ObjectNotFound."""
    if kind == "config":
        return _pretty(repository.codec.key.open(repository.store.get("config"), "the repository's config"))
    if kind == "tree":
        return _pretty(repository.ready().tree(parse_id(beginning, "the request")))
    if kind == "blob":
        return _blob(repository, parse_id(beginning, "the request"))
    name = _find(repository, kind, beginning)
    stored = repository.store.get(name)
    if kind == "pack":
        return stored
    return _pretty(stored if kind == "key" else repository.codec.open_file(stored, name))


def _blob(repository: Repository, blob_id: bytes) -> bytes:
    reader = repository.ready()
    if repository.index.lookup(BlobType.DATA, blob_id) is not None:
        return b"".join(reader.contents([blob_id]))
    return reader.tree(blob_id)


def _find(repository: Repository, kind: str, beginning: str) -> str:
    directory = _DIRECTORIES[kind]
    if kind == "pack" and len(beginning) >= 2:
        directory += f"{beginning[:2]}/"
    names = [name for name, _ in repository.store.list(directory) if name.rpartition("/")[2].startswith(beginning)]
    if len(names) != 1 or not beginning:
        many = "more than one" if names and beginning else "no"
        raise ObjectNotFound(f"looking for {kind} {beginning!r}: {many} {kind} has an id that begins so; list them")
    return names[0]


def _pretty(document: bytes) -> bytes:
    return json.dumps(json.loads(document), indent=2, ensure_ascii=False).encode() + b"\n"


def identifiers(repository: Repository, kind: str) -> Iterator[str]:
    """Ids of all files of a kind, or types and ids of all blobs."""
    if kind == "blobs":
        from backstay.repository.format import index

        for name, _ in repository.store.list("index/"):
            for _, entries in index.decode(repository.codec.open_file(repository.store.get(name), name), name):
                for entry in entries:
                    yield f"{entry.type.name.lower()} {entry.id.hex()}"
        return
    for name, _ in repository.store.list(_DIRECTORIES.get(kind, f"{kind}/")):
        yield name.rpartition("/")[2]
