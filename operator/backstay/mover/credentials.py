"""What a mover may know, read from the files that its Secrets are mounted as."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backstay.repository.errors import AccessDenied, WrongPassword
from backstay.repository.stores.s3 import S3Credentials


@dataclass(frozen=True)
class Credentials:
    """Password and S3 keys. `s3` None: the pod's own identity. `ca_file`: certificates to trust, if any are given."""

    password: str
    s3: S3Credentials | None
    ca_file: str | None


def read(environment: Mapping[str, str]) -> Credentials:
    """Read the mounted files; their directories can be set by BACKSTAY_{PASSWORD,S3,CA}_DIRECTORY.

    Raises WrongPassword or AccessDenied when a file is missing that must be there.
    """
    password = Path(environment.get("BACKSTAY_PASSWORD_DIRECTORY", "/etc/backstay/password")) / "password"
    ca = Path(environment.get("BACKSTAY_CA_DIRECTORY", "/etc/backstay/ca")) / "ca.crt"
    try:
        secret = _text(password)
    except (OSError, UnicodeDecodeError) as error:
        raise WrongPassword(f"reading the password from {password}: {error}; check the Secret and its key") from error
    keys = s3_keys(environment) if _s3_directory(environment).is_dir() else None
    return Credentials(secret, keys, os.fspath(ca) if ca.exists() else None)


def _text(path: Path) -> str:
    """A file's text without line ends at its end, which editors and `kubectl create --from-file` leave there."""
    return path.read_text(encoding="utf-8").rstrip("\r\n")


def _s3_directory(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("BACKSTAY_S3_DIRECTORY", "/etc/backstay/s3"))


def s3_keys(environment: Mapping[str, str]) -> S3Credentials:
    """The S3 keys as they are now. Raises AccessDenied when a file is missing."""
    directory = _s3_directory(environment)
    token = directory / "AWS_SESSION_TOKEN"
    try:
        return S3Credentials(
            _text(directory / "AWS_ACCESS_KEY_ID").strip(),
            _text(directory / "AWS_SECRET_ACCESS_KEY").strip(),
            _text(token).strip() if token.exists() else "",
        )
    except (OSError, UnicodeDecodeError) as error:
        raise AccessDenied(f"reading S3 keys from {directory}: {error}; check the Secret's keys") from error
