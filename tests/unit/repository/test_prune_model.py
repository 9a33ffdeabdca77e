"""Whatever is backed up, forgotten, pruned and broken off, in whatever order: each snapshot keeps its content."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from backstay.repository import Repository, RepositoryLocked, Snapshot, Unreachable
from backstay.repository.lock import unlock
from backstay.repository.prune.forget import forget
from backstay.repository.prune.prune import PruneOptions, prune
from tests.unit.repository.memory_store import MemoryStore

START = datetime(2026, 11, 24, tzinfo=UTC)
names = st.sets(st.integers(0, 12), min_size=1, max_size=8)
limits = st.sampled_from(["0", "5%", "50%", "unlimited"])


def content(number: int) -> bytes:
    return hashlib.shake_128(b"%d" % number).digest(3000 + 500 * number)


class Pruning(RuleBasedStateMachine):
    """A repository, what was committed to it, and one more process that has had it open since it last wrote."""

    template: ClassVar[Repository | None] = None

    def __init__(self) -> None:
        super().__init__()
        if Pruning.template is None:
            Pruning.template = Repository.init(MemoryStore(), "password")
        assert isinstance(Pruning.template.store, MemoryStore)
        self.store = MemoryStore(Pruning.template.store.objects)
        self.other = self.open()
        self.committed: dict[str, set[int]] = {}
        self.now = START

    def open(self) -> Repository:
        template = Pruning.template
        assert template is not None
        return Repository(self.store, template.codec.key, template.config, template.key_id)

    def write(self, repository: Repository, files: set[int]) -> None:
        with repository.writer() as writer:
            tree = writer.save_files({f"{n % 3}/{n}": content(n) for n in files}, START)
            self.committed[writer.commit(Snapshot(time=self.now, tree=tree, paths=("/",)))] = set(files)

    @rule(files=names)
    def back_up(self, files: set[int]) -> None:
        self.write(self.open(), files)

    @rule(files=names)
    def back_up_from_a_process_that_stayed(self, files: set[int]) -> None:
        self.write(self.other, files)

    @rule(first=names, second=names)
    def back_up_twice_at_once(self, first: set[int], second: set[int]) -> None:
        one, two = self.open(), self.open()
        with one.writer() as writer:
            tree = writer.save_files({f"{n}": content(n) for n in first}, START)
            self.write(two, second)
            self.committed[writer.commit(Snapshot(time=self.now, tree=tree, paths=("/",)))] = set(first)

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        if self.committed:
            going = data.draw(st.sets(st.sampled_from(sorted(self.committed)), max_size=3))
            forget(self.open(), going)
            for snapshot_id in going:
                del self.committed[snapshot_id]

    @rule(limit=limits, hours=st.sampled_from([0, 24]), passed=st.integers(0, 30), budget=st.sampled_from([None, 9000]))
    def prune(self, limit: str, hours: int, passed: int, budget: int | None) -> None:
        self.now += timedelta(hours=passed)
        options = PruneOptions(
            max_unused=limit, delete_delay=timedelta(hours=hours), small_pack_size=1, max_repack_size=budget
        )
        prune(self.open(), options, now=self.now)

    @rule(at=st.integers(0, 12), files=names, hours=st.sampled_from([0, 24]))
    def break_off(self, at: int, files: set[int], hours: int) -> None:
        """A backup or a prune ends after some of its changes."""
        before = set(self.open().snapshot_ids())
        self.store.fail_at = len(self.store.history) + at
        with suppress(Unreachable, RepositoryLocked):
            if len(files) % 2:
                prune(self.open(), PruneOptions(max_unused="0", delete_delay=timedelta(hours=hours)), now=self.now)
            else:
                self.write(self.open(), files)
        self.store.fail_at = None
        unlock(self.store, self.open().codec, remove_all=True)
        for snapshot_id in set(self.open().snapshot_ids()) - before:
            self.committed[snapshot_id] = set(files)

    @invariant()
    def all_is_there(self) -> None:
        repository = self.open()
        found = {
            snapshot.id: {
                int(path.rpartition("/")[2])
                for path, node in repository.walk(snapshot.tree)
                if node.type == "file" and b"".join(repository.read_file(node)) == content(int(node.name))
            }
            for snapshot in repository.snapshots()
        }
        assert found == self.committed

    def teardown(self) -> None:
        """After all that, a prune still leaves what is needed and nothing else."""
        options = PruneOptions(max_unused="0", delete_delay=timedelta(0), small_pack_size=1)
        prune(self.open(), options, now=self.now)
        report = prune(self.open(), options, now=self.now)
        self.all_is_there()
        assert report.unused_bytes == report.pending_packs == report.removed_packs == report.repacked_packs == 0
        packs = {name for name in self.store.objects if name.startswith("data/")}
        assert len(packs) == report.packs_after


Pruning.TestCase.settings = settings(
    max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestPruning = Pruning.TestCase
