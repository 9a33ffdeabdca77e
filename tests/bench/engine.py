"""The engine against stock restic: the same data, the same machine, the same S3 server, one after the other.

usage: python -m tests.bench.engine [--rounds N] [--size MIB] [--files N]

Each run is a process of its own, so start-up, key derivation and index loading count. Prints a table of medians with
ratios (ours / restic's) and writes build/bench-engine.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.repository.filesystem import MIB, noise, text
from tests.repository.restic_binary import restic
from tests.repository.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

ROOT = Path(__file__).parents[2]
PASSWORD = "bench"

OURS = f"""
import sys
from datetime import UTC, datetime
from backstay.repository import Repository, S3Credentials, S3Location, S3Store, Snapshot
action, bucket, prefix, endpoint, path = sys.argv[1:]
keys = S3Credentials("{ACCESS_KEY}", "{SECRET_KEY}")
store = S3Store(S3Location(bucket, prefix, endpoint, force_path_style=True), keys)
if action == "init":
    Repository.init(store, "{PASSWORD}")
    sys.exit()
repository = Repository.open(store, "{PASSWORD}")
newest = max(repository.snapshots(), key=lambda s: s.time, default=None)
if action == "backup":
    started = datetime.now(UTC)
    with repository.writer() as writer:
        archive = writer.backup(path, parent=newest)
        writer.commit(Snapshot(time=started, tree=archive.tree, paths=(path,), hostname="bench"))
else:
    repository.restore(newest.tree, path)
"""


@dataclass
class Cost:
    """Of one process: seconds of wall and CPU, MiB of peak memory."""

    wall: float
    cpu: float
    peak: float


def measure(command: list[str], environment: dict[str, str], cwd: Path | None = None) -> Cost:
    """Run a command and take its cost from the kernel."""
    started = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, cwd=cwd)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[-4:])} failed with {process.returncode}")
    return Cost(time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


class Contender:
    """One of the two, on a repository of its own."""

    def __init__(self, endpoint: str, prefix: str, cache: Path, ours: bool) -> None:
        self._endpoint, self._prefix, self._cache, self._ours = endpoint, prefix, cache, ours

    def _run(self, action: str, path: Path) -> Cost:
        if self._ours:
            place = ["bench", self._prefix, self._endpoint]
            return measure(
                [sys.executable, "-c", OURS, action, *place, str(path)], {"PYTHONPATH": str(ROOT / "operator")}
            )
        arguments = {
            "init": ["init"],
            "backup": ["backup", "."],
            "restore": ["restore", "latest", "--target", str(path)],
        }
        environment = {
            "RESTIC_REPOSITORY": f"s3:{self._endpoint}/bench/{self._prefix}", "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(self._cache), "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }  # fmt: skip
        cwd = path if action == "backup" else None
        return measure(["timeout", "600", str(restic()), "-q", *arguments[action]], environment, cwd)

    def init(self) -> Cost:
        return self._run("init", Path())

    def backup(self, source: Path) -> Cost:
        return self._run("backup", source)

    def restore(self, target: Path) -> Cost:
        cost = self._run("restore", target)
        shutil.rmtree(target)
        return cost


def make_large(path: Path, size: int) -> None:
    """`size` MiB in four files, half of it noise and half text."""
    path.mkdir()
    for number in range(4):
        with (path / f"file-{number}").open("wb") as file:
            for part in range(size // 4 // 4):
                seed = number * 1000 + part
                file.write(noise(4 * MIB, seed) if number % 2 else text(4 * MIB, seed))


def make_many(path: Path, count: int) -> None:
    """Files of about 10 KB, a hundred in a directory, half of them text."""
    path.mkdir()
    size = random.Random(7)
    for number in range(count):
        directory = path / f"{number // 100:04d}"
        directory.mkdir(exist_ok=True)
        length = size.randrange(5_000, 15_000)
        (directory / f"{number:06d}").write_bytes(noise(length, number) if number % 2 else text(length, number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=1024, help="MiB of large files")
    parser.add_argument("--files", type=int, default=20_000, help="small files")
    options = parser.parse_args()
    results: dict[str, dict[str, list[Cost]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as name, Seaweed() as seaweed:
        work = Path(name)
        seaweed.make_bucket("bench")
        # In a process of its own: what this one has held counts as the peak of each process that it starts.
        maker = multiprocessing.get_context("spawn").Process(target=prepare, args=(work, options.size, options.files))
        maker.start()
        maker.join()
        time.sleep(2.5)  # the files' times shall precede the first backup's, so that the second may trust them
        for number in range(options.rounds):
            contenders = [True, False] if number % 2 else [False, True]
            for ours in contenders:
                for source in ("large", "many"):
                    contender = Contender(seaweed.endpoint, f"{number}-{ours}-{source}", work / "cache", ours)
                    rows: list[tuple[str, Callable[[], Cost]]] = [
                        ("first backup", lambda c=contender, s=source: c.backup(work / s)),  # type: ignore[misc]
                        ("unchanged backup", lambda c=contender, s=source: c.backup(work / s)),  # type: ignore[misc]
                        ("restore", lambda c=contender: c.restore(work / "target")),  # type: ignore[misc]
                    ]
                    contender.init()
                    for row, run in rows:
                        cost = run()
                        who = "ours" if ours else "restic"
                        results.setdefault(f"{source}: {row}", {}).setdefault(who, []).append(cost)
        report(results, options)


def prepare(work: Path, size: int, files: int) -> None:
    """Make the sources, and read everything once, so that nobody pays for the disk."""
    make_large(work / "large", size)
    make_many(work / "many", files)
    for directory in ("large", "many"):
        for path in (work / directory).rglob("*"):
            if path.is_file():
                path.read_bytes()


def report(results: dict[str, dict[str, list[Cost]]], options: argparse.Namespace) -> None:
    """Print the table and write the JSON."""
    print(f"large: {options.size} MiB in 4 files; many: {options.files} files of about 10 KB; {options.rounds} rounds")
    print(f"{'work':<24} {'wall ours/restic':>22} {'CPU ours/restic':>22} {'peak MiB ours/restic':>22}")
    summary = {}
    for row, costs in results.items():
        cells = []
        for field in ("wall", "cpu", "peak"):
            ours, theirs = (
                statistics.median(getattr(cost, field) for cost in costs[who]) for who in ("ours", "restic")
            )
            cells.append(f"{ours:7.2f}/{theirs:7.2f} {ours / theirs:5.2f}")
            summary.setdefault(row, {})[field] = {"ours": ours, "restic": theirs, "ratio": round(ours / theirs, 3)}
        print(f"{row:<24} {cells[0]:>22} {cells[1]:>22} {cells[2]:>22}")
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    raw = {
        row: {who: [asdict(cost) for cost in costs] for who, costs in found.items()} for row, found in results.items()
    }
    (build / "bench-engine.json").write_text(json.dumps({"summary": summary, "runs": raw}, indent=1) + "\n")


if __name__ == "__main__":
    main()
