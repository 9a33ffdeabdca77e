"""Why the demo stopped."""

from __future__ import annotations


class DemoError(Exception):
    """Something did not go as it must. The text says what, and ``details`` what a person would look at next."""

    def __init__(self, text: str, details: str = "") -> None:
        super().__init__(text)
        self.details = details
