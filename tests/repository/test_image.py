"""A device or a raw image comes back bit for bit, and neither its holes nor what did not change cost anything."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.repository import (
    Archive,
    Corrupted,
    Node,
    Progress,
    Repository,
    Snapshot,
    SourceError,
    TargetError,
    UnsafeName,
)
from backstay.repository.archive import image
from backstay.repository.restore.image_restorer import PIECE
from tests.repository.conftest import Restic
from tests.repository.filesystem import MIB, allocated, noise, text
from tests.unit.repository.memory_store import MemoryStore

TIME = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


@pytest.fixture
def small_repository() -> Repository:
    return Repository.init(MemoryStore(), "password")


def make_image(path: Path, size: int = 40 * MIB) -> Path:
    """Data at the front, across two blobs, in the middle of one and at the end; holes and written zeros between."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in (
            (0, noise(MIB + 10, 1)),
            (5 * MIB - 100, noise(200, 2)),
            (8 * MIB, bytes(2 * MIB)),
            (12 * MIB + 65536, text(3 * MIB, 3)),
            (size - 5, b"the e"),
        ):
            file.seek(offset)
            file.write(data)
    return path


def store(repository: Repository, path: Path | str, parent: Node | None = None) -> tuple[Node, Archive]:
    with repository.writer() as writer:
        archive = image.save(writer, str(path), name="disk.img", parent=parent)
        writer.commit(Snapshot(time=TIME, tree=archive.tree, paths=("/disk.img",), hostname="test"))
    (node,) = repository.read_tree(archive.tree)
    return node, archive


def digest(path: Path | str, size: int = -1) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(size)).hexdigest()


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[Loops]:
    with ExitStack() as undo:
        yield Loops(tmp_path, undo)


class Loops:
    """Block devices that are files; a test that asks for one is skipped where there are none."""

    def __init__(self, directory: Path, undo: ExitStack) -> None:
        self._directory = directory
        self._undo = undo
        self._count = 0

    def make(self, size: int) -> str:
        self._count += 1
        backing = self._directory / f"loop-{self._count}"
        backing.touch()
        os.truncate(backing, size)
        for _ in range(5):  # another program may take the free device that was found
            done = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
        else:
            pytest.skip(f"no loop device: {done.stderr.strip()}")
        device = done.stdout.strip()
        self._undo.callback(subprocess.run, ["losetup", "--detach", device], check=False)
        return device

    def backing(self, number: int) -> Path:
        return self._directory / f"loop-{number}"


