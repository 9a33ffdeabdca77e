"""The named Backup, and the restore point that lies in its storage."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from backstay.api.backup import Backup, BackupStatus, Capture, RestorePointReference
from backstay.api.backup import BackupSpec as Spec
from backstay.api.meta import Condition, Meta
from backstay.api.names import RESTORE_POINT_FILE, TAG_RESTORE_POINT, tag
from backstay.repository import ObjectNotFound, Repository, Snapshot
from backstay.restore import source
from backstay.restore.errors import RestoreError
from backstay.restore.source import Origin, origin_of, read_contents
from tests.unit.restore.objects import NOW, claim, obj, point, volume


class MemoryStore:
    """A bucket in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.reads = 0
        self._lock = threading.Lock()

    def put(self, name: str, data: Any, *, sha256: bytes | None = None) -> None:
        with self._lock:
            self.objects[name] = bytes(data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self.reads += 1
        try:
            content = self.objects[name]
        except KeyError:
            raise ObjectNotFound(name) from None
        return content[offset:] if length is None else content[offset : offset + length]

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        return iter([(name, len(data)) for name, data in sorted(self.objects.items()) if name.startswith(prefix)])

    def delete(self, name: str) -> None:
        self.objects.pop(name, None)

    def exists(self, name: str) -> bool:
        return name in self.objects


BODIES = (obj("Deployment", "web", "apps/v1"), claim("data"), obj("Pod", "done", status={"phase": "Succeeded"}))


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    made = MemoryStore()
    Repository.init(made, "password")
    return made


@pytest.fixture(scope="module")
def repository(store: MemoryStore) -> Repository:
    return Repository.open(store, "password")


def write(repository: Repository, files: dict[str, bytes], *tags: str) -> str:
    """A snapshot of a virtual tree; its id."""
    with repository.writer("test") as writer:
        tree = writer.save_files(files, NOW)
        writer.flush()
        return writer.commit(Snapshot(time=NOW, tree=tree, paths=("/resources",), hostname="c/shop", tags=tags))


def files(*bodies: Any) -> dict[str, bytes]:
    """A whole restore point."""
    described = point(*bodies, volumes=(volume("data"),))
    return {
        RESTORE_POINT_FILE: msgspec.json.encode(described),
        **{line.path: msgspec.json.encode(body) for line, body in zip(described.objects, bodies, strict=True)},
    }


COMMITTING = tag(TAG_RESTORE_POINT, "b")


def test_a_restore_point_is_read_whole(repository: Repository) -> None:
    origin = Origin("main", write(repository, files(*BODIES), COMMITTING))
    contents = read_contents(repository, origin)
    assert contents.snapshot == origin.snapshot
    assert {stored.identity.name: stored.body()["kind"] for stored in contents.objects} == {
        "web": "Deployment",
        "data": "PersistentVolumeClaim",
    }
    assert contents.left_out == ("Pod done had finished; made anew it would run again",)


def test_many_objects_come_by_few_requests(repository: Repository, store: MemoryStore) -> None:
    bodies = [claim("data"), *(obj("ConfigMap", f"c{n}", data={"n": str(n)}) for n in range(300))]
    origin = Origin("main", write(repository, files(*bodies), COMMITTING))
    before = store.reads
    assert len(read_contents(repository, origin).objects) == 301
    assert store.reads - before < 150


def test_a_copied_restore_point_is_found_by_its_tag(repository: Repository) -> None:
    snapshot = write(repository, files(*BODIES), tag(TAG_RESTORE_POINT, "copied"))
    assert read_contents(repository, Origin("main", "0" * 64, "copied")).snapshot == snapshot


def test_a_snapshot_that_is_gone_says_so(repository: Repository) -> None:
    with pytest.raises(RestoreError, match="is not in BackupStorage main any more"):
        read_contents(repository, Origin("main", "0" * 64, "absent"))


def test_a_snapshot_that_commits_no_restore_point_is_refused(repository: Repository) -> None:
    with pytest.raises(RestoreError, match="not the committing snapshot"):
        read_contents(repository, Origin("main", write(repository, files(*BODIES))))


def test_a_snapshot_without_a_description_is_refused(repository: Repository) -> None:
    with pytest.raises(RestoreError, match=r"has no backstay/restore-point\.json"):
        read_contents(repository, Origin("main", write(repository, {"a": b"b"}, COMMITTING)))


def test_a_described_object_that_is_absent_is_refused(repository: Repository) -> None:
    held = files(*BODIES)
    del held["resources/apps/Deployment/web/object.json"]
    with pytest.raises(RestoreError, match="does not hold it"):
        read_contents(repository, Origin("main", write(repository, held, COMMITTING)))


def test_an_object_beyond_the_limit_is_refused(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "LARGEST_OBJECT", 1 << 20)
    large = obj("ConfigMap", "large", data={"x": "y" * (2 << 20)})
    with pytest.raises(RestoreError, match="larger than 1 MiB"):
        read_contents(repository, Origin("main", write(repository, files(claim("data"), large), COMMITTING)))


def backup(spec: Spec, status: str = "", snapshot: str = "", phase: str = "") -> Backup:
    conditions = (Condition("Succeeded", status, "X", "why"),) if status else ()
    return Backup(
        Meta("b", uid="b-uid"), spec, BackupStatus(conditions, phase=phase, storage="main", snapshot=snapshot)
    )


CAPTURE, FOUND = Spec(capture=Capture("shop")), Spec(restore_point=RestorePointReference("other", "7" * 64))


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        (backup(CAPTURE, "True", "5" * 64), Origin("main", "5" * 64, "b-uid")),
        (backup(FOUND), Origin("other", "7" * 64)),
        (backup(FOUND, "True"), Origin("other", "7" * 64)),
    ],
)
def test_a_backup_with_a_restore_point_tells_where_it_lies(given: Backup, origin: Origin) -> None:
    assert origin_of(given) == origin


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (backup(CAPTURE, "False"), r"Backup b failed and has no restore point \(why\)"),
        (backup(CAPTURE), "Backup b is Pending: it has no restore point yet"),
        (backup(CAPTURE, "Unknown", phase="Running"), "Backup b is Running: it has no restore point yet"),
        (backup(FOUND, "False"), "has no restore point"),
    ],
)
def test_a_backup_without_a_restore_point_says_why(given: Backup, words: str) -> None:
    with pytest.raises(RestoreError, match=words):
        origin_of(given)


def test_only_the_last_sources_are_kept() -> None:
    recent = source.RecentSources(2)
    kept: Any = source.Source(Origin("main", "s"), None)  # type: ignore[arg-type]
    for uid in ("a", "b"):
        recent.keep(uid, kept)
    assert recent.find("a") is kept
    recent.keep("c", replace(kept))
    assert recent.find("b") is None
    recent.drop("a")
    assert recent.find("a") is None
