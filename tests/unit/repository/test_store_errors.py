"""What an answer of an S3 server means, or its silence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError

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
from backstay.repository.stores.s3_errors import Trouble, judge

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
URL = "https://s3.example.com"


def answer(status: int, code: str, **headers: str) -> ClientError:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": {key.replace("_", "-"): to for key, to in headers.items()}}
    return ClientError({"Error": {"Code": code, "Message": ""}, "ResponseMetadata": metadata}, "PutObject")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (404, "NoSuchBucket", BucketNotFound),
        (404, "NoSuchKey", ObjectNotFound),
        (404, "NoSuchVersion", ObjectNotFound),
        (416, "InvalidRange", Corrupted),
        (401, "", AccessDenied),
        (403, "AccessDenied", AccessDenied),
        (403, "SomethingNew", AccessDenied),
        (403, "RequestTimeTooSkewed", AccessDenied),
        (507, "", StoreFull),
        (400, "QuotaExceeded", StoreFull),
        (400, "InvalidArgument", StoreRefused),
        (501, "NotImplemented", StoreRefused),
    ],
)
def test_a_refusal_that_stays_is_an_error(status: int, code: str, error: type[RepositoryError]) -> None:
    verdict = judge("writing x to y", answer(status, code), NOW)

    assert type(verdict) is error
    assert str(verdict).startswith("writing x to y: ")


@pytest.mark.parametrize(
    "error",
    [
        answer(503, "SlowDown"),
        answer(400, "RequestTimeout"),
        answer(500, "InternalError"),
        answer(502, "502"),
        answer(400, "BadDigest"),
        answer(400, "XAmzContentSHA256Mismatch"),
        ConnectTimeoutError(endpoint_url=URL),
        ReadTimeoutError(endpoint_url=URL),
        EndpointConnectionError(endpoint_url=URL),
        ConnectionClosedError(endpoint_url=URL),
        IncompleteReadError(actual_bytes=1, expected_bytes=2),
        SSLError(endpoint_url=URL, error="EOF occurred in violation of protocol (_ssl.c:2427)"),
        ConnectionResetError(),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    verdict = judge("writing x to y", error, NOW)

    assert isinstance(verdict, Trouble)
    assert not verdict.stale
    assert not verdict.doubtful


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_keys_that_may_have_been_replaced_are_looked_up_again(code: str) -> None:
    verdict = judge("writing x to y", answer(403, code), NOW)

    assert isinstance(verdict, Trouble)
    assert verdict.stale


@pytest.mark.parametrize("error", [ResponseParserError("no XML"), answer(500, "500")])
def test_what_is_no_s3_server_is_not_tried_for_long(error: Exception) -> None:
    verdict = judge("listing x in y", error, NOW)

    assert isinstance(verdict, Trouble)
    assert verdict.doubtful


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SSLError(endpoint_url=URL, error="[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"), Unreachable),
        (SSLError(endpoint_url=URL, error="[SSL: WRONG_VERSION_NUMBER] wrong version number"), Unreachable),
        (NoCredentialsError(), AccessDenied),
        (ParamValidationError(report="Invalid bucket name"), StoreRefused),
    ],
)
def test_what_only_a_person_can_mend_is_an_error(error: Exception, kind: type[RepositoryError]) -> None:
    assert type(judge("writing x to y", error, NOW)) is kind


@pytest.mark.parametrize(("told", "seconds"), [("7", 7.0), ("999999", 60.0), ("-1", 0.0), ("soon", 0.0)])
def test_the_pause_that_a_server_asks_for_is_made_within_bounds(told: str, seconds: float) -> None:
    verdict = judge("writing x to y", answer(503, "SlowDown", retry_after=told), NOW)

    assert isinstance(verdict, Trouble)
    assert verdict.wait == seconds


@pytest.mark.parametrize(
    ("date", "told"),
    [
        ("Tue, 24 Nov 2026 12:40:00 GMT", "40 minutes behind"),
        ("Tue, 24 Nov 2026 11:20:00 GMT", "40 minutes ahead of"),
        ("yesterday", "differ too much"),
    ],
)
def test_a_wrong_clock_is_told_with_how_wrong_it_is(date: str, told: str) -> None:
    verdict: Any = judge("writing x to y", answer(403, "RequestTimeTooSkewed", date=date), NOW)

    assert told in str(verdict)


def test_an_error_of_our_own_making_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        judge("writing x to y", ZeroDivisionError(), NOW)
