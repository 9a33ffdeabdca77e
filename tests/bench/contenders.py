"""The two that are compared, each run through its own command line, on the same bucket and with the same settings."""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from tests.bench.measure import Cost, measure
from tests.repository.restic_binary import restic
from tests.repository.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

BACKSTAY = Path(sys.executable).with_name("backstay")
PASSWORD = "bench"
BUCKET = "bench"
OURS, RESTIC = "ours", "restic"
_places = itertools.count(1)


@dataclass
class Bench:
    """The server that holds the repositories, and a directory for caches and restored files."""

    seaweed: Seaweed
    work: Path
    client: Any = field(init=False)

    def __post_init__(self) -> None:
        self.seaweed.make_bucket(BUCKET)
        self.client = boto3.client(
            "s3",
            endpoint_url=self.seaweed.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def objects(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Names and sizes of what lies under a prefix."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/"):
            for found in page.get("Contents", ()):
                yield found["Key"], found["Size"]


class Contender:
    """One of the two with a repository of its own, which is made by our engine for both: opening it costs the same."""

    def __init__(self, bench: Bench, who: str) -> None:
        self.who = who
        self._bench = bench
        self._prefix = f"{who}-{next(_places)}"
        self._cache = bench.work / "cache" / self._prefix

    def _environment(self) -> dict[str, str]:
        return {
            "RESTIC_REPOSITORY": f"s3:{self._bench.seaweed.endpoint}/{BUCKET}/{self._prefix}",
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(self._cache),
            "XDG_CACHE_HOME": str(self._cache),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def _run(self, *arguments: str, cwd: Path | None = None, who: str = "") -> Cost:
        program = [str(BACKSTAY), "repo"] if (who or self.who) == OURS else [str(restic())]
        return measure([*program, "-q", *arguments], self._environment(), cwd)

    def init(self) -> None:
        """Create the repository."""
        self._run("init", who=OURS)

    def backup(self, source: Path) -> Cost:
        """Back a directory up; the parent, if any, is found by the program."""
        return self._run("backup", ".", cwd=source)

    def restore(self) -> Cost:
        """Restore the newest snapshot into a new directory.

        It stays until the end: a file system looks through what was deleted lately whenever it makes a file, which
        would be counted for whoever comes next.
        """
        target = tempfile.mkdtemp(prefix="restored-", dir=self._bench.work)
        return self._run("restore", "latest", "--target", target)

    def check(self) -> Cost:
        """Read and prove everything."""
        return self._run("check", "--read-data")

    def forget_and_prune(self, keep: int) -> Cost:
        """Forget all snapshots but the last ones, and remove what nothing needs any more, at once."""
        at_once = ["--delete-delay", "0s"] if self.who == OURS else []
        return self._run("forget", "--keep-last", str(keep), "--prune", *at_once)

    def stored(self) -> int:
        """Bytes of all objects in the repository."""
        return sum(size for _, size in self._bench.objects(self._prefix))

    @contextmanager
    def copied(self) -> Iterator[Contender]:
        """A contender on a copy of the repository, with the cache as it was, to be changed and thrown away."""
        copy = Contender(self._bench, self.who)
        for name, _ in list(self._bench.objects(self._prefix)):
            target = copy._prefix + name.removeprefix(self._prefix)
            self._bench.client.copy_object(Bucket=BUCKET, Key=target, CopySource={"Bucket": BUCKET, "Key": name})
        if self._cache.exists():
            shutil.copytree(self._cache, copy._cache)
        try:
            yield copy
        finally:
            copy.drop()

    def drop(self) -> None:
        """Remove the repository and the cache."""
        names = [{"Key": name} for name, _ in self._bench.objects(self._prefix)]
        for at in range(0, len(names), 1000):
            self._bench.client.delete_objects(Bucket=BUCKET, Delete={"Objects": names[at : at + 1000], "Quiet": True})
        shutil.rmtree(self._cache, ignore_errors=True)
