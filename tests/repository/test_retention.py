"""A policy keeps the same snapshots as restic's `forget` would, for the same reasons."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from backstay.repository import ForgetRefused, Repository, Snapshot
from backstay.repository.format.rfc3339 import to_datetime
from backstay.repository.prune.retention import KeepPolicy, apply, group, parse_duration
from backstay.repository.stores.local import LocalStore
from tests.repository.conftest import PASSWORD, Restic, local_restic

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime.now(UTC)

POLICIES = [
    "--keep-last 1",
    "--keep-last 7 --keep-hourly 5",
    "--keep-hourly 30",
    "--keep-daily 12",
    "--keep-daily unlimited",
    "--keep-weekly 9 --keep-last 2",
    "--keep-weekly unlimited",
    "--keep-monthly 200",
    "--keep-yearly 3 --keep-monthly 4 --keep-weekly 5 --keep-daily 6 --keep-hourly 7 --keep-last 8",
    "--keep-yearly unlimited",
    "--keep-last unlimited",
    "--keep-within 5d",
    "--keep-within 1y2m3d4h --keep-daily 2",
    "--keep-within-hourly 2d --keep-within-daily 31d",
    "--keep-within-weekly 3m --keep-within-monthly 1y --keep-within-yearly 80y",
    "--keep-within-daily 1m",
    "--keep-within-monthly 5000y",
    "--keep-tag a",
    "--keep-tag a,b --keep-tag c --keep-last 1",
    "--keep-tag , --keep-yearly 1",
    "--keep-tag a --keep-within 1h",
    "--keep-last 3 --keep-daily unlimited --keep-monthly 2",
    "--keep-within-hourly 10000h --keep-hourly 1",
    "--keep-within 1y1m31d25h",
    "--keep-tag nowhere",
]
GROUPINGS = ["host,paths", "", "tags", "host", "paths,tags", "host", ""]


def moments() -> Iterator[datetime]:
    """Times that are hard on a calendar, and some that are not."""
    rng = random.Random(5)
    for year in (2023, 2024, 2025):
        for day in (datetime(year, 12, 31, 22, tzinfo=UTC), datetime(year, 2, 28, 12, tzinfo=UTC)):
            yield from (day + timedelta(hours=hours) for hours in (0, 1, 2, 12, 26))
    for change in (datetime(2026, 3, 29, 0, 30, tzinfo=UTC), datetime(2025, 10, 26, 0, 30, tzinfo=UTC)):
        yield from (change + timedelta(minutes=30 * half) for half in range(-2, 5))  # clocks in Berlin are changed
    yield from (datetime(2026, 5, 31, 23, 59, 59, 999_000 + number, tzinfo=UTC) for number in range(3))
    last = datetime(2026, 10, 31, 1, 15, tzinfo=UTC)
    yield from (last - timedelta(minutes=rng.randrange(60 * 24 * 90)) for _ in range(40))
    yield from (last - timedelta(days=31), last - timedelta(hours=743), last, last)
    yield NOW + timedelta(days=400)


def as_written(time: datetime, number: int) -> int:
    """The offset with which a snapshot's time is written: that of Berlin, of India, or UTC; in seconds."""
    return (int((time.astimezone(BERLIN).utcoffset() or timedelta()).total_seconds()), 19800, 0)[number % 3]


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Restic, list[Snapshot]]:
    """A repository with snapshots of several hosts, paths and tags."""
    directory = tmp_path_factory.mktemp("retention")
    repository = Repository.init(LocalStore(directory), PASSWORD)
    with repository.writer() as writer:
        tree = writer.save_files({"a": b"b"}, datetime(2026, 1, 1, tzinfo=UTC))
        for time in moments():
            number = int(time.timestamp()) // 900  # snapshots of the same time are alike, since their order is chance
            writer.commit(
                Snapshot(
                    time=time,
                    tree=tree,
                    paths=(("/b", "/a"), ("/a",))[number % 5 == 0],
                    hostname=("one", "two")[number % 3 == 0],
                    tags=((), ("a",), ("b", "a"), ("c",))[number % 4],
                    utc_offset=as_written(time, number),
                )
            )
    return local_restic(directory, tmp_path_factory.mktemp("cache")), list(repository.snapshots())


