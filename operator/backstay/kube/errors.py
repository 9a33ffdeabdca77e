"""What the API server can answer but success, by what the caller can do about it."""

from __future__ import annotations

import json


class ApiError(Exception):
    """A call failed. ``status`` is the HTTP status (0: no answer), ``reason`` and ``message`` are the server's words.

    ``operation`` says what was being done, as in ``create Job shop/x``.
    """

    def __init__(self, operation: str, status: int, reason: str, message: str) -> None:
        super().__init__(f"{operation}: {message or reason or status}")
        self.operation = operation
        self.status = status
        self.reason = reason
        self.message = message


class NotFoundError(ApiError):
    """There is no such object, or the cluster does not serve its kind."""


class AlreadyExistsError(ApiError):
    """An object of this name exists."""


class ConflictError(ApiError):
    """The object has changed since it was read, or a precondition does not hold: read again, decide again."""


class ForbiddenError(ApiError):
    """The account lacks the right, or an admission policy or a quota refuses."""


class InvalidError(ApiError):
    """The object does not fulfil its kind's schema: trying again does not help."""


class UnavailableError(ApiError):
    """No answer, or only answers that ask to come back later: trying again later may help."""


class ExpiredError(ApiError):
    """A list's continuation has expired; the client starts the list anew by itself."""


_UNAVAILABLE = frozenset({429, 500, 502, 503, 504})
_INVALID = frozenset({400, 413, 415, 422})


def error_of(operation: str, status: int, body: bytes) -> ApiError:
    """The error for an answer that is no success; the body is normally a ``Status`` object, but may be anything."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {"message": body[:500].decode(errors="replace").strip()}
    reason = str(document.get("reason") or "")
    message = str(document.get("message") or f"the API server answered with HTTP status {status}")
    return _kind(status, reason)(operation, status, reason, message)


def _kind(status: int, reason: str) -> type[ApiError]:
    if status == 409:
        return AlreadyExistsError if reason == "AlreadyExists" else ConflictError
    if status in _UNAVAILABLE:
        return UnavailableError
    if status in _INVALID:
        return InvalidError
    return {403: ForbiddenError, 404: NotFoundError, 410: ExpiredError}.get(status, ApiError)
