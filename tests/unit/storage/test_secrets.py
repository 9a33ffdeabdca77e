"""What is said of Secrets that lack or cannot be used."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from backstay.api.meta import KeyReference, Meta, Reference
from backstay.api.storage import S3, BackupStorage, BackupStorageSpec, PasswordReference
from backstay.storage.errors import StorageError
from backstay.storage.secrets import parse_secrets

STORAGE = BackupStorage(
    Meta("main", "shop"),
    BackupStorageSpec(
        S3("b", credentials_secret_ref=Reference("s3"), ca_secret_ref=KeyReference("ca", "ca.crt")),
        PasswordReference("pw"),
    ),
)


def secret(version: str = "1", **values: str | bytes) -> dict[str, Any]:
    def encode(value: str | bytes) -> str:
        return base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()

    return {
        "metadata": {"uid": "u", "resourceVersion": version},
        "data": {key.replace("__", "."): encode(value) for key, value in values.items()},
    }


GOOD: dict[str, dict[str, Any] | None] = {
    "pw": secret(password="top secret\n"),
    "s3": secret(AWS_ACCESS_KEY_ID="AK", AWS_SECRET_ACCESS_KEY="SK\n"),
    "ca": secret(ca__crt="-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"),
}


def test_a_line_end_from_a_file_belongs_to_no_password_and_no_key() -> None:
    secrets = parse_secrets(STORAGE, GOOD)

    assert secrets.password == "top secret"
    assert secrets.credentials
    assert secrets.credentials.secret_access_key == "SK"
    assert secrets.credentials.session_token == ""


def test_nothing_secret_is_printed() -> None:
    shown = repr(parse_secrets(STORAGE, GOOD))

    assert "top secret" not in shown
    assert "SK" not in shown


def test_the_version_changes_with_any_secret() -> None:
    changed = {**GOOD, "s3": secret("2", AWS_ACCESS_KEY_ID="AK", AWS_SECRET_ACCESS_KEY="SK")}

    assert parse_secrets(STORAGE, GOOD).version != parse_secrets(STORAGE, changed).version


@pytest.mark.parametrize(
    ("name", "found", "reason", "words"),
    [
        ("pw", None, "SecretNotFound", "Secret shop/pw does not exist; create it with key 'password'"),
        ("pw", secret(pass_="x"), "SecretKeyNotFound", "Secret shop/pw has no key 'password' (it has pass_)"),
        ("pw", secret(password=""), "SecretInvalid", "key 'password' of Secret shop/pw is empty"),
        ("pw", secret(password=b"\xff\xfe"), "SecretInvalid", "is not UTF-8 text"),
        ("s3", None, "SecretNotFound", "Secret shop/s3 does not exist; create it with key 'AWS_ACCESS_KEY_ID'"),
        ("s3", secret(AWS_ACCESS_KEY_ID="AK"), "SecretKeyNotFound", "no key 'AWS_SECRET_ACCESS_KEY'"),
        ("ca", secret(ca__crt="MII"), "SecretInvalid", "holds no certificate in PEM"),
    ],
)
def test_a_secret_that_lacks_is_named_with_its_key(
    name: str, found: dict[str, Any] | None, reason: str, words: str
) -> None:
    with pytest.raises(StorageError) as caught:
        parse_secrets(STORAGE, {**GOOD, name: found})

    assert caught.value.reason == reason
    assert words in caught.value.message
    assert caught.value.permanent
