"""What all unit tests share."""

from __future__ import annotations

import pytest

from backstay.repository import keys


@pytest.fixture(autouse=True, scope="session")
def cheap_passwords() -> None:
    """Opening a repository costs a tenth of a second by intention; here it would only make the tests slow."""
    keys.SCRYPT_N = 1024
