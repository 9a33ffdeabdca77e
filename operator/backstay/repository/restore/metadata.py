"""Owners, modes, times and extended attributes, put back on what was restored.

A mover without privilege may not change owners, and no file system takes every attribute. What could not be put back is
counted by kind, so that a million files give one warning each kind and not a million.

Everything goes through descriptors, never through a path: whoever can write into the target could turn a path elsewhere
between two calls.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from backstay.repository.format import rfc3339
from backstay.repository.format.tree import Node, NodeJSON, unix_mode

SELINUX = "security.selinux"  # the label is the mount's and the node's to give, not the data's

_MESSAGES = {
    "owner": "entries keep this process's user or group, because it may not change owners; they were meant for",
    "mode": "entries could not be given their mode",
    "time": "entries could not be given their modification time",
    "xattr": "entries lack an extended attribute that could not be set:",
    "device": "device nodes could not be made without privilege",
}


class Attributes(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an entry is given besides its content. `mode`: as chmod takes it; times: nanoseconds since 1970, UTC."""

    mode: int
    uid: int
    gid: int
    mtime: int
    atime: int
    xattrs: list[tuple[str, bytes]]


_NO_ID = 1 << 40  # no user or group: chown refuses it
_FIRST, _LAST = -(1 << 63), (1 << 64) - 1  # years 1677 and 2554: what fits into a message
_NONE: list[tuple[str, bytes]] = []


def of(node: Node) -> Attributes:
    """The attributes that a node tells."""
    return Attributes(node.unix_mode, node.uid, node.gid, node.mtime, node.atime, list(node.xattrs))


def of_raw(node: NodeJSON) -> Attributes:
    """The attributes that a node tells. Raises ValueError when a time is none."""
    mtime = rfc3339.to_ns(node.mtime)
    atime = mtime if node.atime == node.mtime else rfc3339.to_ns(node.atime)
    xattrs = node.extended_attributes
    mode = node.mode if 0 <= node.mode <= 0o777 else unix_mode(node.mode)
    return Attributes(
        mode,
        node.uid if 0 <= node.uid < _NO_ID else _NO_ID,
        node.gid if 0 <= node.gid < _NO_ID else _NO_ID,
        min(max(mtime, _FIRST), _LAST),
        min(max(atime, _FIRST), _LAST),
        [(x.name, x.value or b"") for x in xattrs] if xattrs else _NONE,
    )


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

    def add(self, kind: str, path: bytes, detail: str = "", count: int = 1) -> None:
        """One more entry that lacks something."""
        with self._mutex:
            loss = self._found.setdefault(kind, _Loss(0, path, detail))
            loss.count += count

    def take(self) -> Iterable[tuple[str, int, bytes, str]]:
        """All that was counted, for another's `add`; nothing is left."""
        with self._mutex:
            found, self._found = self._found, {}
        return [(kind, loss.count, loss.path, loss.detail) for kind, loss in found.items()]

    def told(self) -> list[tuple[bytes, str]]:
        """One warning for each kind, with the first path."""
        return [
            (loss.path, f"{loss.count} {_MESSAGES[kind]} {loss.detail}".rstrip()) for kind, loss in self._found.items()
        ]

    def beyond(self) -> int:
        """How many more losses there were than warnings told."""
        return sum(loss.count - 1 for loss in self._found.values())


def apply(place: int | bytes, wanted: Attributes, losses: Losses, path: bytes, *, link: bool = False) -> None:
    """Give an entry what it lacks of `wanted`; one that lacks nothing is not touched.

    `place`: a descriptor, or a path that leads to just this entry. `link`: it is a symlink, which has no mode.
    `path` is only for telling. The mode comes after the owner, since a change of owner clears set-uid bits, and after
    the attributes, since an ACL is one and changes the mode; times come last.
    """
    status = os.stat(place)
    changed = _apply_owner(place, wanted, status, losses, path)
    changed |= _apply_xattrs(place, wanted, losses, path)
    if not link:
        mode = stat.S_IMODE(os.stat(place).st_mode) if changed else stat.S_IMODE(status.st_mode)
        if mode != wanted.mode:
            try:
                os.chmod(place, wanted.mode)
            except OSError:
                losses.add("mode", path)
    if changed or status.st_mtime_ns != wanted.mtime:  # looking changes the other time, so it proves nothing
        apply_times(place, wanted, losses, path, status)


def apply_times(place: int | bytes, wanted: Attributes, losses: Losses, path: bytes, status: os.stat_result) -> None:
    """Set both times. `status`: tells the entry's owner."""
    try:
        os.utime(place, ns=(wanted.atime, wanted.mtime))
    except PermissionError:
        # The file system made its own lost+found and the volume's root; when it did so is nobody's data.
        if status.st_uid == os.geteuid():
            losses.add("time", path)
    except (OSError, OverflowError):
        losses.add("time", path)


def apply_to_new(
    descriptor: int, wanted: Attributes, owner: tuple[int, int], mode: int, losses: Losses, path: bytes
) -> None:
    """As `apply`, to a file that was just made for `owner` with `mode`, which is known and need not be asked."""
    if (wanted.uid, wanted.gid) != owner or wanted.xattrs or wanted.mode & 0o7000:
        apply(descriptor, wanted, losses, path)
        return
    if wanted.mode != mode:
        try:
            os.chmod(descriptor, wanted.mode)
        except OSError:
            losses.add("mode", path)
    try:
        os.utime(descriptor, ns=(wanted.atime, wanted.mtime))
    except (OSError, OverflowError):
        losses.add("time", path)


def _apply_xattrs(place: int | bytes, wanted: Attributes, losses: Losses, path: bytes) -> bool:
    """Set the attributes that differ, remove those that the entry should not have; whether anything was done."""
    try:
        present = os.listxattr(place)
    except OSError:
        present = []
    if not present and not wanted.xattrs:
        return False
    changed = False
    names = {name for name, _ in wanted.xattrs}
    for name in present:
        if name not in names and not name.startswith("security."):
            with suppress(OSError):
                os.removexattr(place, name)
                changed = True
    for name, value in wanted.xattrs:
        if name == SELINUX:
            continue
        try:
            if name in present and os.getxattr(place, name) == value:
                continue
            os.setxattr(place, name, value)
            changed = True
        except (OSError, ValueError):
            losses.add("xattr", path, name)
    return changed


def _apply_owner(place: int | bytes, wanted: Attributes, status: os.stat_result, losses: Losses, path: bytes) -> bool:
    if (status.st_uid, status.st_gid) == (wanted.uid, wanted.gid):
        return False
    user = wanted.uid if wanted.uid != status.st_uid else -1
    group = wanted.gid if wanted.gid != status.st_gid else -1
    try:
        os.chown(place, user, group)
    except (OSError, OverflowError):
        losses.add("owner", path, f"{wanted.uid}:{wanted.gid}")
        if user != -1 and group != -1:  # the group alone may be allowed
            try:
                os.chown(place, -1, group)
            except (OSError, OverflowError):
                return False
    return True
