"""What a scanner is told, what it tells, and where its blobs go: between threads or processes the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from backstay.repository.format.blob import BlobType

Exclude = Callable[[bytes, bool], bool]


class Sink(Protocol):
    """Where blobs go."""

    def known(self, kind: BlobType, ids: bytes) -> bytes:
        """For each of the ids in one string 1 when the blob is stored already, or on its way, else 0."""

    def save(self, kind: BlobType, contents: Sequence[bytes]) -> list[bytes]:
        """Store blobs unless they are known; their ids."""

    def save_compressed(self, kind: BlobType, blob_id: bytes, content: bytes, plain_length: int) -> None:
        """Store a blob that is compressed already, unless it is known."""


@dataclass(frozen=True)
class Settings:
    """What holds for a whole walk.

    `parent_time`: ns; files with later times are read. `exclude`: says of a path (from the root, with a leading slash)
    and whether it is a directory if it is left out. `device`: the root's file system, as the kernel numbers it, and
    `device_number` as we do.
    """

    root: bytes
    device: int
    device_number: int = 1
    parent_time: int = 0
    one_file_system: bool = False
    exclude: Exclude | None = None


class Task(msgspec.Struct, tag=True, array_like=True, kw_only=True):
    """One directory to work on.

    `path`: from the root, without a slash at its ends, empty for the root. `device` and `device_number`: the file
    system of the directory above, as the kernel numbers it and as we do. `before`: the parent's tree as it is stored,
    with its id and plain length. `subtrees`: tree ids of what lies below by name, empty for what is gone; None while
    nobody has asked. `trusted`: whether it is likely that the repository has what the parent's tree names.
    """

    path: bytes
    device: int
    device_number: int
    before: bytes = b""
    before_id: bytes = b""
    before_length: int = 0
    subtrees: dict[bytes, bytes] | None = None
    trusted: bool = True


class Below(msgspec.Struct, tag=True, array_like=True, kw_only=True):
    """Subdirectories that must come first: their names, and the ids of the parent's trees of them (or nothing)."""

    names: list[bytes]
    before: list[bytes]
    device: int
    device_number: int


class Done(msgspec.Struct, tag=True, array_like=True, kw_only=True):
    """A directory that is stored. `tree_id` is empty when there is none any more. `size` in bytes.

    `reused`: ids in one string of the blobs that must be in the repository for this to be true; if one is not, the
    directory must be done again.
    """

    tree_id: bytes = b""
    files: int = 0
    size: int = 0
    new: int = 0
    changed: int = 0
    unmodified: int = 0
    changed_while_read: int = 0
    unmodified_directory: bool = False
    reused: bytes = b""
    had_parent: bool = False
    warnings: list[tuple[bytes, str]] = []
    warning_count: int = 0
    notes: list[tuple[bytes, str]] = []
