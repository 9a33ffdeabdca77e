"""The mover as a process: its order, its result, its exit codes; killed, stopped, and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backstay.repository import Repository, S3Location, S3Store
from backstay.repository.format.blob import BlobType
from tests.repository.conftest import PASSWORD, Restic
from tests.repository.filesystem import MIB, describe, make_tree, noise
from tests.repository.seaweed import ACCESS_KEY, SECRET_KEY

OPERATOR = Path(__file__).parents[2] / "operator"
BACKUP = "backstay.dev/backup=6f1c"


@dataclass
class Mover:
    """Starts movers whose Secrets are mounted at a directory, as in a pod."""

    mounts: Path
    location: S3Location
    prefix: tuple[str, ...] = ()

    def order(self, action: str, volumes: list[dict[str, str]], **fields: Any) -> dict[str, Any]:
        place = self.location
        repository = {
            "bucket": place.bucket,
            "prefix": place.prefix,
            "endpoint": place.endpoint,
            "forcePathStyle": True,
        }
        return {"action": action, "repository": repository, "volumes": volumes, **fields}

    def start(self, order: dict[str, Any] | str, **environment: str) -> subprocess.Popen[str]:
        (self.mounts / "result").write_text("")
        return subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "backstay.mover"],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(OPERATOR),
                "BACKSTAY_ORDER": order if isinstance(order, str) else json.dumps(order),
                "BACKSTAY_HOLDER": "pod-uid",
                "BACKSTAY_RESULT_FILE": str(self.mounts / "result"),
                "BACKSTAY_PASSWORD_DIRECTORY": str(self.mounts / "password"),
                "BACKSTAY_S3_DIRECTORY": str(self.mounts / "s3"),
                "BACKSTAY_CA_DIRECTORY": str(self.mounts / "ca"),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, order: dict[str, Any] | str, **environment: str) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
        """Exit code, the result as the kubelet would see it, and the JSON lines of the log."""
        process = self.start(order, **environment)
        out, err = process.communicate(timeout=120)
        assert err == ""
        result = (self.mounts / "result").read_bytes()
        assert len(result) <= 4000
        lines = [json.loads(line) for line in out.splitlines()]
        return process.returncode, json.loads(result), lines


@pytest.fixture
def mover(location: S3Location, tmp_path: Path) -> Mover:
    mounts = tmp_path / "mounts"
    (mounts / "password").mkdir(parents=True)
    (mounts / "s3").mkdir()
    (mounts / "password" / "password").write_text(PASSWORD + "\n")
    (mounts / "s3" / "AWS_ACCESS_KEY_ID").write_text(ACCESS_KEY)
    (mounts / "s3" / "AWS_SECRET_ACCESS_KEY").write_text(SECRET_KEY)
    return Mover(mounts, location)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_tree(tmp_path / "source")
    return tmp_path / "source"


def backup_order(mover: Mover, source: Path, backup: str = BACKUP) -> dict[str, Any]:
    volume = {"claim": "data-db-0", "path": str(source), "claimUid": "c1a1"}
    return mover.order("backup", [volume], host="cluster/shop", tags=[backup, "x=y"])


def test_a_volume_goes_there_and_back(
    mover: Mover, repository: Repository, referee: Restic, source: Path, tmp_path: Path
) -> None:
    code, result, lines = mover.run(backup_order(mover, source))

    assert (code, result["ok"]) == (0, True)
    (volume,) = result["volumes"]
    assert volume["claim"] == "data-db-0"
    assert volume["warningCount"] == 0
    assert volume["consistencyLost"] is False
    assert volume["addedBytes"] > 0
    assert lines[-1]["ok"] is True
    (shown,) = referee.json("snapshots")
    assert (shown["hostname"], shown["paths"]) == ("cluster/shop", ["/data-db-0"])
    assert shown["tags"] == [BACKUP, "x=y", "backstay.dev/claim=c1a1"]
    assert shown["id"] == volume["snapshot"]
    assert shown["summary"]["total_bytes_processed"] == volume["bytes"]
    referee.check()
    target = tmp_path / "target"
    target.mkdir()
    filled = {"claim": "data-db-0", "path": str(target), "tree": volume["tree"], "snapshot": volume["snapshot"]}

    code, result, _ = mover.run(mover.order("restore", [filled]))

    assert (code, result["ok"]) == (0, True)
    assert result["volumes"][0]["warnings"] == []
    assert describe(target) == describe(source)
    assert target.stat().st_mtime_ns == source.stat().st_mtime_ns
    assert referee("list", "locks") == ""


def test_a_second_attempt_adopts_the_first_ones_snapshot(mover: Mover, repository: Repository, source: Path) -> None:
    _, first, _ = mover.run(backup_order(mover, source))

    code, second, _ = mover.run(backup_order(mover, source))

    assert code == 0
    assert second == first
    assert len(repository.snapshot_ids()) == 1


def test_the_next_backup_takes_the_last_one_as_its_parent(mover: Mover, repository: Repository, source: Path) -> None:
    _, first, _ = mover.run(backup_order(mover, source))

    _, second, _ = mover.run(backup_order(mover, source, "backstay.dev/backup=next"))

    snapshot = repository.snapshot(second["volumes"][0]["snapshot"])
    assert snapshot.parent == first["volumes"][0]["snapshot"]
    assert second["volumes"][0]["tree"] == first["volumes"][0]["tree"]


@pytest.mark.parametrize(
    ("spoil", "reason", "code"),
    [
        (lambda m: (m.mounts / "password" / "password").write_text("wrong"), "WrongPassword", 10),
        (lambda m: (m.mounts / "password" / "password").unlink(), "WrongPassword", 10),
        (lambda m: (m.mounts / "s3" / "AWS_SECRET_ACCESS_KEY").write_text("wrong"), "AccessDenied", 10),
        (lambda m: (m.mounts / "s3" / "AWS_SECRET_ACCESS_KEY").unlink(), "AccessDenied", 10),
    ],
)
def test_wrong_secrets_fail_for_good(
    mover: Mover, repository: Repository, source: Path, spoil: Callable[[Mover], Any], reason: str, code: int
) -> None:
    spoil(mover)

    exit_code, result, _ = mover.run(backup_order(mover, source))

    assert (exit_code, result["ok"], result["reason"], result["permanent"]) == (code, False, reason, True)


def test_an_unreachable_server_may_be_tried_again(mover: Mover, source: Path) -> None:
    order = backup_order(mover, source)
    order["repository"]["endpoint"] = "http://127.0.0.1:9"

    code, result, _ = mover.run(order)

    assert (code, result["reason"], result["permanent"]) == (1, "Unreachable", False)


@pytest.mark.parametrize("order", ["", "{}", "not json", '{"action":"dance"}', '{"action":"backup","surprise":1}'])
def test_an_order_that_is_not_understood_does_nothing(mover: Mover, order: str) -> None:
    code, result, _ = mover.run(order)

    assert (code, result["reason"]) == (10, "InvalidOrder")


def test_a_missing_volume_is_a_source_error(mover: Mover, repository: Repository, tmp_path: Path) -> None:
    code, result, _ = mover.run(backup_order(mover, tmp_path / "nowhere"))

    assert (code, result["reason"]) == (10, "SourceError")


def test_many_warnings_fit_into_the_result(mover: Mover, repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    for number in range(60):
        (source / (f"{number:02d}-" + "closed" * 8)).touch(mode=0o000)
    if os.geteuid() == 0:
        mover.prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")  # as a mover runs, even as root

    code, result, _ = mover.run(backup_order(mover, source))

    assert code == 0
    assert result["volumes"][0]["warningCount"] == 60
    assert 0 < len(result["volumes"][0]["warnings"]) < 60


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Enough that a mover is at it for a while."""
    source = tmp_path / "large"
    source.mkdir()
    for number in range(8):
        (source / f"file-{number}").write_bytes(noise(40 * MIB, number))
    return source


