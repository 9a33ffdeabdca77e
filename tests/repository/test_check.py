"""The check finds whatever is wrong with a repository, and says which files of which snapshots it hurts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backstay.repository import AccessDenied, Repository, RepositoryLocked, Snapshot, lock
from backstay.repository.check.checker import MOST, Finding, Report, check
from backstay.repository.check.subset import Subset
from backstay.repository.format import tree
from backstay.repository.format.blob import BlobType
from backstay.repository.format.index import Entry
from tests.repository.damaged import (
    TIME,
    LocalRestic,
    Sample,
    copy_of,
    directory,
    file,
    make_sample,
    noise,
)
from tests.unit.repository.memory_store import MemoryStore

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


def hurts(report: Report) -> set[tuple[str, str]]:
    return {tuple(hurt) for finding in report.findings for hurt in finding.hurts}


def only(report: Report) -> Finding:
    assert report.finding_count == 1, report.findings
    return report.findings[0]


# --- nothing is wrong ------------------------------------------------------------------------------------------------


def test_a_whole_repository_has_no_findings(sample: Sample, stock: LocalRestic) -> None:
    report = check(sample.repository, read_data=ALL)

    assert report.ok
    assert (report.findings, report.notices) == ((), ())
    assert (report.snapshots, report.trees, report.indexes, report.packs, report.packs_read) == (2, 3, 1, 2, 2)
    assert report.bytes_read == sum(len(sample.store.objects[name]) for name in sample.names("data/"))
    assert stock.accepts(sample.store)


def test_what_restic_wrote_is_whole(stock: LocalRestic, sample: Sample, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(30):
        (source / f"file-{number}").write_bytes(noise(5000, number))
    stock.load(sample.store)
    assert stock.run("backup", str(source)).returncode == 0
    objects = {
        str(path.relative_to(stock.place)): path.read_bytes() for path in stock.place.rglob("*") if path.is_file()
    }
    sample.store.objects = objects

    report = check(sample.repository, read_data=ALL)

    assert report.ok, report.findings
    assert report.snapshots == 3


def test_the_check_leaves_nothing_behind(sample: Sample) -> None:
    before = dict(sample.store.objects)

    check(sample.repository, read_data=ALL)

    assert sample.store.objects == before


# --- single bytes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["data_pack", "tree_pack"])
def test_every_byte_of_a_pack_matters(pristine: Sample, which: str) -> None:
    name = getattr(pristine, which)
    missed = []
    for position in range(len(pristine.store.objects[name])):
        sample = copy_of(pristine)
        sample.flip(name, position)
        report = check(sample.repository, read_data=ALL)
        if report.broken_packs != (name[-64:],):
            missed.append(position)

    assert missed == []


@pytest.mark.parametrize(
    ("prefix", "kind"), [("index/", "index"), ("snapshots/", "snapshot"), ("keys/", "key"), ("config", "config")]
)
def test_flipped_bits_in_small_files_are_found_and_the_file_is_named(pristine: Sample, prefix: str, kind: str) -> None:
    name = pristine.names(prefix)[0]
    size = len(pristine.store.objects[name])
    for position in {*range(0, size, 11), size - 1}:
        sample = copy_of(pristine)
        sample.flip(name, position)

        report = check(sample.repository, read_data=ALL)

        assert [(f.kind, f.name) for f in report.findings if f.kind == kind] == [
            (kind, name.removeprefix("snapshots/"))
        ]


def region(sample: Sample, where: str) -> tuple[str, int]:
    """An object and a position in it."""
    data, trees = sample.data_pack, sample.tree_pack
    return {
        "iv": (data, 3),
        "blob": (data, 40),
        "mac": (data, sample.place(DATA, sample.blobs[0])[1] - 1),
        "header": (data, -40),
        "header length": (data, -4),
        "tree": (trees, 40),
        "index": (sample.names("index/")[0], 40),
        "snapshot": (sample.names("snapshots/")[0], 40),
        "config": ("config", 40),
    }[where]


@pytest.mark.parametrize(
    "where", ["iv", "blob", "mac", "header", "header length", "tree", "index", "snapshot", "config"]
)
def test_restic_agrees_on_a_flipped_bit(sample: Sample, stock: LocalRestic, where: str) -> None:
    sample.flip(*region(sample, where))

    assert not check(sample.repository, read_data=ALL).ok
    assert not stock.accepts(sample.store)


# --- whole objects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1, 33, 0.5, -1])
@pytest.mark.parametrize("prefix", ["data/", "index/", "snapshots/", "keys/", "config"])
def test_truncated_objects_are_found_without_reading_the_data(pristine: Sample, prefix: str, left: float) -> None:
    for name in pristine.names(prefix):
        sample = copy_of(pristine)
        content = sample.store.objects[name]
        size = int(len(content) * left) if isinstance(left, float) else left
        sample.store.objects[name] = content[:size]

        report = check(sample.repository)

        assert any(finding.name in name for finding in report.findings), name


def test_an_object_that_grew_is_found(pristine: Sample) -> None:
    for name in pristine.store.objects:
        sample = copy_of(pristine)
        sample.store.objects[name] += b"\0"

        assert any(finding.name in name for finding in check(sample.repository).findings), name


def test_a_missing_pack_hurts_all_that_need_it(sample: Sample, stock: LocalRestic) -> None:
    name = sample.data_pack
    del sample.store.objects[name]

    report = check(sample.repository)

    finding = only(report)
    assert (finding.kind, finding.name) == ("pack", name[-64:])
    assert hurts(report) == {
        (sample.first, "/one"), (sample.first, "/sub/inner"), (sample.first, "/two"), (sample.second, "/two"),
    }  # fmt: skip
    assert (finding.hurt_count, report.hurt_count) == (4, 4)
    assert set(report.hurt_snapshots) == {sample.first, sample.second}
    assert not stock.accepts(sample.store)


def test_a_missing_pack_of_trees_hurts_whole_snapshots(sample: Sample) -> None:
    del sample.store.objects[sample.tree_pack]

    report = check(sample.repository)

    assert only(report).kind == "pack"
    assert hurts(report) == {(sample.first, "/"), (sample.second, "/")}


@pytest.mark.parametrize("broken", [True, False])
def test_what_no_index_names_is_missed(sample: Sample, stock: LocalRestic, broken: bool) -> None:
    (name,) = sample.names("index/")
    if broken:
        sample.flip(name, 60)
    else:
        del sample.store.objects[name]

    report = check(sample.repository)

    assert [f.kind for f in report.findings] == (["index", "missing"] if broken else ["missing"])
    assert "2 blobs" not in report.findings[-1].message
    assert hurts(report) == {(sample.first, "/"), (sample.second, "/")}
    assert not stock.accepts(sample.store)


@pytest.mark.parametrize("prefix", ["data/", "snapshots/", "index/", "keys/"])
def test_objects_whose_contents_were_swapped_are_found(sample: Sample, prefix: str) -> None:
    if prefix == "index/":
        (pack_id, entries), other = sample.read_index()
        del sample.store.objects[sample.names("index/")[0]]
        sample.put_index([(pack_id, entries)])
        sample.put_index([other])
    if prefix == "keys/":
        from backstay.repository import keys

        keys.add(sample.store, "another password", sample.repository.codec.key)
    one, other_name = sample.names(prefix)
    objects = sample.store.objects
    objects[one], objects[other_name] = objects[other_name], objects[one]

    report = check(sample.repository)

    assert {finding.name[-64:] for finding in report.findings if finding.kind != "missing"} == {
        one[-64:], other_name[-64:],
    }  # fmt: skip


def test_a_pack_of_the_right_size_with_other_content_is_found(sample: Sample) -> None:
    name = sample.data_pack
    sample.store.objects[name] = noise(len(sample.store.objects[name]), 99)

    assert check(sample.repository).ok
    report = check(sample.repository, read_data=ALL)

    assert only(report).kind == "pack"
    assert report.hurt_count == 4


def test_the_key_file_by_which_the_repository_was_opened_is_missed(sample: Sample) -> None:
    (name,) = sample.names("keys/")
    del sample.store.objects[name]

    assert only(check(sample.repository)).kind == "key"


# --- who is hurt -----------------------------------------------------------------------------------------------------


def test_one_broken_blob_hurts_the_files_that_hold_it_and_no_others(sample: Sample) -> None:
    sample.flip_blob(DATA, sample.blobs[2])

    report = check(sample.repository, read_data=ALL)

    assert hurts(report) == {(sample.first, "/two"), (sample.second, "/two")}
    assert only(report).hurt_count == report.hurt_count == 2


def test_a_broken_tree_hurts_its_directory(sample: Sample) -> None:
    sample.flip_blob(TREE, sample.sub)

    report = check(sample.repository)

    assert hurts(report) == {(sample.first, "/sub")}
    assert report.hurt_snapshots == (sample.first,)


def test_a_broken_header_hurts_nobody(sample: Sample) -> None:
    sample.flip(sample.data_pack, -30)

    report = check(sample.repository, read_data=ALL)

    assert only(report).kind == "pack"
    assert (report.hurt_count, hurts(report)) == (0, set())


@pytest.mark.parametrize("kind", [DATA, TREE])
def test_a_blob_that_is_broken_in_one_of_two_packs_hurts_nobody(sample: Sample, kind: BlobType) -> None:
    blob_id = sample.blobs[2] if kind is DATA else sample.sub
    store_again(sample, kind, blob_id)
    sample.flip_blob(kind, blob_id)

    report = check(sample.repository, read_data=ALL)

    assert only(report).kind == "pack"
    assert report.hurt_count == 0


def test_a_blob_that_is_broken_in_both_of_its_packs_hurts(sample: Sample) -> None:
    again = store_again(sample, DATA, sample.blobs[2])
    sample.flip_blob(DATA, sample.blobs[2])
    sample.flip(again, 20)

    report = check(sample.repository, read_data=ALL)

    assert report.finding_count == 2
    assert hurts(report) == {(sample.first, "/two"), (sample.second, "/two")}


@pytest.mark.parametrize("kind", [DATA, TREE])
def test_a_missing_pack_whose_blobs_lie_elsewhere_too_hurts_nobody(sample: Sample, kind: BlobType) -> None:
    again = store_again(sample, kind, sample.blobs[2] if kind is DATA else sample.sub)
    del sample.store.objects[again]

    report = check(sample.repository, read_data=ALL)

    assert only(report).name == again[-64:]
    assert report.hurt_count == 0


def store_again(sample: Sample, kind: BlobType, blob_id: bytes) -> str:
    """Store a blob in a second pack, as two writers do at the same time; the pack's name."""
    packs = set(sample.names("data/"))
    offset, length = sample.place(kind, blob_id)
    content = sample.store.objects[sample.pack_of(kind, blob_id)][offset : offset + length]
    location = sample.repository.index.lookup(kind, blob_id)
    assert location is not None
    plain = sample.repository.codec.open_blob(content, location.plain_length, blob_id, "the blob")
    opened = sample.repository
    blind = Repository(sample.store, opened.codec.key, opened.config, opened.key_id)
    blind.load_index = lambda: None  # type: ignore[method-assign]
    with blind.writer() as writer:
        writer.save_blob(kind, plain)
    (again,) = set(sample.names("data/")) - packs
    return again


