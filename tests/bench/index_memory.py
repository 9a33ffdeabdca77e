"""What an index of millions of blobs costs: memory, and seconds to load it and to look blobs up.

usage: python -m tests.bench.index_memory [--blobs N] [--a-pack N]

A repository with index files and no packs is made in a local directory, and opened by a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from backstay.repository import Repository
from backstay.repository.format import index as index_file
from backstay.repository.format.blob import BlobType
from backstay.repository.format.pack import Entry
from backstay.repository.stores.local import LocalStore
from tests.bench.measure import measure

ROOT = Path(__file__).parents[2]
PASSWORD = "bench"
LIMIT = 512  # MiB
FILE_BLOBS = 50_000  # blobs in an index file
LOOKUPS = 200_000


def blob_id(number: int) -> bytes:
    """The id of a blob that was never stored."""
    return hashlib.sha256(b"%d" % number).digest()


def packs(start: int, stop: int, size: int) -> Iterator[tuple[bytes, list[Entry]]]:
    """Packs of blobs of about 1 MiB each, one tree among so many."""
    for first in range(start, stop, size):
        entries = [
            Entry(BlobType(not number % 50), blob_id(number), (number - first) << 20, 1 << 20, 1_300_000)
            for number in range(first, min(first + size, stop))
        ]
        yield hashlib.sha256(b"pack %d" % first).digest(), entries


def make(place: Path, blobs: int, a_pack: int) -> None:
    """Write the repository."""
    store = LocalStore(place)
    place.mkdir()
    repository = Repository.init(store, PASSWORD)
    for start in range(0, blobs, FILE_BLOBS):
        document = index_file.encode(packs(start, min(start + FILE_BLOBS, blobs), a_pack))
        stored = repository.codec.seal_file(document)
        store.put(f"index/{hashlib.sha256(stored).hexdigest()}", stored)


def load(place: Path, blobs: int) -> None:
    """In a process of its own: open, load, look up, and tell what it took."""
    repository = Repository.open(LocalStore(place), PASSWORD)
    started = time.monotonic(), time.process_time()
    repository.ready()
    loaded = time.monotonic() - started[0], time.process_time() - started[1]
    wanted = [number * 7919 % blobs for number in range(LOOKUPS)]
    ids = [(BlobType(not number % 50), blob_id(number)) for number in wanted]
    begun = time.process_time()
    found = sum(repository.index.lookup(kind, wanted_id) is not None for kind, wanted_id in ids)
    looked_up = time.process_time() - begun
    assert found == LOOKUPS, f"{LOOKUPS - found} of {LOOKUPS} blobs are not found"
    assert not repository.index.has(BlobType.DATA, blob_id(-1))
    told = {
        "blobs": blobs,
        "load wall, s": round(loaded[0], 2),
        "load CPU, s": round(loaded[1], 2),
        "lookup, us": round(looked_up / LOOKUPS * 1e6, 2),
        "peak RSS, MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    place.with_suffix(".json").write_text(json.dumps(told))


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blobs", type=int, default=5_000_000)
    parser.add_argument("--a-pack", type=int, default=16, help="blobs in a pack")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load(options.load, options.blobs)
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        place = Path(name) / "repository"
        make(place, options.blobs, options.a_pack)
        again = ["-m", "tests.bench.index_memory", "--load", str(place), "--blobs", str(options.blobs)]
        cost = measure([sys.executable, *again], {}, ROOT)
        told = json.loads(place.with_suffix(".json").read_text())
    told["peak PSS, MiB"] = round(cost.peak)
    for key, value in told.items():
        print(f"{key:16}{value:>12}")
    print(f"{'target':16}{LIMIT:>8} MiB {'missed' if max(told['peak RSS, MiB'], cost.peak) > LIMIT else 'reached'}")
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "bench-index.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
