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
    """What the repository's own words cannot know: which Secret, which field."""
    s3 = storage.spec.s3
    place = f"bucket {s3.bucket!r}" + (f", prefix {s3.prefix!r}" if s3.prefix else "")
    namespace = storage.metadata.namespace
    match reason:
        case "AccessDenied":
            if s3.credentials_secret_ref:
                return f"the keys are those in Secret {namespace}/{s3.credentials_secret_ref.name}"
            return "the keys are those of the pods' own identity, since spec.s3.credentialsSecretRef is not set"
        case "BucketNotFound":
            return "the fields are spec.s3.bucket and spec.s3.endpoint"
        case "Unreachable":
            return "the field is spec.s3.endpoint"
        case "WrongPassword":
            secret = storage.spec.password_secret_ref
            return (
                f"key {secret.key!r} of Secret {namespace}/{secret.name} must hold the password with which the "
                f"repository in {place} was made; for a new repository choose another spec.s3.prefix"
            )
        case "RepositoryNotFound":
            return f"a ReadOnly storage needs a repository in {place}: correct spec.s3, or set accessMode to ReadWrite"
        case _:
            return ""