def test_counts_are_exact_where_names_are_not_all_told(sample: Sample) -> None:
    with sample.repository.writer() as writer:
        files = [file(f"file-{number:04}", sample.blobs[1], size=60) for number in range(1500)]
        below = writer.save_blob(TREE, tree.encode(files))
        root = writer.save_blob(TREE, tree.encode([directory(name, below) for name in "abc"]))
        writer.commit(Snapshot(time=TIME, tree=root.hex(), paths=("/x",)))
    sample.flip_blob(DATA, sample.blobs[1])

    report = check(sample.repository, read_data=ALL)

    finding = only(report)
    assert finding.hurt_count == report.hurt_count == 3 * 1500 + 1
    assert len(finding.hurts) == len(set(finding.hurts)) == MOST


def test_a_deep_tree_is_looked_into(sample: Sample) -> None:
    with sample.repository.writer() as writer:
        below = writer.save_blob(TREE, tree.encode([file("leaf", sample.blobs[1], size=60)]))
        for _ in range(1500):
            below = writer.save_blob(TREE, tree.encode([directory("d", below)]))
        deep = writer.commit(Snapshot(time=TIME, tree=below.hex(), paths=("/x",)))
    sample.flip_blob(DATA, sample.blobs[1])

    assert (deep, "/d" * 1500 + "/leaf") in hurts(check(sample.repository, read_data=ALL))


