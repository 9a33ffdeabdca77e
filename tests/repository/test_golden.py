"""Repositories that were written once stay readable: by the engine, by the independent reader and by stock restic."""

from __future__ import annotations

import ast
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from backstay.repository import Repository
from backstay.repository.stores.local import LocalStore
from tests.repository.contents import Contents, by_engine, digested, linked, on_disk
from tests.repository.golden.make import HERE, PASSWORD, SECOND_PASSWORD, WRITERS
from tests.repository.independent_reader import Reader, directory


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(writer: str, tmp_path: Path) -> Path:
    """The directory of a golden repository."""
    with tarfile.open(HERE / f"{writer}.tar.gz") as tar:
        tar.extractall(tmp_path / "golden", filter="data")
    return tmp_path / "golden"


@pytest.fixture
def expected(writer: str) -> list[Contents]:
    """What was in the directory at each of the two snapshots."""
    found: list[Contents] = ast.literal_eval((HERE / f"{writer}.expected").read_text())
    return found


def in_order(snapshots: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(snapshots.values(), key=lambda snapshot: str(snapshot["time"]))


def test_the_engine_reads_it(place: Path, expected: list[Contents]) -> None:
    repository = Repository.open(LocalStore(place), PASSWORD)

    snapshots = sorted(repository.snapshots(), key=lambda snapshot: snapshot.time)

    assert [snapshot.tags for snapshot in snapshots] == [("first",), ("second",)]
    assert snapshots[1].parent == snapshots[0].id
    assert {snapshot.hostname for snapshot in snapshots} == {"golden"}
    assert [digested(by_engine(repository, snapshot.tree)) for snapshot in snapshots] == expected
    assert Repository.open(LocalStore(place), SECOND_PASSWORD).id == repository.id


def test_the_independent_reader_reads_it(place: Path, expected: list[Contents]) -> None:
    reader = Reader(*directory(place), PASSWORD)

    snapshots = in_order(reader.snapshots())

    assert [digested(linked(reader.restore(snapshot["tree"]))) for snapshot in snapshots] == expected
    assert Reader(*directory(place), SECOND_PASSWORD).config == reader.config


@pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")
def test_the_engine_restores_it(place: Path, expected: list[Contents], tmp_path: Path) -> None:
    repository = Repository.open(LocalStore(place), PASSWORD)
    newest = max(repository.snapshots(), key=lambda snapshot: snapshot.time)

    restoration = repository.restore(newest.tree, str(tmp_path / "target"))

    assert restoration.warnings == ()
    assert digested(on_disk(tmp_path / "target")) == expected[-1]


def test_stock_restic_finds_no_fault_in_it(place: Path, restic_binary: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "RESTIC_REPOSITORY": str(place), "RESTIC_PASSWORD": PASSWORD}

    done = subprocess.run(
        [str(restic_binary), "--no-cache", "check", "--read-data"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "no errors were found" in done.stdout, done.stderr
