"""Exit codes, which are restic's: scripts that watch over restic understand them."""

from __future__ import annotations

from backstay.repository.errors import (
    LockLost,
    RepositoryError,
    RepositoryLocked,
    RepositoryNotFound,
    WrongPassword,
)

OK = 0
ERROR = 1
INCOMPLETE = 3  # a snapshot was written, but some of the source could not be read; or not all could be removed
NO_REPOSITORY = 10
LOCKED = 11
WRONG_PASSWORD = 12
INTERRUPTED = 130


def of(error: RepositoryError) -> int:
    """The exit code for what went wrong."""
    if isinstance(error, RepositoryNotFound):
        return NO_REPOSITORY
    if isinstance(error, RepositoryLocked | LockLost):
        return LOCKED
    if isinstance(error, WrongPassword):
        return WRONG_PASSWORD
    return ERROR