# --- trees that nobody could restore ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b'{"nodes":[{"name":"../up","type":"file","content":[]}]}', "could lead elsewhere"),
        (b'{"nodes":[{"name":"","type":"file","content":[]}]}', "could lead elsewhere"),
        (b'{"nodes":[{"name":"d","type":"dir"}]}', "without a tree"),
        (b'{"nodes":[{"name":"d","type":"dir","subtree":"' + b"0" * 64 + b'"}]}', "without a tree"),
        (b'{"nodes":[{"name":"f","type":"file"}]}', "without a list of blobs"),
        (b'{"nodes":[{"name":"f","type":"file","content":["xyz"]}]}', "no blob"),
        (b'{"nodes":[{"name":"f","type":"irregular"}]}', "unknown type"),
        (b'{"nodes":[{"name":"\\\\q","type":"fifo"}]}', "cannot be read"),
        (b'{"nodes":[{"name":"f","type":"fifo","mtime":"2026-02-30T00:00:00Z"}]}', "cannot be read"),
        (b'{"nodes":[{"name":"f","type":"fifo"},{"name":"f","type":"fifo"}]}', "twice"),
        (b"[]", "no tree document"),
    ],
)
def test_trees_that_could_not_be_restored_are_found(sample: Sample, document: bytes, why: str) -> None:
    for key in (b"atime", b"ctime", b"mtime"):
        if b'"' + key not in document:
            document = document.replace(b'"type"', b'"' + key + b'":"2026-01-01T00:00:00Z","type"')
    with sample.repository.writer() as writer:
        bad = writer.save_blob(TREE, document)
        root = writer.save_blob(TREE, tree.encode([directory("bad", bad)]))
        snapshot = writer.commit(Snapshot(time=TIME, tree=root.hex(), paths=("/x",)))

    report = check(sample.repository)

    finding = only(report)
    assert (finding.kind, finding.name) == ("tree", bad.hex())
    assert why in finding.message
    assert hurts(report) == {(snapshot, "/bad")}


