"""Why a BackupStorage cannot be used, in words for the one who wrote it."""

from __future__ import annotations

from backstay.api.storage import BackupStorage
from backstay.repository import RepositoryError


class StorageError(Exception):
    """``reason`` fits a condition; ``message`` says what to do; ``permanent``: somebody has to change something."""

    def __init__(self, reason: str, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.permanent = permanent


def explain(error: RepositoryError, storage: BackupStorage) -> StorageError:
    """An error of the repository with the advice that needs the BackupStorage: which Secret, which field."""
    message = str(error).rstrip(". ")
    advice = _advice(error.reason, storage)
    return StorageError(error.reason, f"{message}; {advice}" if advice else message, permanent=error.permanent)


def _advice(reason: str, storage: BackupStorage) -> str:
    s3 = storage.spec.s3
    place = f"bucket {s3.bucket!r}" + (f", prefix {s3.prefix!r}" if s3.prefix else "")
    namespace = storage.metadata.namespace
    match reason:
        case "AccessDenied":
            keys = (
                f"the keys in Secret {namespace}/{s3.credentials_secret_ref.name}" if s3.credentials_secret_ref else ""
            )
            rights = "list, read" if storage.spec.access_mode == "ReadOnly" else "list, read, write and delete"
            return (
                f"correct {keys or 'the identity of the pods'}, or give their account the rights to {rights} in {place}"
            )
        case "BucketNotFound":
            return f"create bucket {s3.bucket!r}, or correct spec.s3.bucket or spec.s3.endpoint"
        case "WrongPassword":
            secret = storage.spec.password_secret_ref
            return (
                f"put the password with which the repository in {place} was made into key {secret.key!r} of Secret "
                f"{namespace}/{secret.name}, or choose another spec.s3.prefix for a new repository"
            )
        case "Unreachable":
            return "check spec.s3.endpoint, DNS, firewalls and NetworkPolicies between the cluster and the S3 server"
        case "RepositoryNotFound":
            return f"a ReadOnly storage needs a repository in {place}: correct spec.s3, or set accessMode to ReadWrite"
        case _:
            return ""
