"""What is backed up: the same bytes on each run, so that two runs measure the same work."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.repository.filesystem import MIB, noise, text

PART = 4 * MIB  # bytes that are made at once
SETTLE_SECONDS = 2.5  # until a backup trusts that what was just written cannot change unseen


@dataclass(frozen=True)
class Files:
    """Many small files, a hundred in a directory, every second one of text. `smallest` and `largest` in bytes."""

    count: int
    smallest: int
    largest: int

    def paths(self, root: Path) -> Iterator[tuple[int, Path]]:
        """All files with their numbers."""
        for number in range(self.count):
            yield number, root / f"{number // 100:04d}" / f"{number:06d}"

    def make(self, root: Path) -> None:
        """Write them all."""
        for number, path in self.paths(root):
            if not number % 100:
                path.parent.mkdir(parents=True)
            path.write_bytes(self._content(number, 0))

    def change(self, root: Path, share: float, generation: int) -> None:
        """Give a share of the files, spread over all directories, a content that they never had."""
        chosen = set(random.Random(generation).sample(range(self.count), max(1, int(self.count * share))))
        for number, path in self.paths(root):
            if number in chosen:
                path.write_bytes(self._content(number, generation))

    def _content(self, number: int, generation: int) -> bytes:
        seed = generation * self.count + number
        size = random.Random(seed).randrange(self.smallest, self.largest)
        return text(size, seed) if number % 2 else noise(size, seed)


@dataclass(frozen=True)
class Large:
    """Large files, half of them noise and half text. `size`: MiB in all."""

    size: int
    files: int = 4

    def make(self, root: Path) -> None:
        """Write them."""
        root.mkdir(parents=True)
        rest = self.size * MIB // self.files
        for number in range(self.files):
            with (root / f"file-{number:02d}").open("wb") as file:
                for part, start in enumerate(range(0, rest, PART)):
                    make = noise if number % 2 else text
                    file.write(make(min(PART, rest - start), number * 100_000 + part))

    def insert(self, root: Path, size: int) -> None:
        """Put `size` bytes before the first byte of each file, as a log that is rotated or a dump with a new head."""
        for number, path in enumerate(sorted(root.iterdir())):
            path.write_bytes(noise(size, 7_000_000 + number) + path.read_bytes())


def warm(root: Path) -> None:
    """Read all that lies below `root`, so that nobody pays for the disk."""
    for directory, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(directory, name), "rb", buffering=0) as file:
                while file.read(PART):
                    pass


def settle() -> None:
    """Let what was written become old enough for an unchanged file to be told from one that is still written to."""
    time.sleep(SETTLE_SECONDS)
    os.sync()
