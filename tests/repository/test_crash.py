"""Whenever a process ends, whatever it was doing: the repository is good, nothing committed is lost, and work goes on.

Backup, forget and prune are stopped before each of their changes to the store in turn: once by a store that fails from
then on, once by killing the process. Our own reader judges every state; stock restic all of them in the exhaustive run,
and some of each kind otherwise.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backstay.repository import Repository, RepositoryLocked, Snapshot, Unreachable, lock
from backstay.repository.lock import unlock
from backstay.repository.prune.forget import forget
from backstay.repository.prune.prune import PruneOptions, prune
from backstay.repository.stores.local import LocalStore
from tests.repository.conftest import PASSWORD, local_restic

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LATER = NOW + timedelta(hours=48)
Contents = dict[str, dict[str, bytes]]


class Mortal(LocalStore):
    """A directory whose changes fail, or kill the process, from the one numbered `last` on."""

    def __init__(self, path: Path, last: int, die: Callable[[], None]) -> None:
        super().__init__(path)
        self.failed = False
        self._changes = 0
        self._last = last
        self._die = die
        self._mutex = threading.Lock()

    def _count(self) -> None:
        with self._mutex:
            self.failed = self._changes >= self._last
            if self.failed:
                self._die()
            self._changes += 1

    def put(self, name: str, data: bytes | bytearray | memoryview, *, sha256: bytes | None = None) -> None:
        self._count()
        super().put(name, data, sha256=sha256)

    def delete(self, name: str) -> None:
        self._count()
        super().delete(name)


def fail() -> None:
    raise Unreachable("the test has cut the connection")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Scene:
    """A repository, and what was committed to it. `going` are the snapshots to be forgotten."""

    repository: Repository
    directory: Path
    contents: Contents
    going: list[str]

    def open(self, store: LocalStore) -> Repository:
        """A copy of the repository, without the work of deriving its key from the password."""
        return Repository(store, self.repository.codec.key, self.repository.config, self.repository.key_id)

    @property
    def staying(self) -> Contents:
        return {found: files for found, files in self.contents.items() if found not in self.going}


@pytest.fixture(autouse=True, scope="module")
def _no_settling() -> Iterator[None]:
    """Nobody else takes locks here, so there is no need to wait for them to be seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "SETTLE_SECONDS", 0.0)
        yield


def noise(seed: object, size: int = 40_000) -> bytes:
    return hashlib.shake_128(repr(seed).encode()).digest(size)