def write_at(path: Path | str, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


# --- to the repository and back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [40 * MIB, 40 * MIB + 4096 + 17])
def test_restic_finds_no_fault_and_both_restore_the_same_bytes(
    repository: Repository, referee: Restic, tmp_path: Path, size: int
) -> None:
    source = make_image(tmp_path / "disk.img", size)

    node, archive = store(repository, source)
    restoration = image.restore(repository, node, str(tmp_path / "ours"))

    assert (archive.files, archive.bytes, archive.warnings) == (1, size, ())
    assert digest(tmp_path / "ours") == digest(source)
    assert restoration.bytes == size
    assert allocated(tmp_path / "ours") <= allocated(source) + MIB
    referee.check()
    referee("restore", "latest", "--target", str(tmp_path / "theirs"), "--sparse")
    assert digest(tmp_path / "theirs" / "disk.img") == digest(source)
    assert allocated(tmp_path / "theirs" / "disk.img") < size // 2


def test_an_image_that_restic_stored_as_a_file_is_restored(
    repository: Repository, referee: Restic, tmp_path: Path
) -> None:
    source = make_image(tmp_path / "disk.img")
    referee("backup", "disk.img", cwd=tmp_path)
    (snapshot,) = repository.snapshots()
    (node,) = [node for path, node in repository.walk(snapshot.tree) if path.endswith("disk.img")]

    image.restore(repository, node, str(tmp_path / "ours"))

    assert digest(tmp_path / "ours") == digest(source)
    assert allocated(tmp_path / "ours") <= allocated(source)


def test_holes_of_a_terabyte_are_neither_read_nor_stored(small_repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "huge.img"
    with source.open("wb") as file:
        file.truncate(1 << 40)
        file.seek((1 << 39) + 12345)
        file.write(b"a byte or two")

    node, archive = store(small_repository, source)
    image.restore(small_repository, node, str(tmp_path / "ours"))

    assert (archive.bytes, archive.data_blobs) == (1 << 40, 3)  # that with data, that of zeros, and restic's of zeros
    assert node.content is not None
    assert (len(node.content), len(set(node.content))) == (131_072 - 1 + 16, 3)
    assert allocated(tmp_path / "ours") <= PIECE
    with (tmp_path / "ours").open("rb") as file:
        file.seek((1 << 39) + 12345)
        assert file.read(13) == b"a byte or two"


def test_zeros_that_were_written_are_stored_as_holes_are(small_repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "written").write_bytes(bytes(8 * MIB))
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 8 * MIB)

    written, archive = store(small_repository, tmp_path / "written")
    hole, again = store(small_repository, tmp_path / "hole")

    assert written.content == hole.content
    assert (archive.data_blobs, again.data_blobs) == (2, 0)
    zeros = [hashlib.sha256(bytes(size)).hexdigest() for size in (MIB // 2, MIB)]
    assert written.content == (zeros[0], zeros[0], *[zeros[1]] * 7)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1])
def test_small_images_come_back(small_repository: Repository, tmp_path: Path, size: int) -> None:
    for content in (noise(size, 9), bytes(size)):
        (tmp_path / "disk.img").write_bytes(content)
        node, _ = store(small_repository, tmp_path / "disk.img")

        image.restore(small_repository, node, str(tmp_path / "ours"))

        assert (tmp_path / "ours").read_bytes() == content


# --- from one image to the next --------------------------------------------------------------------------------------


def test_a_block_that_changed_is_the_only_one_that_is_stored(small_repository: Repository, tmp_path: Path) -> None:
    source = make_image(tmp_path / "disk.img")
    parent, _ = store(small_repository, source)
    write_at(source, 13 * MIB, b"changed")

    node, archive = store(small_repository, source, parent)

    assert (archive.data_blobs, archive.files_changed) == (1, 1)
    assert node.content is not None
    assert parent.content is not None
    assert sum(now != before for now, before in zip(node.content, parent.content, strict=True)) == 1


def test_blobs_stay_as_large_as_the_parent_s_while_the_device_grows(
    small_repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_image(tmp_path / "disk.img")
    with monkeypatch.context() as earlier:
        earlier.setattr(image, "blob_size", lambda size: 2 * MIB)
        parent, _ = store(small_repository, source)
    os.truncate(source, 50 * MIB)

    node, archive = store(small_repository, source, parent)

    assert len(node.content or ()) == 25 - 1 + 4
    assert archive.data_blobs == 0


def test_a_parent_that_was_cut_by_content_is_no_example(small_repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    source = tmp_path / "directory" / "disk.img"
    source.write_bytes(noise(20 * MIB, 10))
    with small_repository.writer() as writer:
        archive = writer.backup(str(tmp_path / "directory"))
    parent = small_repository.find(archive.tree, "disk.img")

    node, _ = store(small_repository, source, parent)

    assert len(node.content or ()) == 20


@pytest.mark.parametrize(
    ("size", "each"),
    [(1, 1), (64 << 30, 1), ((64 << 30) + 1, 2), (128 << 30, 2), (200 << 30, 4), (256 << 30, 4), (1 << 44, 8)],
)
def test_blobs_grow_with_the_device_up_to_8_mib(size: int, each: int) -> None:
    assert image.blob_size(size) == each * MIB


# --- onto what is there ----------------------------------------------------------------------------------------------


def test_a_restore_onto_the_same_writes_nothing_and_onto_a_change_only_that(
    small_repository: Repository, tmp_path: Path
) -> None:
    node, _ = store(small_repository, make_image(tmp_path / "disk.img"))
    target = tmp_path / "target"
    image.restore(small_repository, node, str(target))

    same = image.restore(small_repository, node, str(target))
    write_at(target, 13 * MIB + 5, b"changed")
    write_at(target, 20 * MIB, b"no longer zeros")
    os.truncate(target, 39 * MIB)
    changed = image.restore(small_repository, node, str(target))

    assert (same.written, same.zeroed) == (0, 0)
    assert (changed.written, changed.zeroed) == (2 * PIECE, MIB)  # the piece with the change, and the lost end
    assert digest(target) == digest(tmp_path / "disk.img")


def test_what_stood_where_zeros_belong_becomes_a_hole(small_repository: Repository, tmp_path: Path) -> None:
    source = make_image(tmp_path / "disk.img")
    node, _ = store(small_repository, source)
    (tmp_path / "target").write_bytes(noise(50 * MIB, 4))

    image.restore(small_repository, node, str(tmp_path / "target"))

    assert digest(tmp_path / "target") == digest(source)
    assert allocated(tmp_path / "target") <= allocated(source)


def test_without_holes_a_file_takes_all_of_its_size(small_repository: Repository, tmp_path: Path) -> None:
    source = make_image(tmp_path / "disk.img")
    node, _ = store(small_repository, source)

    image.restore(small_repository, node, str(tmp_path / "ours"), sparse=False)

    assert digest(tmp_path / "ours") == digest(source)
    assert allocated(tmp_path / "ours") >= 40 * MIB


def test_zeros_are_written_where_the_kernel_makes_no_holes(
    small_repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_image(tmp_path / "disk.img")
    node, _ = store(small_repository, source)
    (tmp_path / "target").write_bytes(noise(40 * MIB, 4))
    monkeypatch.setattr("backstay.repository.restore.image_restorer._fallocate", lambda: lambda *arguments: -1)

    image.restore(small_repository, node, str(tmp_path / "target"))

    assert digest(tmp_path / "target") == digest(source)


SIZE = 6 * 4096 + 100
CONTENTS = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=5000) | st.just(bytes(4096))), max_size=6
)


def write_all(path: Path, size: int, writes: list[tuple[int, bytes]]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in writes:
            file.seek(offset)
            file.write(data[: size - offset])
    return path


@settings(max_examples=25, deadline=None)
@given(st.integers(0, SIZE), CONTENTS, st.integers(0, SIZE + 5000), CONTENTS, st.booleans())
def test_whatever_stands_in_a_target_it_becomes_the_image(
    tmp_path_factory: pytest.TempPathFactory,
    size: int,
    content: list[tuple[int, bytes]],
    target_size: int,
    before: list[tuple[int, bytes]],
    sparse: bool,
) -> None:
    directory = tmp_path_factory.mktemp("property")
    source = write_all(directory / "source", size, [(at, data) for at, data in content if at < size])
    target = write_all(directory / "target", target_size, [(at, data) for at, data in before if at < target_size])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(image, "blob_size", lambda size: 4096)
        patch.setattr(image, "SPARSE_MARK", 1024)
        patch.setattr("backstay.repository.restore.image_restorer.PIECE", 1024)
        patch.setattr("backstay.repository.restore.image_restorer._ZERO_PIECE", bytes(1024))
        patch.setattr("backstay.repository.restore.image_restorer.PART", 8192)
        repository = PROPERTY_REPOSITORY
        node, _ = store(repository, source)

        image.restore(repository, node, str(target), sparse=sparse)
        again = image.restore(repository, node, str(target), sparse=sparse)

    assert target.read_bytes() == source.read_bytes()
    assert (again.written, again.zeroed) == (0, 0)


PROPERTY_REPOSITORY = Repository.init(MemoryStore(), "password")


# --- devices ---------------------------------------------------------------------------------------------------------


def test_a_device_comes_back_on_a_device(small_repository: Repository, tmp_path: Path, loops: Loops) -> None:
    source, target = loops.make(40 * MIB), loops.make(48 * MIB)
    write_at(source, 0, make_image(tmp_path / "disk.img").read_bytes())
    write_at(target, 0, noise(48 * MIB, 5))
    behind = digest_from(target, 40 * MIB)

    node, archive = store(small_repository, source)
    image.restore(small_repository, node, target)
    again = image.restore(small_repository, node, target)

    assert (node.type, node.size, archive.warnings) == ("file", 40 * MIB, ())
    assert digest(target, 40 * MIB) == digest(source) == digest(tmp_path / "disk.img")
    assert digest_from(target, 40 * MIB) == behind
    assert (again.written, again.zeroed) == (0, 0)


def digest_from(device: str, offset: int) -> str:
    with open(device, "rb") as file:
        file.seek(offset)
        return hashlib.sha256(file.read()).hexdigest()


def test_restic_restores_a_device_as_a_file(
    repository: Repository, referee: Restic, tmp_path: Path, loops: Loops
) -> None:
    device = loops.make(20 * MIB)
    write_at(device, 3 * MIB + 5, text(5 * MIB, 6))

    store(repository, device)

    referee.check()
    referee("restore", "latest", "--target", str(tmp_path / "theirs"))
    assert digest(tmp_path / "theirs" / "disk.img") == digest(device)


def test_zeros_are_discarded_on_a_device_that_can(small_repository: Repository, tmp_path: Path, loops: Loops) -> None:
    source = make_image(tmp_path / "disk.img")
    node, _ = store(small_repository, source)
    target = loops.make(40 * MIB)
    write_at(target, 0, noise(40 * MIB, 7))

    restoration = image.restore(small_repository, node, target)

    assert digest(target) == digest(source)
    assert restoration.zeroed > 20 * MIB
    assert allocated(loops.backing(1)) < 20 * MIB


def test_a_device_that_is_too_small_is_refused_and_left_alone(
    small_repository: Repository, tmp_path: Path, loops: Loops
) -> None:
    node, _ = store(small_repository, make_image(tmp_path / "disk.img"))
    target = loops.make(39 * MIB)

    with pytest.raises(TargetError, match=rf"the device has {39 * MIB} bytes, the image {40 * MIB}"):
        image.restore(small_repository, node, target)

    assert digest(target) == hashlib.sha256(bytes(39 * MIB)).hexdigest()


def test_a_mounted_device_is_refused(small_repository: Repository, tmp_path: Path, loops: Loops) -> None:
    node, _ = store(small_repository, make_image(tmp_path / "disk.img", 8 * MIB + 16 * MIB))
    target = loops.make(32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", target], check=True)
    (tmp_path / "mount").mkdir()
    mounted = subprocess.run(["mount", target, tmp_path / "mount"], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting is not possible: {mounted.stderr.strip()}")
    try:
        with pytest.raises(TargetError, match="in use"):
            image.restore(small_repository, node, target)
    finally:
        subprocess.run(["umount", tmp_path / "mount"], check=True)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_an_image_that_shrinks_while_it_is_read_keeps_its_size_and_is_told(
    small_repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "disk.img"
    source.write_bytes(noise(20 * MIB, 8))
    monkeypatch.setattr(image, "_PROGRESS_SECONDS", -1)

    with small_repository.writer() as writer:
        archive = image.save(writer, str(source), name="disk.img", progress=lambda at: os.truncate(source, MIB + 100))

    assert [warning.message.split(";")[0] for warning in archive.warnings] == ["shrank while it was read"]
    assert archive.changed_while_read == 1
    content = b"".join(small_repository.read_file(small_repository.find(archive.tree, "disk.img")))
    assert (len(content), content[-MIB:]) == (20 * MIB, bytes(MIB))


def test_an_image_that_is_written_to_while_it_is_read_is_told(
    small_repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_image(tmp_path / "disk.img")
    os.utime(source, (1, 1))
    monkeypatch.setattr(image, "_PROGRESS_SECONDS", -1)

    with small_repository.writer() as writer:
        archive = image.save(writer, str(source), name="x", progress=lambda at: write_at(source, 5, b"new"))

    assert "changed while it was read" in archive.warnings[0].message


def test_a_failing_device_is_told_with_the_place(
    small_repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_image(tmp_path / "disk.img")
    real = os.pread

    def broken(descriptor: int, length: int, offset: int) -> bytes:
        if offset == 13 * MIB:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", broken)

    with (
        pytest.raises(SourceError, match=rf"disk\.img at byte {13 * MIB}: Input/output error"),
        small_repository.writer() as writer,
    ):
        image.save(writer, str(source), name="disk.img")


def test_what_is_no_image_is_not_read(small_repository: Repository, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    for path in (tmp_path, tmp_path / "fifo", tmp_path / "missing", Path("/dev/null")):
        with small_repository.writer() as writer, pytest.raises(SourceError, match=str(path)):
            image.save(writer, str(path), name="disk.img")
    for name in ("", "..", "a/b"):
        with small_repository.writer() as writer, pytest.raises(UnsafeName):
            image.save(writer, str(tmp_path / "fifo"), name=name)


def test_what_is_no_target_is_not_written(small_repository: Repository, tmp_path: Path) -> None:
    node, _ = store(small_repository, make_image(tmp_path / "disk.img"))
    os.mkfifo(tmp_path / "fifo")

    for path in (tmp_path, tmp_path / "fifo", tmp_path / "missing" / "file", Path("/dev/null")):
        with pytest.raises(TargetError, match=str(path)):
            image.restore(small_repository, node, str(path))


def test_a_node_whose_blobs_do_not_add_up_is_refused_before_the_target_is_touched(
    small_repository: Repository, tmp_path: Path
) -> None:
    node, _ = store(small_repository, make_image(tmp_path / "disk.img"))
    assert node.content is not None
    wrong = [
        Node(name="disk.img", type="file", size=node.size, content=node.content[:-1]),
        Node(name="disk.img", type="file", size=node.size, content=(*node.content[:-1], "ab" * 32)),
        Node(name="disk.img", type="file", size=node.size, content=("no id",)),
    ]

    for each in wrong:
        with pytest.raises(Corrupted):
            image.restore(small_repository, each, str(tmp_path / "target"))

    assert not (tmp_path / "target").exists()


def test_progress_is_told_of_both_ways(small_repository: Repository, tmp_path: Path) -> None:
    source = make_image(tmp_path / "disk.img")
    told: list[Progress] = []

    with small_repository.writer() as writer:
        archive = image.save(writer, str(source), name="disk.img", progress=told.append)
    node = small_repository.find(archive.tree, "disk.img")
    image.restore(small_repository, node, str(tmp_path / "ours"), progress=told.append)

    end = Progress(1, 40 * MIB, 1, 40 * MIB)
    assert told[-1] == end
    assert told.count(end) == 2
