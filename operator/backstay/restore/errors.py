"""Why a Restore cannot go on, in words for the person who made it."""

from __future__ import annotations


class RestoreError(Exception):
    """The Restore ends as Failed. ``reason``: CamelCase word for the condition; the message says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class WaitError(Exception):
    """Something must happen elsewhere first; the Restore looks again. ``reason`` and message as in RestoreError."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
