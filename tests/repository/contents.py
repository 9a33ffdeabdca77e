"""What a snapshot or a directory holds, in one form whoever read it: path -> type, mode, owner, content and the rest.

The independent reader gives it; here it is asked of the engine and of a file system, to be compared.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from backstay.repository import Node, Repository
from backstay.repository.format import tree

Contents = dict[bytes, dict[str, Any]]
_TYPES = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFBLK: "dev", stat.S_IFCHR: "chardev",
    stat.S_IFIFO: "fifo",
}  # fmt: skip


def linked(found: Contents) -> Contents:
    """With the first path of each hard-linked file in the place of numbers that mean something on one machine only."""
    first: dict[object, bytes] = {}
    for path in sorted(found):
        if (same := found[path].get("same file as")) is not None:
            found[path]["same file as"] = first.setdefault(same, path)
    return found


def digested(found: Contents) -> Contents:
    """With the length and the SHA-256 of a file in the place of its content."""
    for entry in found.values():
        if "content" in entry:
            content = entry["content"]
            entry["content"] = (len(content), hashlib.sha256(content).hexdigest())
    return found


def by_engine(repository: Repository, tree_id: str) -> Contents:
    """What the engine reads below a tree."""
    return linked({tree.name_bytes(path): _node(repository, node) for path, node in repository.walk(tree_id)})


def _node(repository: Repository, node: Node) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": node.type,
        "mode": node.unix_mode,
        "owner": (node.uid, node.gid),
        "mtime": node.mtime,
        "xattrs": dict(node.xattrs),
    }
    if node.type == "file":
        entry["content"] = b"".join(repository.read_file(node))
        if node.links > 1:
            entry["same file as"] = (node.device_id, node.inode)
    elif node.type == "symlink":
        entry["target"] = tree.name_bytes(node.linktarget)
    elif node.type in ("dev", "chardev"):
        entry["device"] = node.device
    return entry


def on_disk(root: Path) -> Contents:
    """What lies below a directory."""
    top = os.fsencode(root)
    found = {}
    for directory, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, top)] = _path(path)
    return linked(found)


def _path(path: bytes) -> dict[str, Any]:
    status = os.lstat(path)
    kind = _TYPES[stat.S_IFMT(status.st_mode)]
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        names = []
    entry: dict[str, Any] = {
        "type": kind,
        "mode": stat.S_IMODE(status.st_mode),
        "owner": (status.st_uid, status.st_gid),
        "mtime": status.st_mtime_ns,
        "xattrs": {name: os.getxattr(path, name, follow_symlinks=False) for name in names},
    }
    if kind == "file":
        entry["content"] = Path(os.fsdecode(path)).read_bytes()
        if status.st_nlink > 1:
            entry["same file as"] = (status.st_dev, status.st_ino)
    elif kind == "symlink":
        entry["target"] = os.readlink(path)
    elif kind in ("dev", "chardev"):
        entry["device"] = status.st_rdev
    return entry
