"""What an answer of an S3 server means, or its silence: to be tried again, or to be told to a person.

Pure: nothing is sent or waited for here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from backstay.repository.errors import (
    AccessDenied,
    BucketNotFound,
    Corrupted,
    ObjectNotFound,
    RepositoryError,
    StoreFull,
    StoreRefused,
    Unreachable,
)

_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
_TRANSIENT_CODES = {
    "RequestTimeout",
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "OperationAborted",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
}
#: What arrived is not what was sent: it was damaged on the way, and the next attempt may come through.
_DAMAGED_CODES = {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
#: What keys that were replaced in the meantime are refused with.
_STALE_CODES = {
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "InvalidToken",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
}
_FULL_CODES = {"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"}
_DENIED_CODES = {
    "AccessDenied": "the credentials are valid but lack the right to do this; grant it for the bucket and prefix",
    "InvalidAccessKeyId": "the server does not know this access key; check the access key id and the endpoint",
    "SignatureDoesNotMatch": "the secret access key is wrong",
    "ExpiredToken": "the session token has expired; renew it",
    "ExpiredTokenException": "the session token has expired; renew it",
    "InvalidToken": "the session token is not valid",
    "AllAccessDisabled": "the account is disabled",
}
#: TLS errors that stay; the others, such as an unexpected end, are how a connection breaks under TLS.
_NO_TLS = (
    "certificate",
    "hostname",
    "wrong_version_number",
    "unsupported_protocol",
    "handshake_failure",
    "http_request",
)
_LONGEST_WISH = 60.0  # seconds of Retry-After that are heeded


@dataclass(frozen=True)
class Trouble:
    """Something that may pass.

    `answered`: the server is there. `wait`: seconds that the server asked for. `doubtful`: rather a wrong address than
    a passing trouble, so that a short while of trying is enough. `stale`: new credentials may help, and only they.
    """

    what: str
    hint: str
    answered: bool = False
    wait: float = 0.0
    doubtful: bool = False
    stale: bool = False


def judge(told: str, error: Exception, now: datetime) -> Trouble | RepositoryError:
    """What to do about an error of botocore's: what may pass, or the error to raise. `told`: what was being done."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        CredentialRetrievalError,
        HTTPClientError,
        IncompleteReadError,
        NoCredentialsError,
        PartialCredentialsError,
        SSLError,
    )
    from botocore.parsers import ResponseParserError

    if isinstance(error, ClientError):
        return _answer(told, error, now)
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return AccessDenied(
            f"{told}: no credentials were given and this process has no identity of its own ({plain(error)});"
            " give it access keys, by variables or a Secret, or an identity"
        )
    if isinstance(error, SSLError) and any(sign in str(error).lower() for sign in _NO_TLS):
        return Unreachable(f"{told}: {plain(error)}; check the endpoint and the CA")
    if isinstance(error, IncompleteReadError):
        return Trouble("the answer broke off", "the connection is bad; try again later", answered=True)
    if isinstance(error, ConnectionError | HTTPClientError | OSError):
        return Trouble(plain(error), "check the address, DNS, firewalls and network policies")
    if isinstance(error, ResponseParserError):  # no S3 server, or half of an answer
        return Trouble("the answer is not one of S3's", "check that the endpoint is an S3 server", doubtful=True)
    if isinstance(error, BotoCoreError | ValueError):  # a bucket name that cannot be
        return StoreRefused(f"{told}: {plain(error)}; check the endpoint and the bucket's name")
    raise error


def code_of(error: BaseException) -> str:
    """The S3 code in an error of botocore's, or in the one of ours that was made of it; empty when there is none."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _answer(told: str, error: Any, now: datetime) -> Trouble | RepositoryError:
    code = code_of(error)
    metadata = error.response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    headers = metadata.get("HTTPHeaders", {})
    if code in _DAMAGED_CODES:
        return Trouble(
            f"the server answers {status} {code}: what arrived there is not what was sent",
            "something on the way changes content",
            answered=True,
        )
    if code in _FULL_CODES or status == 507:
        return StoreFull(f"{told}: {code or status}; make room there or raise the quota, or remove snapshots and prune")
    if status == 500 and code in ("", "500"):  # botocore says so too of a 200 with something else in it than S3's XML
        return Trouble("the answer is not one of S3's", "check that the endpoint is an S3 server", doubtful=True)
    if status in _TRANSIENT_STATUS or code in _TRANSIENT_CODES:
        return Trouble(
            f"the server answers {status} {code}".rstrip(),
            "the server is overloaded or not ready; try again later",
            answered=True,
            wait=_wish(headers.get("retry-after", "")),
        )
    refusal = _refusal(told, status, code, error, headers, now)
    if code in _STALE_CODES:
        return Trouble(str(refusal), "", answered=True, stale=True)
    return refusal


def _refusal(
    told: str, status: int, code: str, error: Exception, headers: dict[str, str], now: datetime
) -> RepositoryError:
    if code == "NoSuchBucket":
        return BucketNotFound(f"{told}: there is no such bucket; create it, or correct its name or the endpoint")
    if status == 404 and code in ("NoSuchKey", "NoSuchVersion", "", "404", "NotFound"):
        return ObjectNotFound(f"{told}: there is no such object")
    if status == 416:
        return Corrupted(f"{told}: it is shorter than where the reading should begin")
    if code == "RequestTimeTooSkewed":
        return AccessDenied(f"{told}: {code}: {_skew(headers.get('date', ''), now)}")
    if status in (401, 403) or code in _DENIED_CODES:
        hint = _DENIED_CODES.get(code, "check the credentials and their rights on the bucket")
        return AccessDenied(f"{told}: {code or status}: {hint}")
    return StoreRefused(f"{told}: the server refuses: {plain(error)}; check that the endpoint is an S3 server")


def _skew(date: str, now: datetime) -> str:
    try:
        behind = round((parsedate_to_datetime(date).astimezone(UTC) - now).total_seconds() / 60)
    except (TypeError, ValueError):
        behind = 0
    if not behind:
        return "the clocks of this machine and the server differ too much; set them by NTP"
    where = f"{behind} minutes behind" if behind > 0 else f"{-behind} minutes ahead of"
    return f"this machine's clock is {where} the server's; set it by NTP"


def _wish(retry_after: str) -> float:
    return min(float(retry_after), _LONGEST_WISH) if re.fullmatch(r"\d{1,6}", retry_after) else 0.0


def plain(error: BaseException) -> str:
    """One line for people, without object addresses and cut where a foreign server's answer would go on."""
    text = re.sub(r"<[^>]*>:?\s*", "", " ".join(str(error).split())).strip(" :")
    return text[:300] or type(error).__name__
