"""Prune removes what no snapshot needs, all of it and nothing else, and stock restic finds the repository good."""

from __future__ import annotations

import hashlib
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backstay.repository import Corrupted, Progress, Repository, RepositoryLocked, Snapshot, SnapshotNotFound
from backstay.repository.prune.forget import forget
from backstay.repository.prune.prune import PruneOptions, PruneReport, prune
from backstay.repository.stores.local import LocalStore
from tests.repository.conftest import PASSWORD, LocalRestic, local_restic

NOW = datetime(2026, 11, 24, tzinfo=UTC)
AT_ONCE = PruneOptions(delete_delay=timedelta(0), max_unused="0")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "repository")


@pytest.fixture
def repository(store: LocalStore) -> Repository:
    return Repository.init(store, PASSWORD)


@pytest.fixture
def referee(repository: Repository, tmp_path: Path) -> LocalRestic:
    return local_restic(tmp_path / "repository", tmp_path / "cache")


def noise(seed: object, size: int = 300_000) -> bytes:
    return hashlib.shake_128(repr(seed).encode()).digest(size)


def back_up(repository: Repository, files: dict[str, bytes], path: str = "/data") -> str:
    with repository.writer() as writer:
        tree = writer.save_files(dict(files), NOW)
        return writer.commit(Snapshot(time=NOW, tree=tree, paths=(path,), hostname="h"))


def content(repository: Repository, snapshot_id: str) -> dict[str, bytes]:
    tree = repository.snapshot(snapshot_id).tree
    return {path: b"".join(repository.read_file(node)) for path, node in repository.walk(tree) if node.type == "file"}


def packs(store: LocalStore) -> dict[str, int]:
    return dict(store.list("data/"))


def opened(store: LocalStore) -> Repository:
    return Repository.open(store, PASSWORD)


def test_what_was_forgotten_goes_and_what_is_kept_stays(
    repository: Repository, store: LocalStore, referee: LocalRestic
) -> None:
    shared = {f"shared-{n}": noise(n) for n in range(5)}
    gone = back_up(repository, {**shared, **{f"gone-{n}": noise(("gone", n)) for n in range(5)}})
    kept = back_up(repository, {**shared, "kept": noise("kept")})
    before = sum(packs(store).values())

    assert forget(repository, [gone[:8]]) == (gone,)
    report = prune(repository, AT_ONCE, now=NOW)

    assert referee.json("snapshots")[0]["id"] == kept
    referee.check()
    assert content(repository, kept) == {**shared, "kept": noise("kept")}
    assert before - sum(packs(store).values()) >= 1_490_000
    assert report.repacked_bytes >= 1_500_000
    assert report.removed_packs == 2
    assert report.pending_packs == 0
    assert report.bytes_before - report.bytes_after >= 1_490_000
    assert re.search(r"total prune: +0 blobs", referee("prune", "--dry-run", "--max-unused", "0"))


def test_nothing_is_done_where_nothing_is_unused(repository: Repository, store: LocalStore) -> None:
    back_up(repository, {"a": noise(1)})
    before = list(store.list(""))

    report = prune(repository, AT_ONCE, now=NOW)

    assert list(store.list("")) == before
    assert report == PruneReport(
        snapshots=1, packs_before=2, packs_after=2, blobs_before=2, blobs_after=2, bytes_before=report.used_bytes,
        bytes_after=report.used_bytes, used_bytes=report.used_bytes,
    )  # fmt: skip


def test_a_dry_run_tells_what_would_go_and_changes_nothing(repository: Repository, store: LocalStore) -> None:
    back_up(repository, {"kept": noise(1)})
    gone = back_up(repository, {"gone": noise(2)})
    before = list(store.list(""))

    assert forget(repository, [gone], dry_run=True) == (gone,)
    report = prune(repository, PruneOptions(dry_run=True), now=NOW, without=[gone])

    assert list(store.list("")) == before
    assert (report.pending_packs, report.packs_before, report.packs_after, report.snapshots) == (2, 4, 2, 1)


