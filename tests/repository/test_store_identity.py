"""The process's own identity: found as a pod on EKS finds it, and refreshed before it runs out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from backstay.repository import AccessDenied, S3Location, S3Store
from backstay.repository.stores import s3_client
from tests.repository.seaweed import ACCESS_KEY, SECRET_KEY


class Issuer(HTTPServer):
    """Gives out keys that are valid for five minutes, to whoever asks in one of the two ways."""

    asked = 0


class _Handler(BaseHTTPRequestHandler):
    server: Issuer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, content: str) -> None:
        self.server.asked += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.encode())

    def do_GET(self) -> None:
        """EKS Pod Identity."""
        self._answer(
            json.dumps({"AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": "", "Expiration": _soon()})
        )

    def do_POST(self) -> None:
        """IAM roles for service accounts."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
            f"<AccessKeyId>{ACCESS_KEY}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey>"
            f"<SessionToken></SessionToken><Expiration>{_soon()}</Expiration>"
            "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )


def _soon() -> str:
    return (datetime.now(UTC) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Issuer]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3_client._session.cache_clear()  # which remembers an identity
    with Issuer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    s3_client._session.cache_clear()


def test_a_pods_identity_is_used_and_refreshed(
    location: S3Location, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{issuer.server_port}/keys")
    store = S3Store(location, None)

    store.put("index/some", b"content")
    asked = issuer.asked

    assert store.get("index/some") == b"content"
    assert issuer.asked > asked


def test_a_service_accounts_role_is_used_and_refreshed(
    location: S3Location, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{issuer.server_port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = S3Store(location, None)

    store.put("index/some", b"content")
    asked = issuer.asked

    assert store.get("index/some") == b"content"
    assert issuer.asked > asked


def test_a_process_without_an_identity_is_told_so(location: S3Location, issuer: Issuer) -> None:
    with pytest.raises(AccessDenied, match="no identity of its own"):
        S3Store(location, None).get("config")
