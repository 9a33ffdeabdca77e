"""The Secrets that a BackupStorage names: read with the account's rights, checked, and told about when they lack."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backstay.api.storage import BackupStorage
from backstay.kube.client import Client
from backstay.kube.errors import ForbiddenError
from backstay.kube.resource import SECRETS
from backstay.repository import S3Credentials
from backstay.storage.errors import StorageError

ACCESS_KEY = "AWS_ACCESS_KEY_ID"
SECRET_KEY = "AWS_SECRET_ACCESS_KEY"
SESSION_TOKEN = "AWS_SESSION_TOKEN"


@dataclass(frozen=True)
class StorageSecrets:
    """What opens a storage. ``version`` changes when any of the Secrets does; it holds nothing secret."""

    password: str = field(repr=False)
    credentials: S3Credentials | None
    certificates: str | None
    version: str


def read_secrets(account: Client, storage: BackupStorage) -> StorageSecrets:
    """The Secrets of a storage, as its namespace's account reads them. Raises StorageError, UnavailableError."""
    s3 = storage.spec.s3
    names = [storage.spec.password_secret_ref.name]
    names += [reference.name for reference in (s3.credentials_secret_ref, s3.ca_secret_ref) if reference]
    return parse_secrets(storage, {name: _find(account, storage, name) for name in dict.fromkeys(names)})


def parse_secrets(storage: BackupStorage, found: Mapping[str, Mapping[str, Any] | None]) -> StorageSecrets:
    """The values out of the Secrets' JSON, by name (None: there is none). Raises StorageError."""
    s3 = storage.spec.s3

    def value(name: str, key: str, use: str) -> str:
        secret = found.get(name)
        title = f"Secret {storage.metadata.namespace}/{name}"
        if secret is None:
            raise StorageError(
                "SecretNotFound", f"{title} does not exist; create it with key {key!r}, {use}", permanent=True
            )
        encoded = (secret.get("data") or {}).get(key)
        if encoded is None:
            has = ", ".join(sorted(secret.get("data") or {})) or "nothing"
            raise StorageError(
                "SecretKeyNotFound", f"{title} has no key {key!r} (it has {has}); add it, {use}", permanent=True
            )
        try:
            text = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise StorageError(
                "SecretInvalid", f"key {key!r} of {title} is not UTF-8 text; write {use} into it", permanent=True
            ) from error
        # A line's end gets in by `kubectl create secret --from-file`; no password or key is meant to end with one.
        text = text.rstrip("\r\n")
        if not text:
            raise StorageError("SecretInvalid", f"key {key!r} of {title} is empty; write {use} into it", permanent=True)
        return text

    reference = storage.spec.password_secret_ref
    password = value(reference.name, reference.key, "the repository's password")
    credentials = None
    if s3.credentials_secret_ref:
        name = s3.credentials_secret_ref.name
        access_key = value(name, ACCESS_KEY, "the id of the S3 access key")
        secret_key = value(name, SECRET_KEY, "the secret part of the S3 access key")
        token = ""
        if SESSION_TOKEN in ((found[name] or {}).get("data") or {}):
            token = value(name, SESSION_TOKEN, "the session token (or remove the key)")
        credentials = S3Credentials(access_key.strip(), secret_key.strip(), token.strip())
    certificates = None
    if s3.ca_secret_ref:
        certificates = value(s3.ca_secret_ref.name, s3.ca_secret_ref.key, "the certificates to trust, in PEM")
        if "-----BEGIN CERTIFICATE-----" not in certificates:
            raise StorageError(
                "SecretInvalid",
                f"key {s3.ca_secret_ref.key!r} of Secret {storage.metadata.namespace}/{s3.ca_secret_ref.name} holds no "
                "certificate in PEM; write the S3 server's CA certificates into it",
                permanent=True,
            )
    return StorageSecrets(password, credentials, certificates, _version(found))


def _find(account: Client, storage: BackupStorage, name: str) -> dict[str, Any] | None:
    try:
        return account.find(SECRETS, name, storage.metadata.namespace)
    except ForbiddenError as error:
        raise StorageError(
            "SecretForbidden",
            f"Secret {storage.metadata.namespace}/{name} cannot be read: {error.message}; check RoleBinding 'backstay' "
            "in this namespace",
            permanent=True,
        ) from error


def _version(found: Mapping[str, Mapping[str, Any] | None]) -> str:
    digest = hashlib.sha256()
    for name in sorted(found):
        metadata = (found[name] or {}).get("metadata") or {}
        digest.update(f"{name}\0{metadata.get('uid')}\0{metadata.get('resourceVersion')}\0".encode())
    return digest.hexdigest()
