"""A stream becomes one file, in bounded memory, and an error of its reader stays the reader's."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backstay.repository import Archive, Progress, Repository, Snapshot, Unreachable, UnsafeName
from backstay.repository.archive import stream
from tests.repository.conftest import Restic
from tests.repository.filesystem import MIB, noise, text
from tests.unit.repository.memory_store import MemoryStore

TIME = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


@pytest.fixture
def small_repository() -> Repository:
    return Repository.init(MemoryStore(), "password")


def store(repository: Repository, content: bytes, name: str = "dump.sql") -> Archive:
    with repository.writer() as writer:
        archive = stream.save(writer, io.BytesIO(content).readinto, name=name, time=TIME)
        writer.commit(Snapshot(time=TIME, tree=archive.tree, paths=(f"/{name}",), hostname="test"))
    return archive


def content_of(repository: Repository, archive: Archive, name: str = "dump.sql") -> bytes:
    return b"".join(repository.read_file(repository.find(archive.tree, name)))


def in_small_pieces(content: bytes) -> Callable[[memoryview], int]:
    """A reader as pipes are: it gives less than there is room for."""
    source = io.BytesIO(content)
    sizes = itertools.cycle([1, 70_000, 3, 4096])
    return lambda room: source.readinto(room[: next(sizes)])


def test_restic_finds_no_fault_and_dumps_the_same_bytes(
    repository: Repository, referee: Restic, tmp_path: Path
) -> None:
    content = text(12 * MIB, 1) + noise(7 * MIB + 13, 2) + bytes(9 * MIB)

    archive = store(repository, content)

    assert (archive.files, archive.bytes) == (1, len(content))
    referee.check()
    referee("restore", "latest", "--target", str(tmp_path))
    assert (tmp_path / "dump.sql").read_bytes() == content
    assert (tmp_path / "dump.sql").stat().st_mode & 0o7777 == 0o644
    assert content_of(repository, archive) == content


def test_a_stream_that_comes_in_pieces_is_cut_as_one_that_does_not(small_repository: Repository) -> None:
    content = noise(5 * MIB, 3)
    whole = store(small_repository, content)

    with small_repository.writer() as writer:
        again = stream.save(writer, in_small_pieces(content), name="dump.sql", time=TIME)

    assert again.tree == whole.tree
    assert (again.data_blobs, again.tree_blobs, again.added_bytes) == (0, 0, 0)


def test_a_byte_inserted_in_front_leaves_most_blobs_as_they_were(small_repository: Repository) -> None:
    content = noise(20 * MIB, 4)
    first = store(small_repository, content)

    second = store(small_repository, b"x" + content)

    assert 0 < second.data_blobs <= first.data_blobs // 4


@pytest.mark.parametrize("content", [b"", b"x", noise(MIB // 2, 5), noise(MIB // 2 + 1, 5)])
def test_short_streams_come_back(small_repository: Repository, content: bytes) -> None:
    assert content_of(small_repository, store(small_repository, content)) == content


def test_a_command_s_output_is_a_stream(small_repository: Repository) -> None:
    with (
        subprocess.Popen(["seq", "300000"], stdout=subprocess.PIPE, bufsize=0) as command,
        small_repository.writer() as writer,
    ):
        archive = stream.save(writer, command.stdout.readinto, name="dump.sql", time=TIME)

    assert content_of(small_repository, archive).splitlines()[-1] == b"300000"


def test_the_name_may_be_a_path(small_repository: Repository) -> None:
    archive = store(small_repository, b"content", "/databases/shop/dump.sql")

    paths = [(path, node.type) for path, node in small_repository.walk(archive.tree)]
    assert paths == [("databases", "dir"), ("databases/shop", "dir"), ("databases/shop/dump.sql", "file")]
    assert content_of(small_repository, archive, "databases/shop/dump.sql") == b"content"


@pytest.mark.parametrize("name", ["", "/", "a//b", "../a", "a/.", "a\0", "n" * 256])
def test_a_name_that_no_file_can_have_is_refused_before_anything_is_read(
    small_repository: Repository, name: str
) -> None:
    def readinto(room: memoryview) -> int:
        raise AssertionError("it was read")

    with small_repository.writer() as writer, pytest.raises(UnsafeName):
        stream.save(writer, readinto, name=name, time=TIME)


def test_an_error_of_the_reader_is_told_as_it_is_and_what_was_read_is_kept_for_the_retry(
    small_repository: Repository,
) -> None:
    content = noise(20 * MIB, 6)
    source = io.BytesIO(content)

    def readinto(room: memoryview) -> int:
        if source.tell() == len(content):
            raise BrokenPipeError("the command died")
        return source.readinto(room)

    with pytest.raises(BrokenPipeError, match="the command died"), small_repository.writer() as writer:
        stream.save(writer, readinto, name="dump.sql", time=TIME)

    assert small_repository.snapshot_ids() == []
    assert store(small_repository, content).data_blobs < 20


def test_a_failed_upload_ends_the_reading_long_before_the_stream_ends() -> None:
    objects = MemoryStore()
    repository = Repository.init(objects, "password")
    objects.fail_at = len(objects.history) + 3  # the lock is written, then two packs
    block = noise(8 * MIB, 7)
    read = 0

    def readinto(room: memoryview) -> int:
        nonlocal read
        assert read < 2048 * MIB, "the stream was read on and on"
        size = min(len(room), len(block))
        room[:size] = block[:size]
        room[:8] = read.to_bytes(8, "big")
        read += size
        return size

    with pytest.raises(Unreachable), repository.writer() as writer:
        stream.save(writer, readinto, name="endless", time=TIME)


def test_progress_ends_at_the_stream_s_size(small_repository: Repository) -> None:
    told: list[Progress] = []

    with small_repository.writer() as writer:
        stream.save(writer, io.BytesIO(bytes(MIB)).readinto, name="zeros", time=TIME, progress=told.append)

    assert told[-1] == Progress(1, MIB)


MEASURE = """
import re, sys
from datetime import UTC, datetime
from backstay.repository import Repository
from backstay.repository.archive import stream
from tests.unit.repository.memory_store import MemoryStore

class Sink(MemoryStore):
    def put(self, name, data, *, sha256=None):
        if not name.startswith("data/"):
            super().put(name, data, sha256=sha256)

block = bytes(range(256)) * 32768
left = int(sys.argv[1])

def readinto(room):
    global left
    size = min(len(room), len(block), left)
    room[:size] = block[:size]
    for at in range(0, size - 8, 4096):
        room[at:at + 8] = (left - at).to_bytes(8, "big")
    left -= size
    return size

repository = Repository.init(Sink(), "password")
with repository.writer() as writer:
    archive = stream.save(writer, readinto, name="long", time=datetime(2026, 1, 1, tzinfo=UTC))
assert archive.bytes == int(sys.argv[1])
with open("/proc/self/status") as status:  # unlike ru_maxrss, it begins anew with the program
    print(int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read())[1]) // 1024)
"""


def test_a_long_stream_takes_no_more_memory_than_its_buffers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(700 * MIB)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )

    assert int(done.stdout) < 300  # MiB
