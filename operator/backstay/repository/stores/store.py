"""What the engine needs of a place for objects, whatever the place is.

Names are relative to the repository, such as `data/00/00ab...`; their directories are part of restic's format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class Store(Protocol):
    """Named objects. Each method is safe to use from several threads.

    All raise the errors of `errors`: ObjectNotFound for what is not there, AccessDenied, Unreachable, and so on.
    """

    def put(self, name: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        """Store an object, whole or not at all, replacing one of that name.

        `sha256`: the digest of `data` when it is known already, which saves computing it.
        """

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """An object's bytes, or `length` of them from `offset`. Raises ObjectNotFound."""

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Names and sizes in bytes of the objects whose names begin with `prefix`."""

    def delete(self, name: str) -> None:
        """Remove an object; that it is gone already is no error."""

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