def test_packs_are_deleted_a_day_after_they_went_out_of_the_indexes(
    repository: Repository, store: LocalStore, referee: LocalRestic
) -> None:
    kept = back_up(repository, {"kept": noise(1)})
    gone = back_up(repository, {"gone": noise(2)})
    reader = opened(store)
    reader.load_index()
    forget(repository, [gone])
    before = packs(store)

    first = prune(repository, PruneOptions(), now=NOW)
    assert packs(store) == before
    assert (first.removed_packs, first.pending_packs) == (0, 2)
    assert first.pending_until is not None
    assert timedelta(hours=24) <= first.pending_until - NOW < timedelta(hours=24, minutes=1)
    referee.check()  # and restic lets them be, as it does the record
    referee("backup", __file__)
    second = prune(repository, PruneOptions(), now=NOW + timedelta(hours=23))
    assert (second.removed_packs, second.pending_packs) == (0, 2)
    third = prune(repository, PruneOptions(), now=NOW + timedelta(hours=25))

    assert (third.removed_packs, third.pending_packs) == (2, 0)
    assert third.removed_bytes > 300_000
    assert not before.keys() <= packs(store).keys()
    assert list(store.list("backstay/")) == []
    referee.check()
    assert content(repository, kept) == {"kept": noise(1)}


def test_a_pack_that_is_indexed_again_is_not_deleted(
    repository: Repository, store: LocalStore, referee: LocalRestic
) -> None:
    back_up(repository, {"kept": noise(1)})
    gone = back_up(repository, {"gone": noise(2)})
    forget(repository, [gone])
    prune(repository, PruneOptions(), now=NOW)
    before = packs(store)

    referee("repair", "index")
    again = back_up(opened(store), {"gone": noise(2)})
    report = prune(repository, PruneOptions(), now=NOW + timedelta(hours=48))

    assert report.removed_packs == 0
    assert packs(store) == before
    assert content(opened(store), again) == {"gone": noise(2)}
    referee.check()


def test_packs_that_a_crashed_writer_left_are_deleted_after_the_delay(
    repository: Repository, store: LocalStore, referee: LocalRestic
) -> None:
    back_up(repository, {"kept": noise(1)})
    orphan = noise("orphan")
    name = hashlib.sha256(orphan).hexdigest()
    store.put(f"data/{name[:2]}/{name}", orphan)

    assert prune(repository, PruneOptions(), now=NOW).pending_packs == 1
    assert prune(repository, PruneOptions(), now=NOW + timedelta(hours=23)).pending_packs == 1
    assert prune(repository, PruneOptions(), now=NOW + timedelta(hours=25)).removed_bytes == len(orphan)

    assert f"data/{name[:2]}/{name}" not in packs(store)
    referee.check()


def test_waste_within_the_tolerance_is_left_alone(repository: Repository, store: LocalStore) -> None:
    for number in range(2):  # packs that are large enough not to be put together
        back_up(repository, {f"{n}": noise((number, n), 900_000) for n in range(9)}, path=f"/{number}")
    first, second = (found.id for found in sorted(repository.snapshots(), key=lambda found: found.paths))
    back_up(repository, {f"{n}": noise((0, n), 900_000) for n in range(8)})
    forget(repository, [first])

    tolerant = prune(repository, PruneOptions(max_unused="unlimited"), now=NOW)
    strict = prune(repository, PruneOptions(max_unused="0"), now=NOW)

    assert tolerant.unused_bytes > 800_000
    assert strict.unused_bytes == 0
    assert strict.repacked_bytes > 7_000_000
    assert content(repository, second)["8"] == noise((1, 8), 900_000)


