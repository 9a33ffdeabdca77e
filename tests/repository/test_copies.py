"""A blob that lies in two packs is lost only when both copies are: whoever reads takes the other one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backstay.repository import Corrupted
from backstay.repository.format.blob import BlobType
from backstay.repository.repair.under_repair import UnderRepair
from tests.repository.damaged import Sample, make_sample

Damage = Callable[[Sample, BlobType, bytes], None]


def flip(sample: Sample, kind: BlobType, blob_id: bytes) -> None:
    sample.flip_blob(kind, blob_id)


def cut(sample: Sample, kind: BlobType, blob_id: bytes) -> None:
    name = sample.pack_of(kind, blob_id)
    sample.store.objects[name] = sample.store.objects[name][:5]


def remove(sample: Sample, kind: BlobType, blob_id: bytes) -> None:
    del sample.store.objects[sample.pack_of(kind, blob_id)]


def store_again(sample: Sample) -> None:
    """Put everything into further packs too, as two who back up the same at the same time do."""
    contents = [(BlobType.DATA, blob) for blob in sample.blobs]
    contents += [(BlobType.TREE, tree_id) for tree_id, _ in trees(sample)]
    plain = [(kind, sample.fresh().ready().blob(kind, blob_id)) for kind, blob_id in contents]
    with UnderRepair(sample.repository).writer() as writer:
        for kind, content in plain:
            writer.save_blob(kind, content)
    sample.repository.forget_index()  # so that it, too, looks first where whoever opens the repository now does


def trees(sample: Sample) -> list[tuple[bytes, str]]:
    roots = [bytes.fromhex(sample.repository.snapshot(one).tree) for one in (sample.first, sample.second)]
    return [(sample.sub, "sub"), (roots[0], "first"), (roots[1], "second")]


@pytest.fixture(params=[flip, cut, remove])
def damage(request: pytest.FixtureRequest) -> Damage:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [BlobType.DATA, BlobType.TREE])
def test_everything_is_read_while_one_copy_is_whole(damage: Damage, kind: BlobType) -> None:
    sample = make_sample()
    expected = sample.contents()
    store_again(sample)
    assert len(sample.names("data/")) == 4

    damage(sample, kind, sample.blobs[0] if kind is BlobType.DATA else sample.sub)

    assert sample.contents() == expected


def test_a_blob_that_is_whole_nowhere_is_told_with_the_pack_that_is_looked_into_first() -> None:
    sample = make_sample()
    store_again(sample)
    repository = sample.fresh()
    repository.ready()
    for location in repository.index.copies(BlobType.DATA, sample.blobs[0]):
        sample.flip(f"data/{location.pack.hex()[:2]}/{location.pack.hex()}", location.offset + 20)
    told_of = repository.index.lookup(BlobType.DATA, sample.blobs[0])
    assert told_of is not None

    with pytest.raises(Corrupted, match=told_of.pack.hex()):
        list(repository.reader.contents(sample.blobs[:1]))


def test_an_index_that_tells_twice_of_a_place_tells_of_one_copy() -> None:
    sample = make_sample()
    sample.put_index(sample.read_index())
    repository = sample.fresh()
    repository.ready()

    assert repository.index.copies(BlobType.TREE, sample.sub) == [
        repository.index.lookup(BlobType.TREE, sample.sub),
    ]
    assert repository.index.copies(BlobType.TREE, bytes(32)) == []
