"""What all unit tests share."""

from __future__ import annotations

import pytest

from backstay.repository import keys, lock


@pytest.fixture(autouse=True, scope="session")
def impatience() -> None:
    """What takes time by intention, against guessing and against races between machines, takes none here."""
    keys.SCRYPT_N = 1024
    lock.SETTLE_SECONDS = 0.0
