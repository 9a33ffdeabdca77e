"""`backstay repo` as a person runs it, with stock restic reading what it wrote and writing what it reads."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner

from backstay.cli.main import main
from backstay.cli.repo.environment import username
from backstay.repository import Repository, S3Location, S3Store
from backstay.repository.format.snapshot import Snapshot
from backstay.repository.stores.local import LocalStore
from tests.repository.conftest import PASSWORD, Restic
from tests.repository.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

FORKING = {"backup", "restore", "check"}


@dataclass
class Backstay:
    """Runs `backstay repo` with restic's variables: in a process of its own if the verb forks, in this one if not."""

    repository: str
    environment: dict[str, str]

    def command(self, *arguments: str) -> list[str]:
        program = "from backstay.cli.main import main; main(prog_name='backstay')"
        return [sys.executable, "-c", program, "repo", *arguments]

    def run(
        self, *arguments: str, cwd: Path | None = None, stdin: bytes = b"", **variables: str
    ) -> subprocess.CompletedProcess[bytes]:
        if not FORKING.intersection(arguments) and cwd is None:
            done = CliRunner().invoke(main, ["repo", *arguments], env={**self.environment, **variables})
            return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout_bytes, done.stderr_bytes)
        return subprocess.run(
            self.command(*arguments),
            env={**self.environment, **variables},
            cwd=cwd,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def __call__(self, *arguments: str, cwd: Path | None = None, stdin: bytes = b"", **variables: str) -> str:
        """Standard output; a failure fails the test with what was said."""
        done = self.run(*arguments, cwd=cwd, stdin=stdin, **variables)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout!r}\n{done.stderr.decode()}"
        return done.stdout.decode()

    def json(self, *arguments: str, cwd: Path | None = None) -> Any:
        """The last line of JSON."""
        return json.loads(self("--json", *arguments, cwd=cwd).splitlines()[-1])


def backstay_at(repository: str, home: Path, **variables: str) -> Backstay:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "HOME": str(home),
        "RESTIC_REPOSITORY": repository,
        "RESTIC_PASSWORD": PASSWORD,
        **variables,
    }
    return Backstay(repository, environment)


@pytest.fixture
def backstay(location: S3Location, tmp_path: Path) -> Backstay:
    return backstay_at(
        f"s3:{location.endpoint}/{location.bucket}/{location.prefix}",
        tmp_path,
        AWS_ACCESS_KEY_ID=ACCESS_KEY,
        AWS_SECRET_ACCESS_KEY=SECRET_KEY,
    )