# --- what is no damage -----------------------------------------------------------------------------------------------


def test_a_pack_in_no_index_is_worth_a_notice(sample: Sample, stock: LocalRestic) -> None:
    pack_id = noise(32, 5).hex()
    sample.store.objects[f"data/{pack_id[:2]}/{pack_id}"] = b"of a backup that was broken off"

    report = check(sample.repository, read_data=ALL)

    assert report.ok
    assert len(report.notices) == 1
    assert pack_id in report.notices[0]
    assert stock.accepts(sample.store)


def test_packs_that_are_indexed_twice_are_worth_a_notice(sample: Sample, stock: LocalRestic) -> None:
    packs = sample.read_index()
    sample.put_index(packs[:1])

    report = check(sample.repository, read_data=ALL)

    assert report.ok
    assert "more than once" in report.notices[0]
    assert stock.accepts(sample.store)


def test_a_pack_that_old_restic_split_over_two_indexes_is_whole(sample: Sample) -> None:
    packs = dict(sample.read_index())
    data = bytes.fromhex(sample.data_pack[-64:])
    del sample.store.objects[sample.names("index/")[0]]
    sample.put_index([(data, packs[data][:1])])
    sample.put_index([(pack_id, entries[1:] if pack_id == data else entries) for pack_id, entries in packs.items()])

    assert check(sample.repository, read_data=ALL).ok


def test_objects_of_no_known_kind_are_worth_a_notice(sample: Sample) -> None:
    for name in ("data/readme", "index/readme", "snapshots/readme", "keys/readme"):
        sample.store.objects[name] = b"?"

    report = check(sample.repository, read_data=ALL)

    assert report.ok
    assert len(report.notices) == 3


def test_what_was_damaged_on_its_way_only_is_no_finding(sample: Sample) -> None:
    class Flaky(MemoryStore):
        """Damages the first reading of each object."""

        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            content = super().get(name, offset, length)
            if self.reads.count(name) == 1 and name.partition("/")[0] in ("data", "index", "snapshots"):
                return bytes([content[0] ^ 1]) + content[1:]
            return content

    opened = sample.repository
    again = Repository(Flaky(sample.store.objects), opened.codec.key, opened.config, opened.key_id)

    assert check(again, read_data=ALL).ok


# --- indexes that lie ------------------------------------------------------------------------------------------------


def change(entry: Entry, **fields: int) -> Entry:
    return entry._replace(**fields)


@pytest.mark.parametrize(
    "lie",
    [
        lambda entries: [change(entries[0], offset=1), *entries[1:]],
        lambda entries: [change(entries[0], length=entries[0].length - 1), *entries[1:]],
        lambda entries: [change(entries[0], plain_length=77), *entries[1:]],
        lambda entries: entries[1:],
        lambda entries: entries[:-1],
        lambda entries: [change(entries[0], offset=entries[1].offset), change(entries[1], offset=0), *entries[2:]],
        lambda entries: [entries[0]._replace(id=entries[1].id), entries[1]._replace(id=entries[0].id), entries[2]],
        lambda entries: [entries[0]._replace(type=TREE), *entries[1:]],
        lambda entries: [change(entries[0], offset=0, length=(1 << 32) - 1), *entries[1:]],
    ],
)  # fmt: skip
def test_an_index_that_tells_other_than_the_pack_is_found(
    sample: Sample, lie: Callable[[list[Entry]], list[Entry]]
) -> None:
    packs = dict(sample.read_index())
    data = bytes.fromhex(sample.data_pack[-64:])
    del sample.store.objects[sample.names("index/")[0]]
    packs[data] = lie(packs[data])
    sample.put_index(list(packs.items()))

    report = check(sample.repository, read_data=ALL)

    assert data.hex() in [finding.name for finding in report.findings]


