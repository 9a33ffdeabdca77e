"""After the repairs nothing is wrong any more, and nothing is lost that was there to be saved."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backstay.repository import Corrupted, RepositoryLocked, Snapshot, SnapshotNotFound, Unreachable, lock
from backstay.repository.check.checker import check
from backstay.repository.check.subset import Subset
from backstay.repository.format import tree
from backstay.repository.format.blob import BlobType
from backstay.repository.format.snapshot import Summary
from backstay.repository.repair import repair_index, repair_packs, repair_snapshots
from tests.repository.damaged import TIME, LocalRestic, Sample, copy_of, directory, file, make_sample, noise

ALL = Subset()
DATA, TREE = BlobType.DATA, BlobType.TREE


@pytest.fixture(scope="module", autouse=True)
def impatience() -> Iterator[None]:
    """Locks do not wait for other machines here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "SETTLE_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def pristine() -> Sample:
    return make_sample()


@pytest.fixture
def sample(pristine: Sample) -> Sample:
    return copy_of(pristine)


@pytest.fixture
def stock(restic_binary: Path, tmp_path: Path) -> LocalRestic:
    return LocalRestic(restic_binary, tmp_path / "restic")


@pytest.fixture
def whole(sample: Sample, stock: LocalRestic) -> Callable[[], None]:
    """Both referees' verdict."""

    def verdict() -> None:
        report = check(sample.fresh(), read_data=ALL)
        assert report.ok, report.findings
        assert stock.accepts(sample.store)
        assert not sample.names("locks/")

    return verdict


def paths(sample: Sample) -> dict[str, bytes]:
    """The files of the snapshots that were repaired, by path."""
    repository = sample.fresh()
    return {
        path: b"".join(repository.read_file(node))
        for snapshot in repository.snapshots()
        if snapshot.original
        for path, node in repository.walk(snapshot.tree)
        if node.type == "file"
    }


# --- the index -------------------------------------------------------------------------------------------------------


def test_a_true_index_is_left_alone(sample: Sample) -> None:
    before = dict(sample.store.objects)

    for read_all_packs in (False, True):
        done = repair_index(sample.repository, read_all_packs=read_all_packs)

        assert (done.added, done.corrected, done.dropped, done.indexes_written, done.indexes_removed) == (
            (),
            (),
            (),
            0,
            0,
        )
    assert sample.store.objects == before


@pytest.mark.parametrize("how", ["gone", "flipped", "truncated", "empty"])
def test_a_lost_index_is_made_anew(sample: Sample, whole: Callable[[], None], how: str) -> None:
    contents = sample.contents()
    (name,) = sample.names("index/")
    if how == "gone":
        del sample.store.objects[name]
    elif how == "flipped":
        sample.flip(name, 50)
    else:
        sample.store.objects[name] = sample.store.objects[name][: 0 if how == "empty" else 40]

    done = repair_index(sample.fresh())

    assert len(done.added) == 2
    assert done.indexes_broken == done.indexes_removed == (how != "gone")
    whole()
    assert sample.contents() == contents


def test_packs_that_are_gone_leave_the_index(sample: Sample) -> None:
    name = sample.data_pack
    del sample.store.objects[name]

    done = repair_index(sample.repository)

    assert done.dropped == (name[-64:],)
    assert [pack_id.hex() for pack_id, _ in sample.read_index()] == [sample.tree_pack[-64:]]


def test_the_opened_repository_knows_the_new_index(sample: Sample) -> None:
    sample.repository.ready()
    del sample.store.objects[sample.data_pack]

    repair_index(sample.repository)

    sample.repository.ready()
    assert not sample.repository.index.has(DATA, sample.blobs[0])


def test_what_an_index_says_wrongly_is_corrected(sample: Sample, whole: Callable[[], None]) -> None:
    packs = dict(sample.read_index())
    data = bytes.fromhex(sample.data_pack[-64:])
    del sample.store.objects[sample.names("index/")[0]]
    first, second, *rest = packs[data]
    swapped = [first._replace(id=second.id), second._replace(id=first.id), *rest]
    sample.put_index([(pack_id, swapped if pack_id == data else entries) for pack_id, entries in packs.items()])

    assert repair_index(sample.repository).corrected == ()  # sizes agree: only the headers tell
    done = repair_index(sample.repository, read_all_packs=True)

    assert (done.corrected, done.dropped) == ((data.hex(),), ())
    whole()


