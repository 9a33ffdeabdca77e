"""What can go wrong with a repository, told so that a person can act on it.

Every error carries `reason`, a CamelCase word fit for a Kubernetes condition, and `permanent`, which says whether
trying the same thing again without a change by somebody is pointless. The message names what was being done, to what,
and what the reader can do next.
"""

# ruff: noqa: N818  (the names are what conditions say; "Error" at their end adds nothing)

from __future__ import annotations

from typing import ClassVar


class RepositoryError(Exception):
    """Base of all errors of this package.

    `reason`: CamelCase word for a condition's reason. `permanent`: a retry without intervention cannot succeed.
    """

    reason: ClassVar[str] = "RepositoryError"
    permanent: ClassVar[bool] = False


class AccessDenied(RepositoryError):
    """The server knows the bucket but not these credentials, or they lack a right."""

    reason = "AccessDenied"
    permanent = True


class BucketNotFound(RepositoryError):
    """The endpoint answers, but has no such bucket."""

    reason = "BucketNotFound"
    permanent = True


class Unreachable(RepositoryError):
    """No answer from the endpoint, or only answers that ask to come back later."""

    reason = "Unreachable"


class StoreRefused(RepositoryError):
    """The server answered with an error that is none of the well-known ones."""

    reason = "StoreRefused"
    permanent = True


class StoreFull(RepositoryError):
    """The place where the repository lies has no room left, or its quota is reached."""

    reason = "StoreFull"


class ObjectLockUnavailable(RepositoryError):
    """Object Lock was asked for, and the bucket cannot do it, or not in a way that a repository can live with."""

    reason = "ObjectLockUnavailable"
    permanent = True


class ObjectNotFound(RepositoryError):
    """A named object is not in the bucket."""

    reason = "ObjectNotFound"
    permanent = True


class WrongPassword(RepositoryError):
    """No key file of the repository opens with the password."""

    reason = "WrongPassword"
    permanent = True


class KeyRefused(RepositoryError):
    """No such key, or it must not be removed."""

    reason = "KeyRefused"
    permanent = True


class RepositoryNotFound(RepositoryError):
    """There is no repository under the bucket and prefix."""

    reason = "RepositoryNotFound"
    permanent = True


class RepositoryExists(RepositoryError):
    """There already is a repository under the bucket and prefix."""

    reason = "RepositoryExists"
    permanent = True


class UnsupportedRepository(RepositoryError):
    """The repository is of a format version that this engine does not write."""

    reason = "UnsupportedRepository"
    permanent = True


class Corrupted(RepositoryError):
    """Bytes read from the bucket are not those that were written; the message names the file or blob."""

    reason = "Corrupted"
    permanent = True


class RepositoryLocked(RepositoryError):
    """Another process holds an exclusive lock."""

    reason = "RepositoryLocked"


class LockLost(RepositoryError):
    """Our own lock is gone or could not be refreshed in time, so nothing may be committed."""

    reason = "LockLost"


class SnapshotNotFound(RepositoryError):
    """No snapshot of that id."""

    reason = "SnapshotNotFound"
    permanent = True


class ForgetRefused(RepositoryError):
    """A policy would remove all snapshots."""

    reason = "ForgetRefused"
    permanent = True


class NodeNotFound(RepositoryError):
    """No such path in a tree."""

    reason = "NodeNotFound"
    permanent = True


class SourceError(RepositoryError):
    """The directory to be backed up cannot be read."""

    reason = "SourceError"
    permanent = True


class TargetError(RepositoryError):
    """The directory to restore into cannot be written."""

    reason = "TargetError"
    permanent = True


class NoSpace(TargetError):
    """The file system that is restored into is full, or its quota is reached."""

    reason = "NoSpace"


class UnsafeName(RepositoryError):
    """A tree holds a name that could lead outside the directory it is restored into."""

    reason = "UnsafeName"
    permanent = True


class WorkerFailed(RepositoryError):
    """A process that worked for this one ended, or failed in a way that nobody foresaw."""

    reason = "WorkerFailed"


class InvalidPattern(RepositoryError):
    """A pattern of paths that cannot be understood."""

    reason = "InvalidPattern"
    permanent = True
