"""A directory of a snapshot as a tar archive, written as it is read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from backstay.repository.format.tree import Node
from backstay.repository.queries.find import walk

if TYPE_CHECKING:
    from backstay.repository.repository import Repository

_KINDS = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "dev": tarfile.BLKTYPE,
    "chardev": tarfile.CHRTYPE,
    "fifo": tarfile.FIFOTYPE,
}


def write(repository: Repository, tree_id: str, path: str, stream: IO[bytes]) -> None:
    """Write what is in a tree. `path`: what stands before every name. Sockets are left out: tar has none."""
    with tarfile.open(
        fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for found in walk(repository, tree_id, path):
            if found.node.type in _KINDS:
                member = _member(found.path.lstrip("/"), found.node)
                if found.node.type == "file":
                    # `addfile` reads so much as the header says, so a node whose size is wrong is told, not written.
                    archive.addfile(member, _Content(repository.read_file(found.node), found.path, found.node.size))
                else:
                    archive.addfile(member)


def _member(path: str, node: Node) -> tarfile.TarInfo:
    import os

    member = tarfile.TarInfo(path)
    member.type = _KINDS[node.type]
    member.mode = node.unix_mode
    member.uid, member.gid = node.uid, node.gid
    member.uname, member.gname = node.user, node.group
    member.size = node.size if node.type == "file" else 0
    member.mtime = node.mtime / 1_000_000_000 if node.mtime % 1_000_000_000 else node.mtime // 1_000_000_000
    member.linkname = node.linktarget
    if node.type in ("dev", "chardev"):
        member.devmajor, member.devminor = os.major(node.device), os.minor(node.device)
    member.pax_headers = {
        f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in node.xattrs
    }
    return member


class _Content(io.RawIOBase):
    """A file's blobs as one stream of exactly the size that its node tells."""

    def __init__(self, blobs: Iterator[bytes], path: str, size: int) -> None:
        self._blobs = blobs
        self._path = path
        self._rest = size
        self._blob = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, less only at the end."""
        from backstay.repository.errors import Corrupted

        parts = []
        while size > 0:
            if not self._blob:
                blob = next(self._blobs, None)
                if blob is None:
                    break
                self._blob = memoryview(blob)
                continue
            parts.append(self._blob[:size])
            size -= len(parts[-1])
            self._rest -= len(parts[-1])
            self._blob = self._blob[len(parts[-1]) :]
        if size > 0 and self._rest > 0:
            raise Corrupted(f"dumping {self._path!r}: its blobs hold {self._rest} bytes less than its node says")
        return b"".join(parts)