def test_packs_that_two_indexes_tell_of_are_told_of_once(sample: Sample, whole: Callable[[], None]) -> None:
    packs = dict(sample.read_index())
    data = bytes.fromhex(sample.data_pack[-64:])
    sample.put_index([(data, packs[data])])
    sample.put_index([(data, [packs[data][0]._replace(offset=5)])])

    done = repair_index(sample.repository)

    assert done.corrected == (data.hex(),)
    assert sorted(pack_id for pack_id, _ in sample.read_index()) == sorted(packs)
    assert check(sample.repository).notices == ()
    whole()


def test_a_pack_with_a_broken_header_stays_indexed_as_it_was(sample: Sample) -> None:
    contents = sample.contents()
    name = sample.data_pack
    sample.flip(name, -30)

    done = repair_index(sample.repository, read_all_packs=True)

    assert (done.unreadable, done.dropped) == ((name[-64:],), ())
    assert sample.contents() == contents


def test_a_repair_waits_for_others(sample: Sample) -> None:
    with sample.repository.lock():
        for repair in (
            lambda: repair_index(sample.repository),
            lambda: repair_packs(sample.repository, ["00" * 32]),
            lambda: repair_snapshots(sample.repository),
        ):
            with pytest.raises(RepositoryLocked):
                repair()


def test_an_index_repair_that_stops_anywhere_loses_nothing(pristine: Sample) -> None:
    def damaged() -> Sample:
        sample = copy_of(pristine)
        packs = sample.read_index()
        del sample.store.objects[sample.names("index/")[0]]
        for number, there in enumerate(packs):  # each beside a pack that is not there
            missing = [entry._replace(id=noise(32, number)) for entry in there[1][:1]]
            sample.put_index([there, (noise(32, 10 + number), missing)])
        return sample

    sample = damaged()
    contents = sample.contents()
    steps = 0
    for steps in range(1, 30):
        sample = damaged()
        sample.store.fail_at = steps
        try:
            repair_index(sample.repository)
        except Unreachable:
            sample.store.fail_at = None
            for name in sample.names("locks/"):
                del sample.store.objects[name]
            assert sample.contents() == contents
            repair_index(sample.fresh())
            assert check(sample.fresh(), read_data=ALL).ok
        else:
            break
    assert steps >= 4  # a new index, then two old ones go


# --- snapshots -------------------------------------------------------------------------------------------------------


def lose(sample: Sample, *blobs: bytes) -> None:
    """Break data blobs, and repair what comes before the snapshots."""
    for blob_id in blobs:
        sample.flip_blob(DATA, blob_id)
    report = check(sample.repository, read_data=ALL)
    assert repair_packs(sample.repository, report.broken_packs)


def test_whole_snapshots_are_left_alone(sample: Sample) -> None:
    before = dict(sample.store.objects)

    assert repair_snapshots(sample.repository) == ()
    assert repair_snapshots(sample.repository, forget=True) == ()
    assert sample.store.objects == before


def test_a_file_keeps_what_is_left_of_it(sample: Sample, whole: Callable[[], None]) -> None:
    lose(sample, sample.blobs[1])

    (done,) = repair_snapshots(sample.repository, forget=True)

    assert (done.snapshot_id, done.action, done.forgotten) == (sample.first, "rewritten", True)
    assert [change.path for change in done.changes] == ["/sub/inner"]
    assert paths(sample) == {"one": noise(60, 0), "sub/inner": noise(60, 0), "two": noise(60, 2)}
    new = sample.fresh().snapshot(done.new_id)
    assert (new.original, new.tags, new.paths, new.hostname, new.time) == (sample.first, ("a",), ("/x",), "host", TIME)
    whole()


