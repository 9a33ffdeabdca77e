"""A small repository in memory that tests may damage, and stock restic's verdict on what became of it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from backstay.repository import Node, Repository, Snapshot
from backstay.repository.format import index as index_file
from backstay.repository.format import tree
from backstay.repository.format.blob import BlobType
from backstay.repository.format.index import Entry
from backstay.repository.format.tree import MODE_DIR
from tests.repository.conftest import PASSWORD
from tests.unit.repository.memory_store import MemoryStore

TIME = datetime(2026, 11, 24, tzinfo=UTC)
NS = 1_700_000_000_000_000_000


def noise(size: int, seed: int) -> bytes:
    """Bytes that do not compress and are the same each time."""
    return hashlib.shake_128(b"%d" % seed).digest(size)


def file(name: str, *blobs: bytes, size: int) -> Node:
    return Node(
        name=name, type="file", mode=0o644, mtime=NS, atime=NS, ctime=NS, size=size, links=1,
        content=tuple(blob.hex() for blob in blobs),
    )  # fmt: skip


def directory(name: str, tree_id: bytes) -> Node:
    return Node(name=name, type="dir", mode=MODE_DIR | 0o755, mtime=NS, atime=NS, ctime=NS, subtree=tree_id.hex())


@dataclass
class Sample:
    """A repository of two snapshots.

    `first` holds /one (blob 0), /sub/inner (blobs 0 and 1) and /two (blob 2); `second` holds only /two.
    """

    store: MemoryStore
    repository: Repository
    blobs: list[bytes]
    sub: bytes
    first: str
    second: str

    def names(self, prefix: str) -> list[str]:
        return [name for name in sorted(self.store.objects) if name.startswith(prefix)]

    def pack_of(self, kind: BlobType, blob_id: bytes) -> str:
        """The name of the object in which a blob lies."""
        self.repository.ready()
        location = self.repository.index.lookup(kind, blob_id)
        assert location is not None
        return f"data/{location.pack.hex()[:2]}/{location.pack.hex()}"

    @property
    def data_pack(self) -> str:
        return self.pack_of(BlobType.DATA, self.blobs[0])

    @property
    def tree_pack(self) -> str:
        return self.pack_of(BlobType.TREE, self.sub)

    def place(self, kind: BlobType, blob_id: bytes) -> tuple[int, int]:
        """Offset and length of a blob in its pack."""
        self.repository.ready()
        location = self.repository.index.lookup(kind, blob_id)
        assert location is not None
        return location.offset, location.length

    def flip(self, name: str, position: int) -> None:
        """Change one bit of an object, as a failing disk would."""
        content = bytearray(self.store.objects[name])
        content[position] ^= 1 << position % 8
        self.store.objects[name] = bytes(content)

    def flip_blob(self, kind: BlobType, blob_id: bytes) -> None:
        """Change one bit of a stored blob."""
        self.flip(self.pack_of(kind, blob_id), sum(self.place(kind, blob_id)) - 20)

    def put_index(self, packs: list[tuple[bytes, list[Entry]]]) -> str:
        """Store an index file that says what a test wants."""
        stored = self.repository.codec.seal_file(index_file.encode(packs))
        name = f"index/{hashlib.sha256(stored).hexdigest()}"
        self.store.objects[name] = stored
        return name

    def read_index(self) -> list[tuple[bytes, list[Entry]]]:
        """What all index files say."""
        packs = []
        for name in self.names("index/"):
            stored = self.store.objects[name]
            packs += index_file.decode(self.repository.codec.open_file(stored, name), name)
        return packs

    def fresh(self) -> Repository:
        """The repository as somebody finds it who opens it now."""
        return Repository.open(self.store, PASSWORD)

    def contents(self) -> dict[tuple[str, str], bytes]:
        """All files of all snapshots, by tree of the snapshot's root and path."""
        repository = self.fresh()
        return {
            (snapshot.id, path): b"".join(repository.read_file(node))
            for snapshot in repository.snapshots()
            for path, node in repository.walk(snapshot.tree)
            if node.type == "file"
        }


def make_sample() -> Sample:
    """The repository of `Sample`: one pack of data, one of trees, one index file."""
    store = MemoryStore()
    repository = Repository.init(store, PASSWORD)
    with repository.writer() as writer:
        blobs = [writer.save_blob(BlobType.DATA, noise(60, number)) for number in range(3)]
        sub = writer.save_blob(BlobType.TREE, tree.encode([file("inner", blobs[0], blobs[1], size=120)]))
        one, two = file("one", blobs[0], size=60), file("two", blobs[2], size=60)
        root = writer.save_blob(BlobType.TREE, tree.encode([one, directory("sub", sub), two]))
        other = writer.save_blob(BlobType.TREE, tree.encode([two]))
        first = writer.commit(Snapshot(time=TIME, tree=root.hex(), paths=("/x",), hostname="host", tags=("a",)))
        second = writer.commit(Snapshot(time=TIME, tree=other.hex(), paths=("/y",), hostname="host"))
    return Sample(store, repository, blobs, sub, first, second)


def copy_of(sample: Sample) -> Sample:
    """The same repository in a store of its own."""
    store = MemoryStore(sample.store.objects)
    opened = sample.repository
    again = Repository(store, opened.codec.key, opened.config, opened.key_id)
    return Sample(store, again, sample.blobs, sample.sub, sample.first, sample.second)


class LocalRestic:
    """Stock restic on a copy of a store in a directory."""

    def __init__(self, binary: Path, place: Path) -> None:
        self._binary = binary
        self.place = place

    def load(self, store: MemoryStore) -> None:
        """Put the store's objects where restic looks."""
        for name in [path for path in self.place.rglob("*") if path.is_file()]:
            name.unlink()
        for directory_name in ("keys", "locks", "snapshots", "index", "data"):
            (self.place / directory_name).mkdir(parents=True, exist_ok=True)
        for name, content in store.objects.items():
            path = self.place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._binary), "--no-cache", "--repo", str(self.place), *arguments],
            env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def accepts(self, store: MemoryStore) -> bool:
        """Whether `restic check --read-data` finds no errors."""
        self.load(store)
        done = self.run("check", "--read-data")
        return done.returncode == 0 and "no errors were found" in done.stdout

    def snapshots(self) -> list[dict[str, str]]:
        done = self.run("snapshots", "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, str]] = json.loads(done.stdout)
        return found


Damage = Callable[[Sample], None]
