"""A real S3 server, a repository in a place of its own for each test, and stock restic as the referee."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backstay.repository import Repository, S3Credentials, S3Location, S3Store
from tests.repository.restic_binary import restic
from tests.repository.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

PASSWORD = "correct horse battery staple"
BUCKET = "backups"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Seaweed]:
    with Seaweed() as server:
        server.make_bucket(BUCKET)
        yield server


@pytest.fixture
def location(seaweed: Seaweed) -> S3Location:
    """A place that no other test uses."""
    return S3Location(BUCKET, f"test/{next(_numbers)}", seaweed.endpoint, force_path_style=True)


@pytest.fixture
def credentials() -> S3Credentials:
    return S3Credentials(ACCESS_KEY, SECRET_KEY)


@pytest.fixture
def store(location: S3Location, credentials: S3Credentials) -> S3Store:
    return S3Store(location, credentials)


@pytest.fixture
def repository(store: S3Store) -> Repository:
    return Repository.init(store, PASSWORD)


@pytest.fixture(scope="session")
def restic_binary() -> Path:
    return restic()


@dataclass
class Restic:
    """Runs stock restic on a repository, always with a time limit, since it retries permanent errors for long."""

    binary: Path
    location: S3Location
    cache: Path

    def environment(self) -> dict[str, str]:
        """Where the repository is, and what opens it."""
        return {
            **os.environ,
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_REPOSITORY": f"s3:{self.location.endpoint}/{self.location.bucket}/{self.location.prefix}",
            "RESTIC_CACHE_DIR": str(self.cache),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def run(self, *arguments: str, timeout: float = 120, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.binary), *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            check=False,
        )

    def __call__(self, *arguments: str, cwd: Path | None = None) -> str:
        """Standard output; a failure fails the test with what restic said."""
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode == 0, f"restic {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self("--json", *arguments))

    def check(self) -> None:
        """The referee's verdict on the whole repository, down to the last byte."""
        assert "no errors were found" in self("check", "--read-data")


@dataclass
class LocalRestic(Restic):
    """As Restic, for a repository in a directory, which takes less time than a server."""

    directory: Path = Path()

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "RESTIC_REPOSITORY": str(self.directory)}


def local_restic(directory: Path, cache: Path) -> LocalRestic:
    """Stock restic on the repository in a directory."""
    return LocalRestic(restic(), S3Location(""), cache, directory)


@pytest.fixture
def referee(restic_binary: Path, location: S3Location, tmp_path_factory: pytest.TempPathFactory) -> Restic:
    return Restic(restic_binary, location, tmp_path_factory.mktemp("restic-cache"))


@pytest.fixture
def objects(store: S3Store) -> Callable[[str], list[str]]:
    """Names of the stored objects that begin with a prefix."""
    return lambda prefix="": sorted(name for name, _ in store.list(prefix))