def test_the_broken_snapshot_stays_unless_it_is_to_be_forgotten(sample: Sample) -> None:
    lose(sample, sample.blobs[1])

    (done,) = repair_snapshots(sample.repository)

    ids = {name.removeprefix("snapshots/") for name in sample.names("snapshots/")}
    assert ids == {sample.first, sample.second, done.new_id}
    assert sample.fresh().snapshot(done.new_id).tags == ("a", "repaired")


def test_a_dry_run_tells_the_same_and_changes_nothing(sample: Sample) -> None:
    lose(sample, sample.blobs[1], sample.blobs[2])
    before = dict(sample.store.objects)

    dry = repair_snapshots(sample.repository, forget=True, dry_run=True)

    assert sample.store.objects == before
    done = repair_snapshots(sample.repository, forget=True)
    assert [(d.snapshot_id, d.action, d.changes) for d in dry] == [(d.snapshot_id, d.action, d.changes) for d in done]
    assert all(d.new_id == "" for d in dry)


def test_what_snapshots_share_is_told_of_each(sample: Sample) -> None:
    lose(sample, sample.blobs[1], sample.blobs[2])

    done = repair_snapshots(sample.repository)

    told = {each.snapshot_id: [change.path for change in each.changes] for each in done}
    assert told == {sample.first: ["/sub/inner", "/two"], sample.second: ["/two"]}
    assert {each.snapshot_id: each.change_count for each in done} == {sample.first: 2, sample.second: 1}


def test_a_second_repair_writes_no_second_snapshot(sample: Sample) -> None:
    lose(sample, sample.blobs[1])
    (first,) = repair_snapshots(sample.repository)
    before = sample.names("snapshots/")

    (second,) = repair_snapshots(sample.repository)
    assert (second.new_id, sample.names("snapshots/")) == (first.new_id, before)

    (third,) = repair_snapshots(sample.repository, forget=True)
    assert (third.new_id, third.forgotten) == (first.new_id, True)
    assert sample.names("snapshots/") == [name for name in before if sample.first not in name]


def test_the_new_snapshot_tells_what_it_holds(sample: Sample) -> None:
    figures = Summary(TIME, TIME, files_new=3, total_files_processed=3, total_bytes_processed=240)
    old = sample.repository.snapshot(sample.first)
    with sample.repository.writer() as writer:
        counted = writer.commit(dataclasses.replace(old, id="", summary=figures))
    lose(sample, sample.blobs[1])

    done = {each.snapshot_id: each for each in repair_snapshots(sample.repository)}

    summary = sample.fresh().snapshot(done[counted].new_id).summary
    assert summary is not None
    assert (summary.total_files_processed, summary.total_bytes_processed, summary.files_new) == (3, 180, 3)


def test_a_check_sends_to_the_repair_that_helps(sample: Sample) -> None:
    lost = make_sample()
    lose(lost, lost.blobs[1])
    del sample.store.objects[sample.names("index/")[0]]

    assert any("repair snapshots" in finding.message for finding in check(lost.repository).findings)
    assert any("'repair index' finds" in finding.message for finding in check(sample.repository).findings)


def test_only_the_snapshots_that_are_named_are_repaired(sample: Sample) -> None:
    lose(sample, sample.blobs[2])

    (done,) = repair_snapshots(sample.repository, (sample.second,))

    assert done.snapshot_id == sample.second
    with pytest.raises(SnapshotNotFound):
        repair_snapshots(sample.repository, ("ab" * 32,))


def test_our_repaired_trees_are_those_of_restic(sample: Sample, stock: LocalRestic) -> None:
    lose(sample, sample.blobs[1], sample.blobs[2])
    stock.load(sample.store)
    assert stock.run("repair", "snapshots", "--forget").returncode == 0

    repair_snapshots(sample.repository, forget=True)

    ours = {(s.tree, s.original, s.tags) for s in sample.fresh().snapshots()}
    assert ours == {(s["tree"], s["original"], tuple(s.get("tags", ()))) for s in stock.snapshots()}


def test_a_lost_pack_of_data_is_done_without(sample: Sample, whole: Callable[[], None]) -> None:
    del sample.store.objects[sample.data_pack]

    with pytest.raises(Corrupted, match="repair index"):
        repair_snapshots(sample.repository, forget=True)
    repair_index(sample.repository)
    done = repair_snapshots(sample.repository, forget=True)

    assert {d.action for d in done} == {"rewritten"}
    assert set(paths(sample).values()) == {b""}
    whole()