def back_up(repository: Repository, files: dict[str, bytes]) -> str:
    with repository.writer() as writer:
        tree = writer.save_files(dict(files), NOW)
        return writer.commit(Snapshot(time=NOW, tree=tree, paths=("/data",)))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Snapshots that share content, packs of which some are due to be deleted and some are only partly used."""
    directory = tmp_path_factory.mktemp("crash") / "repository"
    repository = Repository.init(LocalStore(directory), PASSWORD)
    shared = {f"dir-{n}/shared": noise(n) for n in range(3)}
    contents = {}
    for number in range(4):
        files = {**shared, f"dir-{number}/own": noise(("own", number)), "both": noise(("both", number // 2))}
        contents[back_up(repository, files)] = files
    unused = back_up(repository, {"unused": noise("unused")})
    forget(repository, [unused])
    assert prune(repository, PruneOptions(), now=NOW).pending_packs == 2
    name = hashlib.sha256(b"orphan").hexdigest()
    repository.store.put(f"data/{name[:2]}/{name}", b"orphan")
    return Scene(repository, directory, contents, [*contents][:2])


ADDED = {"added": noise("added"), "both": noise(("both", 1))}


def do_backup(store: LocalStore, scene: Scene) -> None:
    back_up(scene.open(store), ADDED)


def do_forget(store: LocalStore, scene: Scene) -> None:
    repository = scene.open(store)
    left = set(repository.snapshot_ids())
    forget(repository, [found for found in scene.going if found in left])


def do_prune(store: LocalStore, scene: Scene) -> None:
    prune(scene.open(store), PruneOptions(max_unused="0"), now=LATER)


def do_prune_at_once(store: LocalStore, scene: Scene) -> None:
    prune(scene.open(store), PruneOptions(max_unused="0", delete_delay=timedelta(0)), now=LATER)


def do_all(store: LocalStore, scene: Scene) -> None:
    do_forget(store, scene)
    do_backup(store, scene)
    do_prune(store, scene)


WORK = {"backup": do_backup, "forget": do_forget, "prune": do_prune, "prune at once": do_prune_at_once}
Work = Callable[[LocalStore, Scene], None]


def prepare(scene: Scene, what: str, place: Path) -> Path:
    """A copy of the scene in which there is something to do."""
    shutil.copytree(scene.directory, place)
    if what.startswith("prune"):
        do_forget(LocalStore(place), scene)
    return place


def read_all(repository: Repository) -> Contents:
    """All snapshots with their files, everything proven by its hash."""
    return {
        found.id: {
            path: b"".join(repository.read_file(node))
            for path, node in repository.walk(found.tree)
            if node.type == "file"
        }
        for found in repository.snapshots()
    }


def assert_good(directory: Path, scene: Scene, what: str, judge: Path | None) -> None:
    """Nothing that was committed is lost, and nothing is there that was not committed."""
    found = read_all(scene.open(LocalStore(directory)))
    expected = scene.staying if what != "backup" else scene.contents
    assert found.items() >= expected.items()
    for snapshot_id, files in found.items():
        assert files == scene.contents.get(snapshot_id, ADDED)
    if judge is not None:
        told = local_restic(directory, judge)("check", "--read-data", "--no-lock", "--no-cache")
        assert "no errors were found" in told


def stopped_by_failure(directory: Path, work: Work, scene: Scene, last: int) -> bool:
    store = Mortal(directory, last, fail)
    with suppress(Unreachable, RepositoryLocked):  # a lock of our own that could not be removed is in our way too
        work(store, scene)
    if store.failed:  # the process, and with it its lock, lives on
        unlock(LocalStore(directory), scene.repository.codec, remove_all=True)
    return store.failed


def stopped_by_death(directory: Path, work: Work, scene: Scene, last: int) -> bool:
    child = os.fork()
    if not child:
        try:
            work(Mortal(directory, last, kill), scene)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0


def states(
    scene: Scene, what: str, stop: Callable[[Path, Work, Scene, int], bool], tmp_path: Path
) -> Iterator[tuple[int, Path]]:
    """What each interrupted run leaves behind, and at last what a whole one does."""
    for last in itertools.count():
        place = prepare(scene, what, tmp_path / f"{last}")
        stopped = stop(place, WORK[what], scene, last)
        yield last, place
        shutil.rmtree(place)
        if not stopped:
            return


@pytest.mark.parametrize("what", [*WORK])
def test_a_store_that_fails_leaves_a_good_repository(scene: Scene, what: str, tmp_path: Path) -> None:
    for last, place in states(scene, what, stopped_by_failure, tmp_path):
        judged = tmp_path / "cache" if last % 5 == 4 else None
        assert_good(place, scene, what, judged)
        do_all(LocalStore(place), scene)
        assert_good(place, scene, "prune", judged)
    assert last >= (2 if what == "forget" else 5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("what", [*WORK])
def test_a_process_that_is_killed_leaves_a_good_repository(scene: Scene, what: str, tmp_path: Path) -> None:
    last = -1
    for last, place in states(scene, what, stopped_by_death, tmp_path):  # noqa: B007
        assert_good(place, scene, what, tmp_path / "cache")
        do_all(LocalStore(place), scene)  # with the dead process's lock still there
        assert_good(place, scene, "prune", tmp_path / "cache")
    assert last >= (2 if what == "forget" else 5)