def parse(arguments: str) -> KeepPolicy:
    """The policy that some of restic's options stand for."""
    words = arguments.split()
    values: dict[str, object] = {}
    tags: list[tuple[str, ...]] = []
    for option, value in zip(words[::2], words[1::2], strict=True):
        name = option.removeprefix("--keep-").replace("-", "_")
        if name == "tag":
            tags.append(tuple(value.split(",")) if value != "," else ("", ""))
        elif name.startswith("within"):
            values[name] = parse_duration(value)
        else:
            values[name] = -1 if value == "unlimited" else int(value)
    return KeepPolicy(**values, tags=tuple(tags))  # type: ignore[arg-type]


def counted(kept: Iterable[tuple[datetime, tuple[str, ...]]]) -> tuple[object, ...]:
    return tuple(sorted(kept))


def ours(found: list[Snapshot], policy: KeepPolicy, by: str, zone: str) -> set[object]:
    told: set[object] = set()
    for key, members in group(found, [word for word in by.split(",") if word]).items():
        try:
            decision = apply(policy, members, now=NOW, local=ZoneInfo(zone))
        except ForgetRefused:
            return {"refused"}
        told.add((key.host, key.paths, key.tags, counted((k.snapshot.time, k.reasons) for k in decision.keep)))
    return told


def theirs(referee: Restic, arguments: str, by: str, zone: str) -> set[object]:
    done = subprocess.run(
        [str(referee.binary), "forget", "--dry-run", "--json", "--no-lock", "--group-by", by, *arguments.split()],
        env={**referee.environment(), "TZ": zone},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "refusing to delete last snapshot" in done.stderr:
        return {"refused"}
    assert done.returncode == 0, done.stderr
    return {
        (
            told["host"],
            tuple(told["paths"] or ()),
            tuple(told["tags"] or ()),
            counted((to_datetime(kept["snapshot"]["time"]), tuple(kept["matches"])) for kept in told["reasons"]),
        )
        for told in json.loads(done.stdout)
    }


def test_policies_keep_what_restic_keeps_for_the_same_reasons(snapshots: tuple[Restic, list[Snapshot]]) -> None:
    referee, found = snapshots
    assert len(found) > 90
    refused = 0
    for number, arguments in enumerate(POLICIES):
        by = GROUPINGS[number % len(GROUPINGS)]
        zone = ("UTC", "Europe/Berlin")[number % 2]

        told = ours(found, parse(arguments), by, zone)

        assert told == theirs(referee, arguments, by, zone), (arguments, by, zone)
        refused += told == {"refused"}
    assert refused == 1


@pytest.mark.exhaustive
def test_policies_by_chance_keep_what_restic_keeps(snapshots: tuple[Restic, list[Snapshot]]) -> None:
    referee, found = snapshots
    rng = random.Random(os.environ.get("PYTEST_SEED", "7"))
    for _ in range(40):
        arguments = " ".join(
            f"--keep-{word} {rng.choice((1, 2, 3, 5, 8, 13, 40, 'unlimited'))}"
            for word in rng.sample(["last", "hourly", "daily", "weekly", "monthly", "yearly"], rng.randrange(1, 4))
        )
        for word in rng.sample(["", "-hourly", "-daily", "-weekly", "-monthly", "-yearly"], rng.randrange(0, 3)):
            span = "".join(f"{rng.randrange(1, 40)}{unit}" for unit in "ymdh" if rng.random() < 0.4) or "1d"
            arguments += f" --keep-within{word} {span}"
        by, zone = rng.choice(GROUPINGS), rng.choice(("UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"))

        assert ours(found, parse(arguments), by, zone) == theirs(referee, arguments, by, zone), (arguments, by, zone)
