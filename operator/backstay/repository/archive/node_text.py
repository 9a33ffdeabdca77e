"""Nodes as text, for the entries of one directory after the other."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable

from backstay.repository.format import rfc3339, tree
from backstay.repository.restore.metadata import SELINUX

KIND = 0o170000  # of a st_mode
_UTF8 = sys.getfilesystemencoding().lower().replace("-", "") == "utf8"
_SAFE = re.compile(r"[ !#-%'-;=?-\[\]-~]*")  # what neither Go's quoting nor JSON changes


class NodeText:
    """Writes nodes as restic does, byte for byte, without making objects of them first.

    `descriptor`: of the directory whose entries are described; `path`: from the root, without a slash at its ends;
    `device`: its file system, as the kernel numbers it, and `device_number` as we do.
    """

    def __init__(self, warn: Callable[[str, str], None]) -> None:
        """`warn` is told the name of an entry and what of it could not be read."""
        self.descriptor = -1
        self.path = b""
        self.device = self.device_number = 0
        self._warn = warn
        self._attributed = True  # whether the file system has extended attributes
        self._modes: dict[int, str] = {}

    def whole(self, name: str) -> bytes:
        """The path of an entry from the root, with a slash in front; of the directory itself without a name."""
        path = b"/" + self.path
        return path.rstrip(b"/") + b"/" + tree.name_bytes(name) if name else path

    def head(self, name: str, status: os.stat_result) -> str:
        """What all nodes begin with."""
        mode = self._modes.get(status.st_mode)
        if mode is None:
            bits = tree.go_mode(status.st_mode)
            mode = f'"type":"{tree.type_name(status.st_mode)}"' + (f',"mode":{bits}' if bits else "")
            self._modes[status.st_mode] = mode
        shown = f'"{name}"' if _SAFE.fullmatch(name) else tree.json_string(tree.quote(name))
        mtime = rfc3339.from_ns(status.st_mtime_ns)
        ctime = mtime if status.st_ctime_ns == status.st_mtime_ns else rfc3339.from_ns(status.st_ctime_ns)
        inode = f',"inode":{status.st_ino}' if status.st_ino else ""
        device = ""
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            device = f',"device_id":{self.number(name, status)}'
        return (
            f'{{"name":{shown},{mode},"mtime":"{mtime}","atime":"{mtime}","ctime":"{ctime}"'
            f',"uid":{status.st_uid},"gid":{status.st_gid}{inode}{device}'
        )

    def file_head(self, name: str, status: os.stat_result, size: int) -> str:
        """A file's node up to its attributes, which its content follows."""
        member = f',"size":{size}' if size else ""
        return f'{self.head(name, status)}{member},"links":{status.st_nlink}'

    def directory(self, name: str, status: os.stat_result, subtree: str, place: int | bytes | None = None) -> str:
        """A directory that is stored as the tree `subtree`. `place`: where its attributes are, if not at its name."""
        attributes = self.attributes(self._beside(name) if place is None else place, name)
        return f'{self.head(name, status)}{attributes},"content":null,"subtree":"{subtree}"}}'

    def special(self, name: str, status: os.stat_result) -> str:
        """A symlink, fifo or device."""
        kind = stat.S_IFMT(status.st_mode)
        members = ""
        if kind != stat.S_IFIFO and status.st_nlink:
            members = f',"links":{status.st_nlink}'
        if kind == stat.S_IFLNK:
            target = os.readlink(tree.name_bytes(name), dir_fd=self.descriptor)
            members += tree.linktarget_fields(tree.name_text(target))
        members += self.attributes(self._beside(name), name)
        if kind in (stat.S_IFBLK, stat.S_IFCHR) and status.st_rdev:
            members += f',"device":{status.st_rdev}'
        return f'{self.head(name, status)}{members},"content":null}}'

    def number(self, name: str, status: os.stat_result) -> int:
        """Our number of an entry's file system."""
        if status.st_dev == self.device:
            return self.device_number
        return device_number(self.whole(name))  # a file that something else is mounted on

    def _beside(self, name: str) -> bytes:
        """A path for what is not opened; only its last name may be a link, which is not to be followed."""
        return b"/proc/self/fd/%d/%s" % (self.descriptor, tree.name_bytes(name))

    def attributes(self, place: int | bytes, name: str) -> str:
        """The extended attributes at `place`: a descriptor, or a path whose last name is not followed."""
        if not self._attributed:
            return ""
        follow = isinstance(place, int)
        try:
            names = os.listxattr(place, follow_symlinks=follow)
            if not names:
                return ""
            found = [(key, os.getxattr(place, key, follow_symlinks=follow)) for key in sorted(names) if key != SELINUX]
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                self._attributed = False
            elif error.errno not in (errno.ENOENT, errno.ENODATA, errno.EPERM):  # gone since; a kind that has none
                self._warn(name, f"its extended attributes cannot be read: {error.strerror}")
            return ""
        return tree.xattr_fields(found)


def content_member(ids: list[str]) -> str:
    """The member of a file's content, with a leading comma."""
    return ',"content":["' + '","'.join(ids) + '"]' if ids else ',"content":[]'


def device_number(path: bytes) -> int:
    """Our number of a file system that is mounted at `path`: the kernel's differ from mount to mount."""
    return zlib.crc32(path) | 1 << 32


def quoted(name: str) -> str:
    """As tree.quote, quick for most names."""
    return name if _SAFE.fullmatch(name) else tree.quote(name)


def on_disk(name: str) -> str | bytes:
    """A name as the system calls take it, whatever the locale."""
    return name if _UTF8 else tree.name_bytes(name)


def from_disk(name: str) -> str:
    """A name that os.scandir gave, as trees hold it."""
    return name if _UTF8 else tree.name_text(os.fsencode(name))
