"""The one door to S3: named objects in, named objects out, and errors that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class S3Location:
    """Where a repository lies. An empty `endpoint` means AWS; `prefix` is without slashes at its ends."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    force_path_style: bool = False


@dataclass(frozen=True)
class S3Credentials:
    """Keys of an S3 account; the secret parts stay out of the object's printed form."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


class Store(Protocol):
    """What the engine needs of a place for objects. Names are relative to the repository, such as `data/00/00ab...`."""

    def put(self, name: str, data: bytes | bytearray | memoryview, *, sha256: bytes | None = None) -> None: ...
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes: ...
    def list(self, prefix: str) -> Iterator[tuple[str, int]]: ...
    def delete(self, name: str) -> None: ...
    def exists(self, name: str) -> bool: ...


class S3Store:
    """Objects under one bucket and prefix. Safe to use from several threads."""

    def __init__(self, location: S3Location, credentials: S3Credentials | None, ca_file: str | None = None) -> None:
        """`credentials` None: the process's own identity. `ca_file`: certificates to trust, in PEM, beside none other."""
        self.location = location
        raise NotImplementedError

    def probe(self, *, write: bool = True) -> None:
        """Prove that the bucket can be used: write, read back, list and delete a small object (or list only)."""
        raise NotImplementedError

    def put(self, name: str, data: bytes | bytearray | memoryview, *, sha256: bytes | None = None) -> None:
        """Store an object. `sha256`: the digest of `data` when it is known already, which saves computing it."""
        raise NotImplementedError

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """An object's bytes, or `length` of them from `offset`. Raises ObjectNotFound."""
        raise NotImplementedError

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Names and sizes in bytes of the objects whose names begin with `prefix`, in the server's order."""
        raise NotImplementedError

    def delete(self, name: str) -> None:
        """Remove an object; that it is gone already is no error."""
        raise NotImplementedError

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        raise NotImplementedError
