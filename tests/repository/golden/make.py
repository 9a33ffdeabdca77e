"""Writes the golden repositories: one by stock restic, one by our engine, of the same small directory.

usage (as root): python -m tests.repository.golden.make

They are kept so that a later version is tested against what an earlier one wrote. So they are made once for each change
of what is written, not for each test; whoever makes them anew keeps the old ones under another name. Beside them goes
what is in them, read from the file system.
"""

from __future__ import annotations

import gzip
import os
import pprint
import stat
import subprocess
import tarfile
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from backstay.repository import Repository, Snapshot, keys
from backstay.repository.stores.local import LocalStore
from tests.repository.contents import digested, on_disk
from tests.repository.filesystem import MIB, noise, text
from tests.repository.restic_binary import restic

HERE = Path(__file__).parent
PASSWORD, SECOND_PASSWORD = "golden", "also golden"
WRITERS = ("restic", "ours")


def make_directory(root: Path) -> None:
    """Everything a file system has, in a few kilobytes. Needs root, for devices and owners."""
    (root / "empty-directory").mkdir(parents=True)
    (root / "empty").touch()
    (root / "notes.txt").write_bytes(text(700, 1))
    (root / "large").write_bytes(noise(4096, 2) * 2304)  # 9 MiB: two blobs of next to nothing
    with (root / "sparse").open("wb") as file:
        file.truncate(3 * MIB + 1)
        file.seek(2 * MIB)
        file.write(b"in the middle")
    os.mkdir(os.fsencode(root) + b'/\xff\xfe \xc3\xbc "quoted" \\ <&> \t\x01\xe2\x80\xa8')
    os.link(root / "notes.txt", root / "same-as-notes")
    os.symlink("notes.txt", root / "link")
    os.symlink(b"/nowhere/\xff", os.fsencode(root / "link-to-bytes"))
    os.mkfifo(root / "fifo", 0o600)
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "block", 0o660 | stat.S_IFBLK, os.makedev(259, 65537))
    os.setxattr(root / "notes.txt", "user.golden", b"\0\xff value")
    os.setxattr(root / "empty-directory", "user.empty", b"")
    (root / "set-uid").write_bytes(b"#!/bin/sh\n")
    os.chown(root / "set-uid", 1000, 2000)
    (root / "set-uid").chmod(0o6755)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    for number, path in enumerate(sorted(root.iterdir())):
        os.utime(path, ns=(0, -86_400_000_000_001 + number * 100_000_000_123_456_789), follow_symlinks=False)


def change(root: Path) -> None:
    """What the second snapshot has in another way."""
    (root / "empty").write_bytes(b"no more\n")
    (root / "sticky").rmdir()


def by_restic(source: Path, place: Path, cache: Path) -> None:
    """Two snapshots and two passwords, as restic writes them."""
    environment = {
        **os.environ,
        "RESTIC_REPOSITORY": str(place),
        "RESTIC_PASSWORD": PASSWORD,
        "RESTIC_CACHE_DIR": str(cache),
    }

    def run(*arguments: str) -> None:
        subprocess.run([str(restic()), "-q", *arguments], env=environment, cwd=source, check=True)

    run("init")
    run("backup", ".", "--host", "golden", "--tag", "first")
    change(source)
    run("backup", ".", "--host", "golden", "--tag", "second")
    (cache / "password").write_text(SECOND_PASSWORD)
    run("key", "add", "--new-password-file", str(cache / "password"))


def by_us(source: Path, place: Path) -> None:
    """The same by our engine."""
    place.mkdir()
    store = LocalStore(place)
    Repository.init(store, PASSWORD)
    repository = Repository.open(store, PASSWORD)
    parent = None
    for tag in ("first", "second"):
        started = datetime.now(UTC)
        with repository.writer("golden") as writer:
            archive = writer.backup(str(source), parent=parent)
            root = Snapshot(
                time=started,
                tree=archive.tree,
                paths=("/golden",),
                hostname="golden",
                username="root",
                tags=(tag,),
                parent=parent.id if parent else "",
                program_version="backstay 0.1.0",
                summary=archive.summary(started, datetime.now(UTC)),
            )
            parent = repository.snapshot(writer.commit(root))
        if tag == "first":
            change(source)
    keys.add(store, SECOND_PASSWORD, repository.codec.key)


def pack(place: Path, archive: Path) -> None:
    """A repository's files as one small file."""
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        for path in sorted(found for found in place.rglob("*") if found.is_file()):
            entry = tarfile.TarInfo(str(path.relative_to(place)))
            entry.size = path.stat().st_size
            with path.open("rb") as content:
                tar.addfile(entry, content)


def main() -> None:
    """Make both, and say what is in them."""
    with tempfile.TemporaryDirectory(prefix="golden-") as name:
        work = Path(name)
        (work / "cache").mkdir()
        for writer in WRITERS:
            source, place = work / writer / "source", work / writer / "repository"
            make_directory(source)
            time.sleep(2.5)  # so that the second snapshot takes over what is unchanged
            first = digested(on_disk(source))
            if writer == "ours":
                by_us(source, place)
            else:
                by_restic(source, place, work / "cache")
            pack(place, HERE / f"{writer}.tar.gz")
            told = pprint.pformat([first, digested(on_disk(source))], width=110)
            (HERE / f"{writer}.expected").write_text(told + "\n")


if __name__ == "__main__":
    main()
