"""A repository in a directory, laid out as restic's local backend does: for tests, disks that travel, and air gaps.

A file has its name only when all of its bytes are on the disk: it is written under another name, synced and renamed,
and the directory is synced too. What a crash leaves is therefore at most a file `<name>-tmp-<random>`, which neither
we nor restic take for an object.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backstay.repository.errors import (
    AccessDenied,
    Corrupted,
    ObjectNotFound,
    RepositoryError,
    RepositoryNotFound,
    StoreFull,
    StoreRefused,
    Unreachable,
)
from backstay.repository.stores.store import Buffer

_TEMPORARY = "-tmp-"  # as restic marks a file that is not whole yet
_WRITE_SIZE = 8 << 20  # bytes handed to the kernel at once
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_BROKEN = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENXIO, errno.ENODEV}
#: What file systems answer that know no modes or no syncing, such as some on the network.
_UNSUPPORTED = {errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EROFS}


@dataclass(frozen=True)
class LocalLocation:
    """The directory in which a repository lies."""

    path: str


class LocalStore:
    """Objects as files under one directory. Safe to use from several threads and processes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Nothing is touched yet. The directory itself is made when a repository begins in it."""
        self.location = LocalLocation(os.fspath(path))
        self._root = Path(path)

    # --- the five requests ----------------------------------------------------------------------------------------

    def put(self, name: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        """Store an object, whole or not at all. `sha256` is not needed here."""
        path = self._path(name)
        beside = path.with_name(f"{path.name}{_TEMPORARY}{secrets.token_hex(6)}")
        try:
            directory_mode, file_mode = self._modes()
            try:
                file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, file_mode)
            except FileNotFoundError:
                self._make_directory(path.parent, directory_mode, first=name.startswith("keys/"))
                file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, file_mode)
            try:
                try:
                    _write(file, data)
                    with _where_supported():
                        os.fchmod(file, file_mode & ~0o222)
                    with _where_supported():
                        os.fsync(file)
                finally:
                    os.close(file)
                beside.rename(path)
            except BaseException:
                with suppress(OSError):
                    beside.unlink()
                raise
            _sync(path.parent)
        except OSError as error:
            raise self._told(f"writing {name} to", error) from error

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """An object's bytes, or `length` of them from `offset`. Raises ObjectNotFound."""
        if length is not None and length <= 0:
            return b""
        try:
            with self._path(name).open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if offset and offset >= size:
                    raise Corrupted(
                        f"reading {name} from {self._root}: it is shorter than where the reading should begin"
                    )
                wanted = size - offset if length is None else length
                if offset + wanted > size:  # before memory is taken for bytes that are not there
                    raise self._short(name, wanted, offset, size - offset)
                file.seek(offset)
                content = file.read(wanted)
                while len(content) < wanted:  # one read gives 2 GiB at most
                    more = file.read(wanted - len(content))
                    if not more:
                        raise self._short(name, wanted, offset, len(content))
                    content += more
                return content
        except OSError as error:
            raise self._told(f"reading {name} from", error) from error

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Names and sizes in bytes of the objects whose names begin with `prefix`, in the order of their names.

        Raises RepositoryNotFound when the directory is not there: an unmounted disk is no empty repository.
        """
        try:
            if not self._root.is_dir():
                raise self._missing(f"listing {prefix or 'objects'} in")
            yield from self._below(prefix.rpartition("/")[0], prefix)
        except OSError as error:
            raise self._told(f"listing {prefix or 'objects'} in", error) from error

    def delete(self, name: str) -> None:
        """Remove an object; that it is gone already is no error."""
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._told(f"deleting {name} from", error) from error

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        try:
            self._path(name).stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._told(f"looking for {name} in", error) from error
        return True

    # --- files and directories ------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in name:
            raise StoreRefused(f"using {name!r} in {self._root}: this is no name of an object")
        return self._root.joinpath(*parts)

    def _modes(self) -> tuple[int, int]:
        """Modes of new directories and files, which restic too takes from who may read the config."""
        try:
            shared = bool((self._root / "config").stat().st_mode & 0o040)
        except OSError:
            shared = False
        return (0o770, 0o660) if shared else (0o700, 0o600)

    def _make_directory(self, directory: Path, mode: int, *, first: bool) -> None:
        """Make a directory of the layout, and the repository's own only for the `first` object of one, its key.

        Otherwise a disk that is unmounted while work goes on would be continued in the directory beneath it.
        """
        if not first and not self._root.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._root))
        missing = []
        while not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        for made in reversed(missing):
            with suppress(FileExistsError):  # another thread was quicker
                made.mkdir(mode)
            _sync(made.parent)

    def _below(self, directory: str, prefix: str) -> Iterator[tuple[str, int]]:
        try:
            with os.scandir(self._root / directory) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        for entry in found:
            name = f"{directory}/{entry.name}" if directory else entry.name
            if entry.is_dir(follow_symlinks=False):
                if name.startswith(prefix) or f"{name}/".startswith(prefix):
                    yield from self._below(name, prefix)
            elif name.startswith(prefix) and _TEMPORARY not in entry.name:
                with suppress(FileNotFoundError):  # deleted since the directory was read
                    yield name, entry.stat().st_size

    # --- what went wrong ------------------------------------------------------------------------------------------

    def _short(self, name: str, wanted: int, offset: int, there: int) -> Corrupted:
        return Corrupted(
            f"reading {name} from {self._root}: {wanted} bytes wanted at {offset}, only {max(there, 0)} there"
        )

    def _missing(self, doing: str) -> RepositoryNotFound:
        return RepositoryNotFound(
            f"{doing} {self._root}: there is no such directory; correct the path, mount the disk or create a repository"
        )

    def _told(self, doing: str, error: OSError) -> RepositoryError:
        told = f"{doing} {self._root}: {error.strerror or error}"
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            if not self._root.is_dir():
                return self._missing(doing)
            return ObjectNotFound(f"{doing} {self._root}: there is no such object")
        if error.errno in _DENIED:
            return AccessDenied(f"{told}; give this user the right to read and write there")
        if error.errno in _FULL:
            return StoreFull(f"{told}; make room there, or remove snapshots and prune")
        if error.errno in _BROKEN:
            return Unreachable(f"{told}; check the disk or the network file system")
        return StoreRefused(f"{told}; check that this is a directory for a repository")


class _where_supported(suppress):  # noqa: N801  (reads as a word in a `with`)
    """Passes over what this file system does not know, and over nothing else."""

    def __init__(self) -> None:
        super().__init__(OSError)

    def __exit__(self, kind, error, traceback):  # type: ignore[no-untyped-def]
        return isinstance(error, OSError) and error.errno in _UNSUPPORTED


def _write(file: int, data: Buffer) -> None:
    rest = memoryview(data).cast("B") if len(data) else memoryview(b"")
    while rest:
        rest = rest[os.write(file, rest[:_WRITE_SIZE]) :]


def _sync(directory: Path) -> None:
    """Make the names in a directory outlive a power failure."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _where_supported():
            os.fsync(handle)
    finally:
        os.close(handle)
