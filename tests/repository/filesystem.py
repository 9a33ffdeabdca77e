"""File trees with everything that a file system has, and a way to compare two of them."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import struct
from pathlib import Path
from typing import Any

MIB = 1 << 20


def noise(size: int, seed: int) -> bytes:
    """Bytes that do not compress and are the same each time."""
    return random.Random(seed).randbytes(size)


def text(size: int, seed: int) -> bytes:
    """Bytes that compress well, as a log does."""
    words = random.Random(seed)
    lines = []
    length = 0
    while length < size:
        line = b"%d request %d served in %d ms\n" % (words.randrange(10**9), words.randrange(500), words.randrange(90))
        lines.append(line)
        length += len(line)
    return b"".join(lines)[:size]


def make_tree(root: Path, *, privileged: bool | None = None) -> None:
    """Files large, small, empty, sparse, linked and oddly named; links, fifos, devices; modes, owners and times."""
    privileged = os.geteuid() == 0 if privileged is None else privileged
    root.mkdir(exist_ok=True)
    (root / "empty").touch()
    (root / "small.txt").write_bytes(b"hello\n")
    (root / "large.bin").write_bytes(noise(9 * MIB + 12345, 1))
    (root / "log").write_bytes(text(6 * MIB, 2))
    (root / "exactly-512KiB").write_bytes(noise(512 << 10, 3))
    (root / "sub" / "deep" / "er").mkdir(parents=True)
    (root / "sub" / "empty-directory").mkdir()
    (root / "sub" / "deep" / "er" / "copy-of-log").write_bytes(text(6 * MIB, 2))
    for number in range(40):
        (root / "sub" / f"file-{number}").write_bytes(text(2000 + number, number))
    odd = os.fsencode(root / "names")
    os.mkdir(odd)
    names = [
        b"\xff\xfe not utf-8", b'quote " and \\ backslash', b"tab\tnewline\n", b"<html> & more", b"-dash", b" space ",
        b"\x01\x7f control", b"n" * 255, b"%41", b"$HOME `id`", b"A", b"a", b"B", b"a.b", b"a-b", b"a0",
    ]  # fmt: skip
    names += [name.encode() for name in ("ümläut", "\u2028 separator", "\U0001f600", "a\u0301 combining", "\ufffd")]
    for number, name in enumerate(names):
        with open(os.path.join(odd, name), "wb") as file:
            file.write(b"%d" % number)
    sparse = root / "sparse.img"
    with sparse.open("wb") as file:
        file.seek(20 * MIB)
        file.write(b"in the middle")
        file.truncate(40 * MIB + 17)
    (root / "only-a-hole").touch()
    os.truncate(root / "only-a-hole", 8 * MIB)
    os.link(root / "large.bin", root / "sub" / "hard-link")
    os.link(root / "small.txt", root / "another-name")
    os.symlink("small.txt", root / "link")
    os.symlink("/nowhere/at all", root / "dangling")
    os.symlink(b"\xff\xfe", os.fsencode(root / "link-to-bytes"))
    os.mkfifo(root / "fifo", 0o640)
    try:
        os.setxattr(root / "small.txt", "user.backstay", b"\x00\x01value")
        os.setxattr(root / "sub", "user.on-a-directory", b"yes")
    except OSError:
        pass
    if privileged:
        os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(root / "block", 0o660 | stat.S_IFBLK, os.makedev(7, 42))
        os.chown(root / "log", 1234, 5678)
        os.chown(root / "link", 4321, 8765, follow_symlinks=False)
        os.chown(root / "sub", 65534, 65534)
        (root / "set-uid").write_bytes(b"#!/bin/sh\n")
        os.chown(root / "set-uid", 1000, 1000)
        (root / "set-uid").chmod(0o4755)
        (root / "sub" / "empty-directory").chmod(0o2775)
    (root / "secret").write_bytes(b"s")
    (root / "secret").chmod(0o000 if privileged else 0o400)
    (root / "executable").write_bytes(b"#!/bin/sh\n")
    (root / "executable").chmod(0o755)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    (root / "read-only").mkdir()
    (root / "read-only" / "inside").write_bytes(b"i")
    (root / "read-only").chmod(0o555)
    os.utime(root / "small.txt", ns=(1, 1_000_000_001))
    os.utime(root / "log", ns=(0, -86_400_000_000_001))
    os.utime(root / "link", ns=(5, 123_456_789_012_345_678), follow_symlinks=False)
    os.utime(root / "sub" / "deep", ns=(7, 987_654_321_000_000_000))
    os.utime(root / "sub", ns=(7, 987_654_321_123_000_000))
    os.utime(root, ns=(7, 987_654_321_123_456_000))


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An access control list as the kernel holds it: tag, permissions and id of each entry, in the kernel's order."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


_NOBODY = 0xFFFFFFFF  # the id of entries that have none
ACCESS_ACL = acl((1, 6, _NOBODY), (2, 4, 1234), (4, 4, _NOBODY), (8, 7, 5678), (16, 7, _NOBODY), (32, 0, _NOBODY))
DEFAULT_ACL = acl((1, 7, _NOBODY), (2, 5, 1234), (4, 5, _NOBODY), (16, 5, _NOBODY), (32, 0, _NOBODY))
ODD_NAMES = [
    b"\\", b'"', b"'", b"\n", b"\r", b"\t", b"\\x41", b"\\u0041", b"\\n", b"...", b" ", b"\x7f", b"\x01", b"~", b"*",
    b"?", b"[", b"\x80", b"\xff" * 255, b"\n" * 255, b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xe2\x82",
    b"\xef\xbf\xbd", b"\xe2\x80\xa8", b"\xc2\x85", b"\xc2\xa0", b"\xc2\xad", b"\xf0\x9f\x98\x80", b"\xf3\xa0\x80\x81",
    b"\xef\xbb\xbf", b"\xee\x80\x80", b"\xf0\xb0\x80\x80",
]  # fmt: skip


def make_odd_tree(root: Path) -> None:
    """What few trees hold, and a backup must bring back all the same. Needs privilege and extended attributes."""
    top = os.fsencode(root)
    for directory in ("acl", "default-acl/below", "xattr", "one", "two", "time", "mode", "owner", "names", "empty"):
        (root / directory).mkdir(parents=True)
    (root / "acl" / "file").write_bytes(b"a")
    os.setxattr(root / "acl" / "file", "system.posix_acl_access", ACCESS_ACL)
    os.setxattr(root / "acl", "system.posix_acl_access", ACCESS_ACL)
    os.setxattr(root / "default-acl", "system.posix_acl_default", DEFAULT_ACL)
    (root / "default-acl" / "below" / "file").write_bytes(b"made before the default")
    attributes = {
        "user.empty": b"", "user.binary": bytes(range(256)), "user.long": b"v" * 3000, "user.<&>\u00fc": b"1",
        "trusted.backstay": b"1", "security.capability": bytes.fromhex("0100000202000000000000000000000000000000"),
    }  # fmt: skip
    for number, (name, value) in enumerate(attributes.items()):
        (root / "xattr" / str(number)).write_bytes(b"x")
        os.setxattr(root / "xattr" / str(number), name, value)
    os.symlink("nowhere", root / "xattr" / "link")
    os.setxattr(root / "xattr" / "link", "trusted.backstay", b"of the link", follow_symlinks=False)
    (root / "one" / "file").write_bytes(b"linked")
    os.symlink("nowhere", root / "one" / "link")
    os.mkfifo(root / "one" / "fifo", 0o640)
    os.mknod(root / "one" / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    for name in ("file", "link", "fifo", "device"):
        os.link(root / "one" / name, root / "two" / name, follow_symlinks=False)
    os.link(root / "one" / "file", root / "a-third-name")
    os.mknod(root / "block", 0o600 | stat.S_IFBLK, os.makedev(4095, 1048575))
    os.symlink("x" * 4095, root / "long-link")
    os.symlink(b'\xff/\n"\\', top + b"/raw-link")
    os.symlink("loop", root / "loop")
    for number, second in enumerate((-(2**31), -1, 0, 1, 2**31, 2**32, 9223372035)):
        (root / "time" / str(number)).touch()
        os.utime(root / "time" / str(number), ns=(second * 10**9 + 1, second * 10**9 + 123_456_789))
    for mode in (0o4755, 0o2755, 0o1755, 0o7777, 0o0000, 0o4000):
        (root / "mode" / f"{mode:o}").write_bytes(b"x")
        (root / "mode" / f"{mode:o}").chmod(mode)
        (root / "mode" / f"directory-{mode:o}").mkdir()
        (root / "mode" / f"directory-{mode:o}").chmod(mode)
    for owner in (1, 2**31, 2**32 - 2):
        (root / "owner" / str(owner)).write_bytes(b"x")
        os.chown(root / "owner" / str(owner), owner, 2**32 - 2)
        (root / "owner" / str(owner)).chmod(0o6755)
    for name in ODD_NAMES:
        with open(os.path.join(top, b"names", name), "wb") as file:
            file.write(name)
        os.mkdir(os.path.join(top, b"names", name[:250] + b".dir"))
    with (root / "sparse").open("wb") as sparse:
        sparse.truncate(20 * MIB)
        sparse.seek(12 * MIB)
        sparse.write(b"in the middle")


def describe(root: Path) -> dict[str, dict[str, Any]]:
    """All that a restore shall bring back, by path relative to `root`."""
    top = os.fsencode(root)
    found: dict[str, dict[str, Any]] = {}
    inodes: dict[tuple[int, int], str] = {}
    for path, directories, files in os.walk(top):
        for name in sorted(directories + files):
            whole = os.path.join(path, name)
            shown = os.path.relpath(whole, top).decode("utf-8", "surrogateescape")
            status = os.lstat(whole)
            entry: dict[str, Any] = {
                "mode": oct(status.st_mode), "owner": (status.st_uid, status.st_gid), "mtime": status.st_mtime_ns,
                "xattrs": {key: os.getxattr(whole, key, follow_symlinks=False)
                           for key in os.listxattr(whole, follow_symlinks=False)},
            }  # fmt: skip
            if stat.S_ISREG(status.st_mode):
                entry["size"] = status.st_size
                entry["sha256"] = _digest(whole)
                if status.st_nlink > 1:
                    entry["same file as"] = inodes.setdefault((status.st_dev, status.st_ino), shown)
            elif stat.S_ISLNK(status.st_mode):
                entry["target"] = os.readlink(whole)
            elif stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode):
                entry["device"] = status.st_rdev
            found[shown] = entry
    return found


def _digest(path: bytes) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


def allocated(path: Path) -> int:
    """Bytes that a file takes on its disk."""
    return path.stat().st_blocks * 512