def test_two_indexes_that_disagree_about_a_pack_are_found(sample: Sample) -> None:
    packs = dict(sample.read_index())
    data = bytes.fromhex(sample.data_pack[-64:])
    sample.put_index([(data, [change(packs[data][0], offset=7)])])

    assert ("index", data.hex()) in [(finding.kind, finding.name) for finding in check(sample.repository).findings]


# --- how it goes about it --------------------------------------------------------------------------------------------


def test_without_reading_the_data_a_flipped_bit_in_it_stays_unseen_and_no_pack_is_read_in_whole(sample: Sample) -> None:
    sample.flip(sample.data_pack, 30)

    report = check(sample.repository)

    assert report.ok
    assert report.packs_read == 0
    assert sample.data_pack not in sample.store.reads


def test_a_refusal_by_the_store_is_raised(sample: Sample) -> None:
    class Refusing(MemoryStore):
        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            if name.startswith("data/"):
                raise AccessDenied(f"reading {name}: no")
            return super().get(name, offset, length)

    opened = sample.repository
    again = Repository(Refusing(sample.store.objects), opened.codec.key, opened.config, opened.key_id)

    with pytest.raises(AccessDenied):
        check(again)
    assert not any(name.startswith("locks/") for name in again.store.objects)  # type: ignore[attr-defined]


def test_it_waits_for_whoever_removes_data(sample: Sample) -> None:
    with sample.repository.lock(exclusive=True), pytest.raises(RepositoryLocked):
        check(sample.repository)


def test_it_goes_beside_writers(sample: Sample) -> None:
    with sample.repository.lock():
        assert check(sample.repository).ok


def test_progress_ends_at_its_totals(sample: Sample) -> None:
    told = []

    check(sample.repository, read_data=ALL, progress=told.append)

    assert (told[0].files, told[0].bytes) == (0, 0)
    assert (told[-1].files, told[-1].bytes) == (told[-1].total_files, told[-1].total_bytes)
    assert told[-1].files == 2


# --- which packs are read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "subset"),
    [
        ("all", Subset()),
        ("1/10", Subset(group=1, groups=10)),
        ("256/256", Subset(group=256, groups=256)),
        ("5%", Subset(percent=5)),
        ("0.5%", Subset(percent=0.5)),
        ("500M", Subset(size=500 << 20)),
        ("3k", Subset(size=3 << 10)),
        ("12", Subset(size=12)),
    ],
)
def test_shares_are_written_as_for_restic(text: str, subset: Subset) -> None:
    assert Subset.parse(text) == subset


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1/257", "0%", "101%", "0", "-5", "5 %%", "nan%", "1e9", "٣%"])
def test_other_shares_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no (share|group)"):
        Subset.parse(text)


def test_groups_are_the_same_each_time_and_together_all() -> None:
    sizes = {noise(32, number): 100 for number in range(500)}
    groups = [Subset(group=number, groups=7).choose(sizes, random.Random()) for number in range(1, 8)]

    assert sorted(pack_id for group in groups for pack_id in group) == sorted(sizes)
    assert all(pack_id[0] % 7 == 2 for pack_id in groups[2])


def test_random_shares_have_their_size() -> None:
    sizes = {noise(32, number): 100 for number in range(500)}
    source = random.Random(1)

    assert len(Subset.parse("10%").choose(sizes, source)) == 50
    assert len(Subset.parse("5000").choose(sizes, source)) == 50
    assert len(Subset.parse("1").choose(sizes, source)) == 1
    assert Subset.parse("1T").choose(sizes, source) == sorted(sizes)
    assert Subset.parse("5%").choose({}, source) == []


def test_a_share_of_the_packs_is_read(sample: Sample) -> None:
    first = bytes.fromhex(sample.data_pack[-64:])[0] % 256 + 1

    report = check(sample.repository, read_data=Subset(group=first, groups=256))

    assert report.packs_read == 1
