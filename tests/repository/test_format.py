"""A reader that shares no code with the engine finds in our repositories, and in restic's, what the engine finds."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from backstay.repository import Repository, S3Location, S3Store, Snapshot
from tests.repository.conftest import PASSWORD, Restic
from tests.repository.contents import by_engine, linked, on_disk
from tests.repository.filesystem import MIB, make_tree, noise
from tests.repository.golden.make import make_directory
from tests.repository.independent_reader import Reader, bucket
from tests.repository.seaweed import ACCESS_KEY, SECRET_KEY


@pytest.fixture
def client(location: S3Location) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=location.endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


def read(client: Any, location: S3Location) -> Reader:
    return Reader(*bucket(client, location.bucket, location.prefix), PASSWORD)


def prove_packs(reader: Reader) -> None:
    """Every pack's header says what the index says, and no blob is indexed that no header has."""
    said = {}
    for pack in {place[0] for place in reader.blobs.values()}:
        for kind, blob_id, offset, length, plain_length in reader.header(pack):
            said[kind, blob_id] = (pack, offset, length, plain_length)
    assert said == reader.blobs


def test_the_independent_reader_reads_what_we_wrote(
    repository: Repository, client: Any, location: S3Location, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    make_tree(source)
    with repository.writer("test") as writer:
        archive = writer.backup(str(source), name="data")
        snapshot_id = writer.commit(
            Snapshot(time=datetime(2026, 11, 24, tzinfo=UTC), tree=archive.tree, paths=("/data",), hostname="c/n")
        )

    reader = read(client, location)

    snapshot = reader.snapshots()[snapshot_id]
    found = linked(reader.restore(snapshot["tree"]))
    assert snapshot == {
        "time": "2026-11-24T00:00:00Z", "tree": archive.tree, "paths": ["/data"], "hostname": "c/n",
    }  # fmt: skip
    assert found.pop(b"data")["type"] == "dir"
    assert found == linked({b"data/" + path: entry for path, entry in on_disk(source).items()})
    prove_packs(reader)
    assert reader.config["id"] == repository.id


@pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")
def test_the_independent_reader_and_the_engine_agree_on_what_restic_wrote(
    store: S3Store, client: Any, location: S3Location, referee: Restic, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    make_directory(source)
    referee("init")
    referee("backup", ".", "--tag", "a,b", cwd=source)
    referee("key", "add", "--new-password-file", str(written(tmp_path / "password", "another")))

    reader = read(client, location)

    repository = Repository.open(store, PASSWORD)
    ((snapshot_id, snapshot),) = reader.snapshots().items()
    ours = repository.snapshot(snapshot_id)
    assert (ours.tree, list(ours.tags)) == (snapshot["tree"], snapshot["tags"]) == (snapshot["tree"], ["a", "b"])
    found = linked(reader.restore(snapshot["tree"]))
    assert found == by_engine(repository, snapshot["tree"]) == on_disk(source)
    prove_packs(reader)
    assert Reader(*bucket(client, location.bucket, location.prefix), "another").config == reader.config


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_independent_reader_refuses_another_password_and_damage(
    repository: Repository, store: S3Store, client: Any, location: S3Location, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(noise(MIB // 4, 1))
    with repository.writer("test") as writer:
        archive = writer.backup(str(tmp_path))
    pack = next(name for name, size in store.list("data/") if size > MIB // 4)
    body = bytearray(store.get(pack))
    body[1000] ^= 1
    store.put(pack, bytes(body))

    with pytest.raises(ValueError, match="no key opens"):
        Reader(*bucket(client, location.bucket, location.prefix), "wrong")
    with pytest.raises(ValueError, match="authentication code"):
        read(client, location).restore(archive.tree)
