"""Requests are signed as the S3 API reference's own example is."""

from __future__ import annotations

from datetime import UTC, datetime

from backstay.repository import signing


def test_the_references_example_has_its_signature() -> None:
    headers = signing.sign(
        "GET",
        "/test.txt",
        "",
        {"host": "examplebucket.s3.amazonaws.com", "range": "bytes=0-9"},
        signing.EMPTY_SHA256,
        access_key_id="AKIAIOSFODNN7EXAMPLE",
        secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        session_token="",
        region="us-east-1",
        now=datetime(2013, 5, 24, tzinfo=UTC),
    )

    assert headers["authorization"].endswith(
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


def test_keys_and_queries_are_escaped_once() -> None:
    assert signing.encode_path("/pre fix/ü+%") == "/pre%20fix/%C3%BC%2B%25"
    assert signing.encode_query({"prefix": "a/b c", "list-type": "2"}) == "list-type=2&prefix=a%2Fb%20c"