def test_a_killed_mover_leaves_a_good_repository_and_the_retry_finishes(
    mover: Mover, repository: Repository, store: S3Store, referee: Restic, large: Path, tmp_path: Path
) -> None:
    process = mover.start(backup_order(mover, large))
    wait_for(lambda: len(list(store.list("data/"))) >= 3, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert referee("snapshots", "--json", "--no-lock").strip() == "[]"
    assert len(list(store.list("locks/"))) == 1

    code, result, _ = mover.run(backup_order(mover, large))

    assert (code, result["ok"]) == (0, True)
    referee("unlock", "--remove-all")
    referee.check()
    assert len(repository.snapshot_ids()) == 1


WRITE_UNTIL_KILLED = """
import sys
from backstay.repository import Repository, S3Credentials, S3Location, S3Store
place, keys, password, source = sys.argv[1:4], sys.argv[4:6], sys.argv[6], sys.argv[7]
store = S3Store(S3Location(*place, force_path_style=True), S3Credentials(*keys))
with Repository.open(store, password).writer(index_blobs=20) as writer:
    writer.backup(source)
"""


def test_a_killed_writers_packs_are_found_by_its_retry(
    location: S3Location, repository: Repository, store: S3Store, referee: Restic, large: Path
) -> None:
    place = (location.bucket, location.prefix, location.endpoint)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_KILLED, *place, ACCESS_KEY, SECRET_KEY, PASSWORD, str(large)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(OPERATOR)},
    )
    wait_for(lambda: len(list(store.list("index/"))) >= 3, process)
    process.kill()
    process.wait()

    with repository.writer() as writer:
        archive = writer.backup(str(large))

    assert archive.added_bytes < archive.bytes - 60 * (512 << 10)
    referee("unlock", "--remove-all")
    referee.check()


