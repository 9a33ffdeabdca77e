"""The repository's own files, decrypted, and their ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from backstay.cli.repo.choose import one, tree_of
from backstay.cli.repo.environment import refuse
from backstay.repository.errors import ObjectNotFound
from backstay.repository.format.blob import BlobType
from backstay.repository.reader import parse_id

if TYPE_CHECKING:
    from backstay.repository.repository import Repository

_DIGITS = 64  # of an id
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
        return _pretty(repository.ready().tree(_tree_id(repository, beginning)))
    if kind == "blob":
        return _blob(repository, _whole_id(kind, beginning))
    name = _find(repository, kind, beginning)
    stored = repository.store.get(name)
    if kind == "pack":
        return stored
    return _pretty(stored if kind == "key" else repository.codec.open_file(stored, name))


def _tree_id(repository: Repository, text: str) -> bytes:
    """A tree's own id, or that of the snapshot or of the folder in it that is named."""
    if len(text) == _DIGITS and text not in repository.snapshot_ids():
        return _whole_id("tree", text)
    snapshot, folder = one(repository, text)
    return parse_id(tree_of(repository, snapshot, folder), f"snapshot {snapshot.id}")


def _whole_id(kind: str, text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if 2 * len(found) != _DIGITS:
        refuse(f"looking for {kind} {text!r}: it is named by its whole id, which has {_DIGITS} hexadecimal digits")
    return found


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