def test_a_directory_whose_tree_is_lost_becomes_empty(sample: Sample, whole: Callable[[], None]) -> None:
    sample.flip_blob(TREE, sample.sub)
    report = check(sample.repository)
    repair_packs(sample.repository, report.broken_packs)

    (done,) = repair_snapshots(sample.repository, forget=True)

    assert [change.path for change in done.changes] == ["/sub"]
    assert paths(sample) == {"one": noise(60, 0), "two": noise(60, 2)}
    whole()


def test_an_empty_directory_whose_tree_is_lost_gets_one_again(sample: Sample) -> None:
    with sample.repository.writer() as writer:
        empty = writer.save_blob(TREE, tree.encode([]))
        root = writer.save_blob(TREE, tree.encode([directory("empty", empty)]))
        snapshot = writer.commit(Snapshot(time=TIME, tree=root.hex(), paths=("/z",)))
    sample.flip_blob(TREE, empty)
    sample.repository.forget_index()

    repair_snapshots(sample.repository)

    assert snapshot not in check(sample.fresh(), read_data=ALL).hurt_snapshots


def test_of_a_snapshot_without_a_root_nothing_is_left(sample: Sample, whole: Callable[[], None]) -> None:
    del sample.store.objects[sample.tree_pack]
    repair_index(sample.repository)

    assert {done.action for done in repair_snapshots(sample.repository)} == {"lost"}
    assert len(sample.names("snapshots/")) == 2
    done = repair_snapshots(sample.repository, forget=True)

    assert {(d.action, d.forgotten) for d in done} == {("removed", True)}
    assert sample.names("snapshots/") == []
    whole()


def test_a_snapshot_file_that_cannot_be_read_goes_only_by_its_name(sample: Sample, whole: Callable[[], None]) -> None:
    sample.flip(f"snapshots/{sample.first}", 40)

    (done,) = repair_snapshots(sample.repository, forget=True)
    assert (done.snapshot_id, done.action) == (sample.first, "lost")
    (done,) = repair_snapshots(sample.repository, (sample.first,), forget=True)

    assert (done.action, done.forgotten) == ("removed", True)
    whole()


def test_nodes_that_nobody_could_restore_are_left_out(sample: Sample, whole: Callable[[], None]) -> None:
    good = file("good", sample.blobs[0], size=60)
    bad = [file("../up", size=0), file("good", size=0), directory("d", b"")]
    with sample.repository.writer() as writer:
        root = writer.save_blob(TREE, tree.join([tree.encode_node(node) for node in (good, *bad)]))
        writer.commit(Snapshot(time=TIME, tree=root.hex(), paths=("/z",)))

    (done,) = repair_snapshots(sample.repository, forget=True)

    assert done.change_count == 3
    assert paths(sample) == {"good": noise(60, 0)}
    whole()


def test_packs_that_no_index_names_may_hold_what_seems_lost(sample: Sample) -> None:
    data = sample.data_pack[-64:]
    packs = sample.read_index()
    del sample.store.objects[sample.names("index/")[0]]
    sample.put_index([pack for pack in packs if pack[0].hex() != data])

    with pytest.raises(Corrupted, match="repair index"):
        repair_snapshots(sample.fresh(), forget=True)


def test_a_deep_tree_is_repaired(sample: Sample) -> None:
    with sample.repository.writer() as writer:
        below = writer.save_blob(TREE, tree.encode([file("leaf", sample.blobs[1], size=60)]))
        for _ in range(1200):
            below = writer.save_blob(TREE, tree.encode([directory("d", below)]))
        writer.commit(Snapshot(time=TIME, tree=below.hex(), paths=("/x",)))
    lose(sample, sample.blobs[1])

    repair_snapshots(sample.repository, forget=True)

    assert check(sample.fresh(), read_data=ALL).ok


# --- packs -----------------------------------------------------------------------------------------------------------


