"""restic's repository format, version 2, on S3, written natively.

Stock `restic` with the password reads everything that this package writes, and the reverse. It knows nothing of
Kubernetes. `Repository` is the way in; `S3Store` is where the objects lie; errors are told in `errors`.
"""

from backstay.repository.archive.virtual import Subtree
from backstay.repository.archive.writer import Writer
from backstay.repository.errors import (
    AccessDenied,
    BucketNotFound,
    Corrupted,
    ForgetRefused,
    LockLost,
    NodeNotFound,
    NoSpace,
    ObjectLockUnavailable,
    ObjectNotFound,
    RepositoryError,
    RepositoryExists,
    RepositoryLocked,
    RepositoryNotFound,
    SnapshotNotFound,
    SourceError,
    StoreFull,
    StoreRefused,
    TargetError,
    Unreachable,
    UnsafeName,
    UnsupportedRepository,
    WrongPassword,
)
from backstay.repository.format.snapshot import Snapshot, Summary
from backstay.repository.format.tree import Node
from backstay.repository.outcome import Archive, Progress, Restoration, Warning
from backstay.repository.repository import Repository
from backstay.repository.stores.s3 import S3Credentials, S3Location, S3Store
from backstay.repository.stores.store import Store

__all__ = [
    "AccessDenied",
    "Archive",
    "BucketNotFound",
    "Corrupted",
    "ForgetRefused",
    "LockLost",
    "NoSpace",
    "Node",
    "NodeNotFound",
    "ObjectLockUnavailable",
    "ObjectNotFound",
    "Progress",
    "Repository",
    "RepositoryError",
    "RepositoryExists",
    "RepositoryLocked",
    "RepositoryNotFound",
    "Restoration",
    "S3Credentials",
    "S3Location",
    "S3Store",
    "Snapshot",
    "SnapshotNotFound",
    "SourceError",
    "Store",
    "StoreFull",
    "StoreRefused",
    "Subtree",
    "Summary",
    "TargetError",
    "Unreachable",
    "UnsafeName",
    "UnsupportedRepository",
    "Warning",
    "Writer",
    "WrongPassword",
]
