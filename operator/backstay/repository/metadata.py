"""Owners, modes, times and extended attributes, put back on what was restored.

A mover without privilege may not change owners, and no file system takes every attribute. What could not be put back is
counted by kind, so that a million files give one warning each kind and not a million.
"""

from __future__ import annotations

import os
import stat
import threading
from dataclasses import dataclass, field

from backstay.repository.tree import Node

SELINUX = "security.selinux"  # the label is the mount's and the node's to give, not the data's

_MESSAGES = {
    "owner": "entries keep the mover's user or group, because it may not change owners; they were meant for",
    "mode": "entries could not be given their mode",
    "time": "entries could not be given their modification time",
    "xattr": "entries lack an extended attribute that could not be set:",
    "device": "device nodes could not be made without privilege",
}


@dataclass
class _Loss:
    count: int
    path: bytes
    detail: str


@dataclass
class Losses:
    """Counts of what could not be put back. Safe to add to from several threads."""

    _found: dict[str, _Loss] = field(default_factory=dict)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, path: bytes, detail: str = "") -> None:
        """One more entry that lacks something."""
        with self._mutex:
            loss = self._found.setdefault(kind, _Loss(0, path, detail))
            loss.count += 1

    def told(self) -> list[tuple[bytes, str]]:
        """One warning for each kind, with the first path."""
        return [
            (loss.path, f"{loss.count} {_MESSAGES[kind]} {loss.detail}".rstrip()) for kind, loss in self._found.items()
        ]

    def beyond(self) -> int:
        """How many more losses there were than warnings told."""
        return sum(loss.count - 1 for loss in self._found.values())


def apply(descriptor: int | None, path: bytes, node: Node, losses: Losses) -> None:
    """Give an entry what its node says. `descriptor`: of the open file; without one, `path`, which is never followed.

    The mode comes after the owner, since a change of owner clears set-uid bits; times come last.
    """
    place: int | bytes = path if descriptor is None else descriptor
    status = os.lstat(path) if descriptor is None else os.fstat(descriptor)
    _apply_owner(descriptor, path, node, status, losses)
    for name, value in node.xattrs:
        if name == SELINUX:
            continue
        try:
            if descriptor is None:
                os.setxattr(path, name, value, follow_symlinks=False)
            else:
                os.setxattr(descriptor, name, value)
        except (OSError, ValueError):
            losses.add("xattr", path, name)
    if node.type != "symlink":
        wanted = node.unix_mode
        if wanted & 0o7000:
            status = os.lstat(path) if descriptor is None else os.fstat(descriptor)
        # os.chmod follows links, but of a link the type is symlink, and nobody else changes what we just made.
        if stat.S_IMODE(status.st_mode) != wanted:
            try:
                os.chmod(place, wanted)
            except OSError:
                losses.add("mode", path)
    try:
        if descriptor is None:
            os.utime(path, ns=(node.atime, node.mtime), follow_symlinks=False)
        else:
            os.utime(descriptor, ns=(node.atime, node.mtime))
    except PermissionError:
        # The file system made its own lost+found and the volume's root; when it did so is nobody's data.
        if status.st_uid == os.geteuid():
            losses.add("time", path)
    except (OSError, OverflowError):
        losses.add("time", path)


def _apply_owner(descriptor: int | None, path: bytes, node: Node, status: os.stat_result, losses: Losses) -> None:
    if (status.st_uid, status.st_gid) == (node.uid, node.gid):
        return
    user = node.uid if node.uid != status.st_uid else -1
    group = node.gid if node.gid != status.st_gid else -1
    try:
        _chown(descriptor, path, user, group)
    except (OSError, OverflowError):
        losses.add("owner", path, f"{node.uid}:{node.gid}")
        if user != -1 and group != -1:  # the group alone may be allowed
            try:
                _chown(descriptor, path, -1, group)
            except (OSError, OverflowError):
                return


def _chown(descriptor: int | None, path: bytes, user: int, group: int) -> None:
    if descriptor is None:
        os.chown(path, user, group, follow_symlinks=False)
    else:
        os.fchown(descriptor, user, group)