@dataclass
class Local:
    """A repository in a directory, with both programs on it."""

    path: Path
    backstay: Backstay
    binary: Path

    def restic(self, *arguments: str, cwd: Path | None = None) -> str:
        environment = {**self.backstay.environment, "RESTIC_CACHE_DIR": str(self.path.with_name("cache"))}
        done = subprocess.run(
            [str(self.binary), *arguments],
            env=environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"restic {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def restic_json(self, *arguments: str) -> Any:
        return json.loads(self.restic("--json", *arguments).splitlines()[-1])


@pytest.fixture
def local(tmp_path: Path, restic_binary: Path) -> Local:
    path = tmp_path / "repository"
    made = Local(path, backstay_at(str(path), tmp_path), restic_binary)
    Repository.init(LocalStore(path), PASSWORD)
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree with what a directory can hold."""
    root = tmp_path / "srv" / "shop"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "orders.txt").write_text("an order\n" * 100)
    (root / "deep" / "photo.jpg").write_bytes(os.urandom(3_000_000))
    (root / "deep" / "er" / "empty").touch()
    (root / "link").symlink_to("orders.txt")
    os.link(root / "orders.txt", root / "same.txt")
    (root / "cache").mkdir()
    (root / "cache" / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    (root / "cache" / "junk").write_text("junk")
    os.chmod(root, 0o750)
    return root


# --- the whole way, on S3 --------------------------------------------------------------------------------------------


def test_what_it_backs_up_to_s3_restic_restores_with_the_directories_above_it(
    backstay: Backstay, referee: Restic, source: Path, tmp_path: Path
) -> None:
    backstay("init")

    summary = backstay.json("backup", str(source), "--tag", "a,b", "--host", "shop-1")
    assert summary["upload_integrity"] in ("CHECKSUM", "SIGNATURE", "MD5", "READ_BACK")

    found = referee.json("snapshots", summary["snapshot_id"])[0]
    assert (found["hostname"], found["tags"], found["paths"]) == ("shop-1", ["a", "b"], [str(source)])
    assert found["summary"]["total_files_processed"] == summary["total_files_processed"]
    referee("restore", "latest", "--target", str(tmp_path / "out"))
    restored = tmp_path / "out" / str(source).lstrip("/")
    assert (restored / "deep/photo.jpg").read_bytes() == (source / "deep/photo.jpg").read_bytes()
    assert restored.stat().st_mode == source.stat().st_mode
    assert restored.parent.stat().st_mtime_ns == source.parent.stat().st_mtime_ns
    assert (restored / "same.txt").stat().st_ino == (restored / "orders.txt").stat().st_ino
    referee.check()


def test_what_restic_backed_up_to_s3_it_lists_dumps_and_goes_on_from(
    backstay: Backstay, referee: Restic, source: Path, repository: Repository
) -> None:
    referee("backup", str(source))

    listed = backstay("ls", "latest", "--quiet").splitlines()
    dumped = backstay.run("dump", "latest", str(source / "deep/photo.jpg")).stdout
    again = backstay.json("backup", str(source))

    assert set(referee("ls", "latest", "--quiet").splitlines()) == set(listed)
    assert dumped == (source / "deep/photo.jpg").read_bytes()
    assert repository.snapshot(again["snapshot_id"]).parent == referee.json("snapshots")[0]["id"]
    assert backstay.json("check", "--read-data")["num_errors"] == 0
    referee.check()


def test_a_backup_that_is_interrupted_leaves_no_lock_and_ends_with_130(
    backstay: Backstay, repository: Repository, store: S3Store, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(48 << 20))
    slowly = backstay.command("backup", str(tmp_path / "large"), "--limit-upload", "8000", "--json")
    process = subprocess.Popen(slowly, env=backstay.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not any(store.list("data/")) and time.monotonic() < deadline:
        time.sleep(0.05)

    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)

    assert process.returncode == 130, told
    assert json.loads(told.splitlines()[-1])["code"] == 130
    assert list(store.list("locks/")) == []
    assert list(store.list("snapshots/")) == []
    repository.load_index()
    assert len(repository.index), "what was uploaded is found by the next run"


# --- backup, in a directory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "targets",
    [
        ["."],
        ["deep", "orders.txt", "link"],
        [".", "../../srv"],
        ["deep/er", "deep"],
        ["deep/photo.jpg", "{source}/deep/er"],
        ["../shop/deep", "deep"],
    ],
)
def test_paths_lie_in_the_tree_where_restic_puts_them(local: Local, source: Path, targets: list[str]) -> None:
    named = [target.format(source=source) for target in targets]

    local.backstay("backup", *named, cwd=source)
    ours = local.restic("ls", "latest", "--json")
    local.restic("backup", "--force", *named, cwd=source)
    theirs = local.restic("ls", "latest", "--json")

    def nodes(text: str) -> list[tuple[Any, ...]]:
        lines = [json.loads(line) for line in text.splitlines()[1:]]
        return [
            (
                line["path"],
                line["type"],
                line["mode"],
                line["mtime"] if line["path"].startswith(("/deep", "/orders", str(source))) else "",  # /tmp's changes
                line.get("size"),
            )
            for line in lines
        ]

    assert nodes(ours) == nodes(theirs)


def test_a_second_backup_reads_nothing_again_and_is_left_out_when_asked(local: Local, source: Path) -> None:
    later = [("--time", f"2030-01-0{day} 00:00:00") for day in (1, 2, 3)]  # times near the parent's are not trusted
    local.backstay("backup", ".", *later[0], cwd=source)

    first = local.backstay.json("backup", ".", *later[1], cwd=source)
    second = local.backstay.json("backup", ".", *later[2], "--skip-if-unchanged", cwd=source)

    assert first["files_unmodified"] == first["total_files_processed"] > 0
    assert (second["files_new"], second["files_changed"], second["data_added"]) == (0, 0, 0)
    assert "snapshot_id" not in second
    assert local.backstay.json("backup", ".", "--force", cwd=source)["files_new"] > 0


def test_what_is_excluded_is_what_restic_excludes(local: Local, source: Path, tmp_path: Path) -> None:
    (tmp_path / "patterns").write_text("# not this\n*.JPG\n")
    options = ["--exclude", "er", "--iexclude-file", str(tmp_path / "patterns"), "--exclude-caches"]
    options += ["--exclude-if-present", "nothing.here", "--exclude-larger-than", "2M"]

    local.backstay("backup", str(source), *options)
    ours = local.restic("ls", "latest", "--quiet")
    local.restic("backup", "--force", str(source), *options)

    assert ours == local.restic("ls", "latest", "--quiet")
    assert "junk" not in ours
    assert "photo" not in ours


def test_an_unreadable_path_makes_a_snapshot_and_exit_code_3(local: Local, source: Path) -> None:
    done = local.backstay.run("--json", "backup", str(source), "/does/not/exist")

    assert done.returncode == 3
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert told[0]["item"] == "/does/not/exist"
    assert told[-1]["message_type"], told[-1]["code"] == ("exit_error", 3)
    assert len(local.restic_json("snapshots")) == 1


def test_a_dry_run_tells_what_would_be_added_and_stores_nothing(local: Local, source: Path) -> None:
    before = {path for path in local.path.rglob("*") if path.is_file()}

    summary = local.backstay.json("backup", str(source), "--dry-run")

    assert summary["dry_run"]
    assert summary["data_added"] > 3_000_000
    assert {path for path in local.path.rglob("*") if path.is_file()} == before


def test_standard_input_and_a_command_are_files_but_not_when_the_command_fails(local: Local) -> None:
    local.backstay("backup", "--stdin", "--stdin-filename", "dumps/shop.sql", stdin=b"create table")
    program = [sys.executable, "-c", "print('rows')"]
    local.backstay("backup", "--stdin-from-command", "--stdin-filename", "rows", "--", *program)

    failing = local.backstay.run("backup", "--stdin-from-command", "--", sys.executable, "-c", "print(1); exit(7)")

    first, second = local.restic_json("snapshots")
    assert first["paths"] == ["/dumps/shop.sql"]
    assert local.restic("dump", first["id"], "/dumps/shop.sql") == "create table"
    assert local.restic("dump", second["id"], "/rows") == "rows\n"
    assert failing.returncode == 1
    assert b"exit code 7" in failing.stderr


def test_an_image_is_one_file_that_restores_byte_for_byte(local: Local, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(9 << 20)
        file.seek(5 << 20)
        file.write(os.urandom(1 << 20))

    local.backstay("backup", "--image", str(image))
    local.backstay("restore", "latest", "--image", str(image), "--target", str(tmp_path / "back.img"))
    local.restic("restore", f"latest:{tmp_path}", "--target", str(tmp_path / "out"))

    assert (tmp_path / "back.img").read_bytes() == image.read_bytes()
    assert (tmp_path / "out/disk.img").read_bytes() == image.read_bytes()


def test_with_image_a_link_is_followed_and_without_it_is_kept_and_told_when_it_leads_to_a_device(
    local: Local, tmp_path: Path
) -> None:
    (tmp_path / "disk.img").write_bytes(os.urandom(100_000))
    (tmp_path / "to-file").symlink_to("disk.img")
    (tmp_path / "to-nothing").symlink_to("nothing")
    (tmp_path / "to-device").symlink_to(device := tmp_path / "device")
    try:
        os.mknod(device, stat.S_IFBLK, os.makedev(7, 250))
    except PermissionError:
        pytest.skip("making a device node takes a privilege")

    local.backstay("backup", "--image", str(tmp_path / "to-file"))
    nowhere = local.backstay.run("backup", "--image", str(tmp_path / "to-nothing"))
    told = local.backstay("backup", str(tmp_path / "to-device"))

    image, empty, link = (each["id"] for each in local.restic_json("snapshots"))
    stored = local.backstay.run("dump", image, str(tmp_path / "to-file")).stdout
    assert stored == (tmp_path / "disk.img").read_bytes()
    assert nowhere.returncode == 3
    assert b"what the link leads to: No such file" in nowhere.stderr
    assert "to-nothing" not in local.restic("ls", empty, "--quiet")
    assert "use --image" in told
    assert f"{tmp_path}/to-device -> {device}" in local.backstay("ls", "-l", link)


# --- looking ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def history(local: Local, source: Path) -> Local:
    """Two snapshots: one by restic, and one by us after changes."""
    local.restic("backup", "--host", "one", "--tag", "first", str(source))
    (source / "orders.txt").write_text("another\n")
    (source / "new").write_text("new")
    (source / "deep/er/empty").unlink()
    os.chmod(source / "deep", 0o700)
    local.backstay("backup", "--host", "two", "--tag", "second,x", str(source))
    return local


def test_snapshots_are_told_in_restics_json(history: Local) -> None:
    ours, theirs = history.backstay.json("snapshots"), history.restic_json("snapshots")
    for each in (*ours, *theirs):
        del each["summary"]["backup_start"], each["summary"]["backup_end"]  # in fewer digits than restic's
    assert ours == theirs
    assert [each["hostname"] for each in history.backstay.json("snapshots", "--host", "two")] == ["two"]
    assert [each["tags"] for each in history.backstay.json("snapshots", "--tag", "x,second")] == [["second", "x"]]
    assert history.backstay.json("snapshots", "--tag", "x,first") == []
    assert len(history.backstay.json("snapshots", "--latest", "1")) == 2
    assert len(history.backstay.json("snapshots", "latest")) == 1
    grouped = history.backstay.json("snapshots", "--group-by", "host")
    assert [group["group_key"]["hostname"] for group in grouped] == ["one", "two"]


def test_ls_lists_what_restic_lists(history: Local, source: Path) -> None:
    for arguments in ([], [str(source)], [str(source.parent), "--recursive"], ["/"]):
        ours = history.backstay("ls", "latest", "--json", *arguments).splitlines()
        theirs = history.restic("ls", "latest", "--json", *arguments).splitlines()

        assert [json.loads(line) for line in ours] == [json.loads(line) for line in theirs], arguments


def test_diff_agrees_with_restics_down_to_the_counts(history: Local) -> None:
    first, second = (each["id"] for each in history.restic_json("snapshots"))
    for options in ([], ["--metadata"]):
        ours = history.backstay("diff", "--json", *options, first, second).splitlines()
        theirs = history.restic("diff", "--json", *options, first, second).splitlines()

        assert [json.loads(line) for line in ours] == [json.loads(line) for line in theirs]


@pytest.mark.parametrize("mode", ["restore-size", "files-by-contents", "blobs-per-file", "raw-data"])
def test_stats_agree_with_restics(history: Local, mode: str) -> None:
    assert history.backstay.json("stats", "--mode", mode) == pytest.approx(history.restic_json("stats", "--mode", mode))


def test_find_finds_what_restic_finds(history: Local, source: Path) -> None:
    def paths(found: Any) -> list[tuple[str, list[str]]]:
        return [(each["snapshot"], [match["path"] for match in each["matches"]]) for each in found]

    for pattern in ("orders.txt", "*.TXT", "deep", str(source / "deep" / "*.jpg")):
        options = ["--ignore-case"] if pattern.isupper() else []
        ours, theirs = (run("find", *options, pattern) for run in (history.backstay.json, history.restic_json))
        assert paths(ours) == paths(theirs), pattern
    tree = history.restic_json("snapshots")[0]["tree"]
    assert history.backstay.json("find", "--tree", tree) == history.restic_json("find", "--tree", tree)


def test_a_directory_is_dumped_as_a_tar_of_the_same_files(history: Local, source: Path) -> None:
    done = history.backstay.run("dump", f"latest:{source.parent}", "/shop")

    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        members = {member.name: member for member in archive.getmembers()}
        photo = archive.extractfile("shop/deep/photo.jpg")
        assert photo is not None
        assert photo.read() == (source / "deep/photo.jpg").read_bytes()
    assert members["shop/link"].linkname == "orders.txt"
    assert members["shop/deep"].mode == 0o700
    assert members["shop/new"].mtime == pytest.approx((source / "new").stat().st_mtime, abs=1e-6)


def test_the_repositorys_own_files_are_shown_as_restic_shows_them(history: Local) -> None:
    snapshot = history.restic_json("snapshots")[0]["id"]

    assert json.loads(history.backstay("cat", "config")) == json.loads(history.restic("cat", "config"))
    assert json.loads(history.backstay("cat", "snapshot", snapshot)) == json.loads(
        history.restic("cat", "snapshot", snapshot)
    )
    for kind in ("packs", "index", "snapshots", "keys"):
        assert sorted(history.backstay("list", kind).split()) == sorted(history.restic("list", kind).split())


# --- restoring -------------------------------------------------------------------------------------------------------


def test_a_restore_brings_back_what_restic_brings_back(history: Local, source: Path, tmp_path: Path) -> None:
    def content(root: Path) -> list[tuple[Any, ...]]:
        found = []
        for path in sorted(root.rglob("*")):
            status = path.lstat()
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found.append((path.relative_to(root), status.st_mode, status.st_mtime_ns, status.st_nlink, data))
        return found

    folder = f"latest:{source}"
    summary = history.backstay.json("restore", folder, "--target", str(tmp_path / "ours"))
    history.restic("restore", folder, "--target", str(tmp_path / "theirs"))

    assert content(tmp_path / "ours") == content(tmp_path / "theirs") == content(source)
    assert summary["files_restored"] == summary["total_files"] > 0


def test_a_restore_takes_what_is_included_and_puts_the_target_right(
    history: Local, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    folder = f"latest:{source}"

    history.backstay("restore", folder, "--target", str(target), "--include", "/deep/*.jpg")
    some = [path.name for path in target.rglob("*") if path.is_file()]
    (target / "stray").touch()
    (target / "deep/photo.jpg").write_bytes(b"broken")
    would = history.backstay.json("restore", folder, "--target", str(target), "--dry-run", "--delete")
    untouched = (target / "stray").exists()
    history.backstay("restore", folder, "--target", str(target), "--delete", "--verify", "--exclude", "orders.txt")

    assert some == ["photo.jpg"]
    assert untouched
    assert would["files_deleted"] == 1
    assert not (target / "stray").exists()
    assert not (target / "orders.txt").exists()
    assert (target / "deep/photo.jpg").read_bytes() == (source / "deep/photo.jpg").read_bytes()


def test_a_restore_says_that_it_read_everything_back(history: Local, tmp_path: Path) -> None:
    told = history.backstay("restore", "latest", "--target", str(tmp_path / "a"), "--verify")
    summary = history.backstay.json("restore", "latest", "--target", str(tmp_path / "b"), "--verify")
    silent = history.backstay.json("restore", "latest", "--target", str(tmp_path / "c"))

    assert f"Verified: read {summary['files_verified']} files back, all as they should be" in told
    assert summary["files_verified"] > 0
    assert summary["verify_errors"] == 0
    assert "files_verified" not in silent


# --- keeping in order ------------------------------------------------------------------------------------------------


def test_forget_removes_what_restic_would_remove(history: Local, source: Path) -> None:
    history.backstay("backup", "--host", "two", str(source))
    theirs = history.restic_json("forget", "--keep-last", "1", "--dry-run")
    going = {each["id"] for group in theirs for each in group["remove"] or ()}

    told = history.backstay.json("forget", "--keep-last", "1")

    assert {each["id"] for group in told for each in group["remove"] or ()} == going
    assert {each["id"] for each in history.restic_json("snapshots")}.isdisjoint(going)
    assert history.backstay.run("forget").returncode == 1


def test_forget_with_prune_gives_the_space_back_later(history: Local, source: Path) -> None:
    first, second = (each["id"] for each in history.restic_json("snapshots"))

    history.backstay("forget", first, "--prune", "--delete-delay", "0s")
    history.backstay("prune", "--delete-delay", "0s", "--max-unused", "0%")

    assert [each["id"] for each in history.restic_json("snapshots")] == [second]
    assert "no errors were found" in history.restic("check", "--read-data")


def test_a_damaged_repository_fails_the_check_says_who_is_hurt_and_is_repaired(history: Local) -> None:
    pack = max((history.path / "data").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = bytearray(pack.read_bytes())
    content[1000] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)

    done = history.backstay.run("check", "--read-data")
    broken = json.loads(history.backstay.run("check", "--read-data", "--json").stdout.splitlines()[-1])["broken_packs"]
    history.backstay("repair", "index")
    history.backstay("repair", "packs", *broken)
    history.backstay("repair", "snapshots", "--forget")

    assert done.returncode == 1
    assert b"photo.jpg" in done.stdout
    assert broken == [pack.name]
    assert "no errors were found" in history.restic("check", "--read-data")
    assert len(history.restic_json("snapshots")) == 2


def test_keys_come_and_go_but_never_the_one_in_use(local: Local, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other password\n")
    (tmp_path / "third").write_text("third password\n")
    first = local.backstay.json("key", "list")[0]["id"]

    added = local.backstay.json("key", "add", "--new-password-file", str(tmp_path / "other"), "--user", "ann")["id"]
    refused = local.backstay.run("key", "remove", first[:12])
    by_other = ("--password-file", str(tmp_path / "other"))
    local.backstay(*by_other, "key", "remove", first[:12])
    changed = local.backstay.json(*by_other, "key", "passwd", "--new-password-file", str(tmp_path / "third"))

    assert refused.returncode == 1
    assert changed["removed"] == added
    assert local.backstay.run("snapshots").returncode == 12
    listed = json.loads(local.restic("-p", str(tmp_path / "third"), "key", "list", "--json"))
    assert [(key["userName"], key["hostName"]) for key in listed] == [(username(), socket.gethostname())]
    assert [(key["id"], key["current"]) for key in listed] == [(changed["id"], True)]
    last = local.backstay.run("-p", str(tmp_path / "third"), "key", "remove", changed["id"])
    assert last.returncode == 1


def test_copies_keep_their_trees_and_are_not_made_twice(
    history: Local, backstay: Backstay, referee: Restic, repository: Repository, tmp_path: Path
) -> None:
    source = {"RESTIC_FROM_REPOSITORY": str(history.path), "RESTIC_FROM_PASSWORD": PASSWORD}

    backstay("copy", **source)
    again = backstay("copy", "--json", **source)
    (tmp_path / "password").write_text(PASSWORD)
    referee("copy", "--from-repo", str(history.path), "--from-password-file", str(tmp_path / "password"))

    originals = {each["id"]: each for each in history.restic_json("snapshots")}
    copies = referee.json("snapshots")
    assert sorted(copy["original"] for copy in copies) == sorted(originals), "neither program copied one twice"
    assert all(copy["tree"] == originals[copy["original"]]["tree"] for copy in copies)
    assert json.loads(again.splitlines()[-1])["snapshots_skipped"] == 2
    referee.check()


# --- under Object Lock -----------------------------------------------------------------------------------------------


def test_a_prune_under_object_lock_tells_what_is_kept_and_the_past_can_be_checked(
    backstay: Backstay, seaweed: Seaweed, location: S3Location, source: Path
) -> None:
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
    client = boto3.client("s3", endpoint_url=seaweed.endpoint, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="locked-cli", ObjectLockEnabledForBucket=True)
    backstay.environment["RESTIC_REPOSITORY"] = f"s3:{location.endpoint}/locked-cli/{location.prefix}"
    lock = ("--object-lock", "governance:2")
    backstay("init", *lock)
    backstay("backup", str(source), *lock)
    time.sleep(1.1)  # servers keep whole seconds
    then = datetime.now(UTC).isoformat()
    time.sleep(1.1)

    backstay("forget", "latest", *lock)
    told = backstay("prune", *lock, "--delete-delay", "0s")
    summary = backstay.json("prune", *lock)
    past = backstay.json("check", "--as-of", then)
    written = backstay.run("repair", "index", "--as-of", then)

    assert "deleted" not in told.replace("whoever deleted it", "")
    assert "hidden: " in told
    assert "kept by Object Lock, whoever deleted it: 2." in told
    assert summary["retained_bytes"] > 2 << 20
    assert datetime.fromisoformat(summary["retained_until"]) > datetime.now(UTC) + timedelta(days=1)
    assert summary["upload_integrity"] in ("CHECKSUM", "SIGNATURE", "MD5", "READ_BACK")
    assert (past["snapshots"], past["num_errors"]) == (1, 0)
    assert written.returncode == 1
    assert b"the past can only be read" in written.stderr


# --- how it ends -----------------------------------------------------------------------------------------------------


def test_it_ends_with_restics_exit_codes(local: Local, tmp_path: Path) -> None:
    def code(*arguments: str, **variables: str) -> int:
        return local.backstay.run(*arguments, **variables).returncode

    assert code("snapshots") == 0
    assert code("snapshots", RESTIC_REPOSITORY=str(tmp_path / "nothing")) == 10
    assert code("snapshots", RESTIC_PASSWORD="wrong") == 12
    assert code("snapshots", "--no-such-option") == 1
    assert code("ls", "abcdef") == 1
    assert code("init") == 1
    assert code("snapshots", RESTIC_REPOSITORY="") == 1


def test_it_waits_for_no_lock_unless_told_and_says_who_has_it(local: Local, source: Path) -> None:
    repository = Repository.open(LocalStore(local.path), PASSWORD)
    with repository.lock(exclusive=True, holder="somebody"):
        done = local.backstay.run("--json", "backup", str(source))
        listed = local.backstay.run("ls", "latest", "--no-lock")

    assert done.returncode == 11
    assert "somebody" in json.loads(done.stderr.splitlines()[-1])["message"]
    assert listed.returncode == 1, "there is no snapshot, but no lock either"
    assert b"lock" not in listed.stderr


def test_quiet_is_quiet_and_what_does_nothing_is_told(local: Local, source: Path, tmp_path: Path) -> None:
    local.backstay("backup", str(source))

    assert local.backstay("init", "-q", RESTIC_REPOSITORY=str(tmp_path / "new")) == ""
    assert local.backstay("forget", "-q", "--keep-last", "1") == ""
    assert "keep 1 snapshot:" in local.backstay("forget", "--keep-last", "1")
    assert "no effect on a repository in a directory" in local.backstay("snapshots", "--limit-download", "1")
    assert "upload_integrity" not in local.backstay.json("prune")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("dump", "latest", "/no/where"), "in snapshot {id}: there is no 'no'; 'backstay repo ls {id}'"),
        (("ls", "latest:/no/where"), "in snapshot {id}: there is no 'no'; 'backstay repo ls {id}'"),
        (("ls", "0123"), "no snapshot has an id that begins so; list them"),
        (("ls", "x" * 64), "an id has 64 hexadecimal digits"),
        (("cat", "blob", "0123"), "its whole id, which has 64 hexadecimal digits"),
        (("cat", "tree", "y" * 64), "its whole id, which has 64 hexadecimal digits"),
    ],
)
def test_what_is_not_there_is_told_in_words_of_the_command_line(
    local: Local, arguments: tuple[str, ...], told: str
) -> None:
    repository = Repository.open(LocalStore(local.path), PASSWORD)
    with repository.writer() as writer:
        tree = writer.save_files({"a": b"b"}, datetime.now(UTC))
        snapshot_id = writer.commit(Snapshot(time=datetime.now(UTC), tree=tree, paths=("/a",)))

    done = local.backstay.run(*arguments)

    assert done.returncode == 1
    assert told.format(id=snapshot_id[:8]) in done.stderr.decode()


def test_a_tree_may_be_named_by_a_snapshot(history: Local, source: Path) -> None:
    (found,) = history.restic_json("snapshots")[-1:]

    assert history.backstay("cat", "tree", "latest") == history.backstay("cat", "tree", found["tree"])
    assert '"orders.txt"' in history.backstay("cat", "tree", f"latest:{source}")


def test_a_reader_that_goes_away_is_no_traceback(history: Local) -> None:
    command = shlex.join(history.backstay.command("ls", "latest"))

    done = subprocess.run(
        ["bash", "-c", f"{command} | head -c 1; exit ${{PIPESTATUS[0]}}"],
        env=history.backstay.environment,
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert b"Traceback" not in done.stderr