def test_no_more_is_repacked_than_was_allowed(repository: Repository, store: LocalStore) -> None:
    for number in range(12):
        back_up(repository, {"a": noise(number)})

    report = prune(repository, PruneOptions(max_repack_size=1_000_000), now=NOW)

    assert 0 < report.repacked_bytes <= 1_000_000


def test_small_packs_and_small_indexes_are_put_together(
    repository: Repository, store: LocalStore, referee: LocalRestic
) -> None:
    ids = [back_up(repository, {"a": noise(number)}) for number in range(12)]
    progress: list[Progress] = []

    prune(repository, AT_ONCE, now=NOW, progress=progress.append)

    assert len(packs(store)) == 2
    assert len(list(store.list("index/"))) == 1
    assert [content(repository, found) for found in ids] == [{"a": noise(number)} for number in range(12)]
    assert progress[-1].bytes == progress[-1].total_bytes
    referee.check()


def test_blobs_that_are_stored_twice_are_kept_once(
    repository: Repository, store: LocalStore, referee: LocalRestic
) -> None:
    other = opened(store)
    with repository.writer() as one, other.writer() as two:
        for writer in (one, two):
            tree = writer.save_files({"a": noise(1), "b": noise(2)}, NOW)
            writer.commit(Snapshot(time=NOW, tree=tree, paths=("/",)))
    assert len(packs(store)) == 4

    report = prune(repository, AT_ONCE, now=NOW)

    assert report.removed_packs == 2
    assert len(packs(store)) == 2
    referee.check()


def test_what_a_backup_adds_while_prune_repacks_stays(
    repository: Repository, store: LocalStore, referee: LocalRestic
) -> None:
    """Between the two locks a writer may use again what nothing used when prune looked."""
    mixed = {f"{n}": noise(n) for n in range(6)}
    gone = back_up(repository, mixed)
    kept = back_up(repository, {"0": noise(0)})
    forget(repository, [gone])
    added: list[str] = []

    def write(_: Progress) -> None:
        if not added:
            added.append(back_up(opened(store), {"new": noise("new"), "again": noise(5)}))

    prune(repository, AT_ONCE, now=NOW, progress=write)

    referee.check()
    assert content(opened(store), added[0]) == {"new": noise("new"), "again": noise(5)}
    assert content(opened(store), kept) == {"0": noise(0)}


def test_a_prune_of_restic_meanwhile_makes_ours_look_again(
    repository: Repository, store: LocalStore, referee: LocalRestic
) -> None:
    gone = back_up(repository, {f"{n}": noise(n) for n in range(6)})
    kept = back_up(repository, {"0": noise(0)})
    forget(repository, [gone])
    at = []

    def interfere(name: str) -> None:
        """Between our locks: when the shared one is released."""
        if name.startswith("locks/") and not at:
            at.append(name)
            referee("prune", "--max-unused", "0")

    class Watched(LocalStore):
        def delete(self, name: str) -> None:
            super().delete(name)
            interfere(name)

    watched = Repository.open(Watched(store.location.path), PASSWORD)
    prune(watched, AT_ONCE, now=NOW)

    assert at
    referee.check()
    assert content(opened(store), kept) == {"0": noise(0)}