def test_the_neighbours_of_a_broken_blob_are_saved(sample: Sample, whole: Callable[[], None]) -> None:
    name = sample.data_pack
    sample.flip_blob(DATA, sample.blobs[1])

    (done,) = repair_packs(sample.repository, [name[-64:]])

    assert (done.saved, done.lost, done.removed) == (2, 1, True)
    assert name not in sample.store.objects
    repair_snapshots(sample.repository, forget=True)
    whole()


@pytest.mark.parametrize("indexed", [True, False])
def test_all_blobs_of_a_pack_with_a_broken_header_are_saved_by_the_index(
    sample: Sample, whole: Callable[[], None], indexed: bool
) -> None:
    contents = sample.contents()
    name = sample.data_pack
    if indexed:
        sample.flip(name, -30)
    else:
        sample.flip(name, sample.place(DATA, sample.blobs[1])[0] + 20)
        (index_name,) = sample.names("index/")
        packs = sample.read_index()
        del sample.store.objects[index_name]
        sample.put_index([pack for pack in packs if pack[0].hex() != name[-64:]])
        sample.repository.forget_index()

    (done,) = repair_packs(sample.repository, [name[-64:]])

    assert (done.saved, done.lost) == ((3, 0) if indexed else (2, 1))
    if indexed:
        whole()
        assert sample.contents() == contents


def test_what_is_left_of_a_truncated_pack_is_saved(sample: Sample, whole: Callable[[], None]) -> None:
    name = sample.data_pack
    offset, _ = sample.place(DATA, sample.blobs[1])
    sample.store.objects[name] = sample.store.objects[name][: offset + 10]

    (done,) = repair_packs(sample.repository, [name[-64:]])

    assert (done.saved, done.lost) == (1, 2)
    repair_snapshots(sample.repository, forget=True)
    assert paths(sample)["one"] == noise(60, 0)
    whole()


def test_a_pack_that_is_gone_is_lost_as_a_whole(sample: Sample) -> None:
    name = sample.data_pack
    del sample.store.objects[name]

    (done,) = repair_packs(sample.repository, [name[-64:]])

    assert (done.saved, done.lost) == (0, 3)
    assert [pack_id.hex() for pack_id, _ in sample.read_index()] == [sample.tree_pack[-64:]]


def test_a_whole_pack_is_left_alone(sample: Sample) -> None:
    before = dict(sample.store.objects)

    (done,) = repair_packs(sample.repository, [sample.data_pack[-64:]])

    assert not done.removed
    assert sample.store.objects == before


def test_a_pack_repair_that_stops_anywhere_loses_no_more(pristine: Sample) -> None:
    name = pristine.data_pack
    steps = 0
    for steps in range(1, 30):
        sample = copy_of(pristine)
        sample.flip_blob(DATA, sample.blobs[1])
        sample.store.fail_at = steps
        try:
            repair_packs(sample.repository, [name[-64:]])
        except Unreachable:
            sample.store.fail_at = None
            for lock_name in sample.names("locks/"):
                del sample.store.objects[lock_name]
            assert check(sample.fresh(), read_data=ALL).hurt_count == 1
        else:
            break
    assert steps > 4


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_after_all_repairs_nothing_is_wrong(pristine: Sample, stock: LocalRestic, seed: int) -> None:

    source = random.Random(seed)
    sample = copy_of(pristine)
    for _ in range(3):
        name = source.choice([n for n in sample.store.objects if n.partition("/")[0] in ("data", "index", "snapshots")])
        damage = source.choice(["flip", "cut", "drop"])
        if damage == "flip" and sample.store.objects[name]:
            sample.flip(name, source.randrange(len(sample.store.objects[name])))
        elif damage == "cut":
            sample.store.objects[name] = sample.store.objects[name][: source.randrange(200)]
        else:
            del sample.store.objects[name]

    repository = sample.fresh()
    repair_index(repository)
    report = check(repository, read_data=ALL)
    repair_packs(repository, report.broken_packs)
    repair_index(repository)
    unreadable = [done.snapshot_id for done in repair_snapshots(repository, forget=True) if done.action == "lost"]
    repair_snapshots(repository, unreadable, forget=True)

    report = check(sample.fresh(), read_data=ALL)
    assert report.ok, report.findings
    assert stock.accepts(sample.store)
