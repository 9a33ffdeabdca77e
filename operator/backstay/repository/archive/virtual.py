"""Trees that exist on no disk: built from a mapping of paths to contents, as restore points are."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from backstay.repository.errors import UnsafeName
from backstay.repository.format import rfc3339, tree
from backstay.repository.format.blob import BlobType
from backstay.repository.format.chunker import MIN_SIZE, Chunker
from backstay.repository.format.tree import MODE_DIR, Node

DIRECTORY_MODE = MODE_DIR | 0o755
FILE_MODE = 0o600

SaveBlob = Callable[[BlobType, bytes], bytes]


@dataclass(frozen=True)
class Subtree:
    """A tree that is in the repository already, by its hexadecimal id, to be put somewhere in a virtual tree."""

    tree_id: str


@dataclass
class _Directory:
    files: dict[str, bytes] = field(default_factory=dict)
    directories: dict[str, _Directory | Subtree] = field(default_factory=dict)


def save(
    files: Mapping[str, bytes | Subtree], time: datetime, save_blob: SaveBlob, make_chunker: Callable[[], Chunker]
) -> str:
    """Store the tree; the root's hexadecimal id. Raises UnsafeName for paths that no directory could hold."""
    moment = rfc3339.to_ns(rfc3339.from_datetime(time))
    return _save(_arrange(files), moment, save_blob, make_chunker)


def _arrange(files: Mapping[str, bytes | Subtree]) -> _Directory:
    root = _Directory()
    for path, content in files.items():
        parts = path.split("/")
        if any(part in ("", ".", "..") or "\0" in part or len(part.encode()) > 255 for part in parts):
            raise UnsafeName(f"storing {path!r}: it is no relative path of plain names; correct the name")
        directory = root
        for part in parts[:-1]:
            found = directory.directories.setdefault(part, _Directory())
            if part in directory.files or isinstance(found, Subtree):
                raise UnsafeName(f"storing {path!r}: a part of its path is something else; correct the name")
            directory = found
        name = parts[-1]
        if name in directory.files or name in directory.directories:
            raise UnsafeName(f"storing {path!r}: the name is taken in its directory; correct the name")
        if isinstance(content, Subtree):
            directory.directories[name] = content
        else:
            directory.files[name] = content
    return root


def _save(directory: _Directory, time: int, save_blob: SaveBlob, make_chunker: Callable[[], Chunker]) -> str:
    nodes = []
    for name, content in directory.files.items():
        nodes.append(
            Node(
                name=name,
                type="file",
                mode=FILE_MODE,
                mtime=time,
                atime=time,
                ctime=time,
                size=len(content),
                content=_content(content, save_blob, make_chunker),
            )
        )
    for name, below in directory.directories.items():
        tree_id = below.tree_id if isinstance(below, Subtree) else _save(below, time, save_blob, make_chunker)
        nodes.append(
            Node(name=name, type="dir", mode=DIRECTORY_MODE, mtime=time, atime=time, ctime=time, subtree=tree_id)
        )
    return save_blob(BlobType.TREE, tree.encode(nodes)).hex()


def _content(content: bytes, save_blob: SaveBlob, make_chunker: Callable[[], Chunker]) -> tuple[str, ...]:
    if not content:
        return ()
    if len(content) <= MIN_SIZE:
        return (save_blob(BlobType.DATA, content).hex(),)
    chunks = make_chunker().cut(io.BytesIO(content).readinto)
    return tuple(save_blob(BlobType.DATA, chunk).hex() for chunk in chunks)