def test_restic_s_repository_is_pruned(repository: Repository, referee: LocalRestic, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(4):
        (source / "kept").write_bytes(noise("kept", 2_000_000))
        (source / "changing").write_bytes(noise(number, 1_000_000))
        (source / f"link-{number}").symlink_to("kept")
        referee("backup", str(source))
    ids = [found["id"] for found in referee.json("snapshots")]

    forget(repository, ids[:3])
    report = prune(repository, AT_ONCE, now=NOW)

    referee.check()
    assert report.removed_bytes > 2_900_000
    referee("restore", ids[3], "--target", str(tmp_path / "restored"))
    restored = Path(f"{tmp_path}/restored{source}")
    assert (restored / "changing").read_bytes() == noise(3, 1_000_000)
    assert len(os.listdir(restored)) == 6


def test_restic_prunes_where_we_left_off(repository: Repository, store: LocalStore, referee: LocalRestic) -> None:
    kept = back_up(repository, {"kept": noise(1)})
    forget(repository, [back_up(repository, {"gone": noise(2)})])
    prune(repository, PruneOptions(), now=NOW)

    referee("prune")
    report = prune(repository, PruneOptions(), now=NOW + timedelta(hours=48))

    assert (report.removed_packs, report.pending_packs) == (0, 0)
    assert list(store.list("backstay/")) == []
    referee.check()
    assert content(repository, kept) == {"kept": noise(1)}


def test_a_writer_in_the_way_only_delays_what_removes(repository: Repository, store: LocalStore) -> None:
    kept = back_up(repository, {"kept": noise(1)})
    forget(repository, [back_up(repository, {"gone": noise(2)})])
    before = packs(store)

    with opened(store).writer(), pytest.raises(RepositoryLocked):
        prune(repository, AT_ONCE, now=NOW)
    assert packs(store).keys() >= before.keys()
    for _ in range(2):  # it does not write the same indexes each time
        with opened(store).writer(), pytest.raises(RepositoryLocked):
            prune(repository, AT_ONCE, now=NOW)
    assert len(list(store.list("index/"))) <= 3
    prune(repository, AT_ONCE, now=NOW)

    assert content(repository, kept) == {"kept": noise(1)}
    assert len(packs(store)) == 2


@pytest.mark.parametrize("what", ["index", "tree", "data"])
def test_a_damaged_repository_is_not_pruned(repository: Repository, store: LocalStore, what: str) -> None:
    gone = back_up(repository, {"gone": noise(2)})
    forget(repository, [gone])
    old = packs(store).keys()
    old_index = {name for name, _ in store.list("index/")}
    back_up(repository, {"kept": noise(1)})
    new = sorted(packs(store).keys() - old, key=lambda name: packs(store)[name])
    (new_index,) = {name for name, _ in store.list("index/")} - old_index
    store.delete({"index": new_index, "tree": new[0], "data": new[1]}[what])
    before = sorted(store.list(""))

    with pytest.raises(Corrupted, match=r"nothing is removed|missing from the repository"):
        prune(repository, AT_ONCE, now=NOW)

    assert sorted(store.list("")) == before


@pytest.mark.parametrize("kept", [2, 9])
def test_a_damaged_pack_is_not_repacked(repository: Repository, store: LocalStore, kept: int) -> None:
    """Whether little of it is wanted, or so much that it is fetched whole."""
    files = {f"{n}": noise(n) for n in range(10)}
    gone = back_up(repository, files)
    stays = back_up(repository, {name: files[name] for name in list(files)[:kept]})
    forget(repository, [gone])
    largest = max(packs(store), key=lambda name: packs(store)[name])
    content = bytearray(store.get(largest))
    content[100_000] ^= 1
    store.delete(largest)
    store.put(largest, content)
    before = sorted(name for name, _ in store.list(""))

    with pytest.raises(Corrupted, match=r"changed after it was written"):
        prune(repository, AT_ONCE, now=NOW)

    assert sorted(name for name, _ in store.list("")) == before
    assert repository.snapshot_ids() == [stays]


def test_unknown_snapshots_are_not_forgotten_nor_any_beside_them(repository: Repository) -> None:
    known = back_up(repository, {"kept": noise(1)})

    with pytest.raises(SnapshotNotFound):
        forget(repository, [known, "0" * 64])
    with pytest.raises(SnapshotNotFound):
        forget(repository, [known, "nothing"])

    assert repository.snapshot_ids() == [known]


def test_nothing_is_forgotten_while_a_backup_goes_on(repository: Repository, store: LocalStore) -> None:
    known = back_up(repository, {"kept": noise(1)})

    with opened(store).writer(), pytest.raises(RepositoryLocked):
        forget(repository, [known])

    assert repository.snapshot_ids() == [known]