def test_a_mover_told_to_stop_unlocks_and_its_retry_goes_on_from_there(
    mover: Mover, repository: Repository, store: S3Store, referee: Restic, large: Path
) -> None:
    process = mover.start(backup_order(mover, large))
    wait_for(lambda: len(list(store.list("data/"))) >= 5, process)
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    process.communicate(timeout=30)

    assert process.returncode == 143
    assert time.monotonic() - started < 10
    assert json.loads((mover.mounts / "result").read_text())["reason"] == "Terminated"
    assert list(store.list("locks/")) == []
    assert len(list(store.list("index/"))) == 1
    assert list(store.list("snapshots/")) == []
    code, result, _ = mover.run(backup_order(mover, large))
    assert code == 0
    assert result["volumes"][0]["addedBytes"] < 260 * MIB
    referee.check()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_as_such(mover: Mover, repository: Repository, source: Path, small_disk: Path) -> None:
    _, result, _ = mover.run(backup_order(mover, source))
    tree = result["volumes"][0]["tree"]

    code, result, _ = mover.run(mover.order("restore", [{"claim": "c", "path": str(small_disk), "tree": tree}]))

    assert (code, result["reason"], result["permanent"]) == (10, "NoSpace", True)


def test_data_that_the_repository_has_lost_is_a_failure_for_good(
    mover: Mover, repository: Repository, store: S3Store, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / f"file{number}").write_bytes(noise(5000, number))
    _, result, _ = mover.run(backup_order(mover, source))
    tree = result["volumes"][0]["tree"]
    node = repository.find(tree, "data-db-0/file1")
    location = repository.ready().locate(BlobType.DATA, bytes.fromhex(node.content[0]))
    name = f"data/{location.pack.hex()[:2]}/{location.pack.hex()}"
    content = bytearray(store.get(name))
    content[location.offset] ^= 1
    store.put(name, bytes(content))
    target = tmp_path / "target"

    code, result, _ = mover.run(mover.order("restore", [{"claim": "c", "path": str(target), "tree": tree}]))

    assert (code, result["reason"], result["permanent"]) == (10, "Corrupted", True)
    assert "/file1 of volume c" in result["message"]
    assert sorted(os.listdir(target)) == ["file0", "file2"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give up root")
def test_without_privilege_owners_and_devices_cost_one_warning_each(
    mover: Mover, repository: Repository, source: Path, tmp_path: Path
) -> None:
    _, result, _ = mover.run(backup_order(mover, source))
    tree = result["volumes"][0]["tree"]
    target = tmp_path / "target"
    target.mkdir()
    os.chown(target, 1000, 1000)
    for parent in target.parents:
        parent.chmod(parent.stat().st_mode | 0o055)

    messages = as_user(1000, lambda: [warning.message for warning in repository.restore(tree, str(target)).warnings])

    assert sorted(message.split(" because")[0].split(" ", 1)[1] for message in messages) == [
        "device nodes could not be made without privilege",
        "entries keep this process's user or group,",
    ]
    restored, wanted = describe(target / "data-db-0"), describe(source)
    assert {path: entry.get("sha256") for path, entry in restored.items()} == {
        path: entry.get("sha256") for path, entry in wanted.items() if path not in ("null", "block")
    }


def as_user(user: int, work: Callable[[], list[str]]) -> list[str]:
    """What `work` gives in a process of another user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os.write(writing, json.dumps(work()).encode())
        except BaseException as error:  # noqa: BLE001
            os.write(writing, json.dumps([repr(error)]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told)
