"""The one door to S3: named objects in, named objects out, and errors that a person can act on.

It speaks the few requests that a repository needs over urllib3, rather than through boto3's client: that client costs
half a second to load, hashes every upload a second time and retries permanent errors. botocore is loaded only to find
the process's own identity when no keys are given.

Permanent refusals (credentials, bucket) fail at once. Transient trouble (timeouts, resets, throttling) is retried with
growing pauses: for a few seconds while the server has not answered once, since then the address is likely wrong, and
for `patience` seconds later on, since then a backup that is under way is worth waiting for.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import random
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urlsplit

from backstay.repository import answers, connection, signing
from backstay.repository.errors import (
    AccessDenied,
    BucketNotFound,
    Corrupted,
    ObjectNotFound,
    RepositoryError,
    StoreRefused,
    Unreachable,
)

if TYPE_CHECKING:
    import urllib3

Buffer = bytes | bytearray | memoryview

FIRST_PATIENCE = 8.0  # seconds of retries while the server has never answered
_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
_TRANSIENT_CODES = {
    "RequestTimeout",
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "OperationAborted",
    "Throttling",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
}
_DENIED_CODES = {
    "AccessDenied": "the credentials are valid but lack the right to do this; grant it on the bucket and prefix",
    "InvalidAccessKeyId": "the server does not know this access key; check the access key id and the endpoint",
    "SignatureDoesNotMatch": "the secret access key is wrong",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "the clocks of this machine and the server differ too much",
    "AllAccessDisabled": "the account is disabled",
}


@dataclass(frozen=True)
class S3Location:
    """Where a repository lies. An empty `endpoint` means AWS; `prefix` is without slashes at its ends."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    force_path_style: bool = False


@dataclass(frozen=True)
class S3Credentials:
    """Keys of an S3 account; the secret parts stay out of the object's printed form."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


class Store(Protocol):
    """What the engine needs of a place for objects. Names are relative to the repository, such as `data/00/00ab...`."""

    def put(self, name: str, data: Buffer, *, sha256: bytes | None = None) -> None: ...
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes: ...
    def list(self, prefix: str) -> Iterator[tuple[str, int]]: ...
    def delete(self, name: str) -> None: ...
    def exists(self, name: str) -> bool: ...


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    code: str = ""
    message: str = ""


class S3Store:
    """Objects under one bucket and prefix. Safe to use from several threads."""

    def __init__(
        self,
        location: S3Location,
        credentials: S3Credentials | None,
        ca_file: str | None = None,
        *,
        patience: float = 90.0,
    ) -> None:
        """Nothing is sent yet.

        `credentials` None: the process's own identity. `ca_file`: certificates to trust, in PEM, not the system's.
        `patience`: seconds for which transient errors are retried once the server has answered.
        """
        self.location = location
        self._credentials = credentials
        self._ca_file = ca_file
        self._patience = patience
        self._prefix = location.prefix.strip("/")
        self._region = location.region or "us-east-1"
        self._skew = timedelta(0)
        self._answered = False
        self._identity_lock = threading.Lock()
        self._identity: Any = None
        endpoint = location.endpoint or f"https://s3.{self._region}.amazonaws.com"
        if "://" not in endpoint:
            endpoint = f"https://{endpoint}"
        self._where = f"bucket {location.bucket!r} at {endpoint}"
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreachable(
                f"using {self._where}: the endpoint is no http or https address; write it as https://host or https://host:port"
            )
        self._scheme = parts.scheme
        self._base_host = parts.netloc.rpartition("@")[2]
        self._base_path = parts.path.rstrip("/")
        self._path_style = location.force_path_style or not connection.fits_host(location.bucket, parts.hostname)

    # --- the six requests -----------------------------------------------------------------------------------------

    def put(self, name: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        """Store an object. `sha256`: the digest of `data` when it is known already, which saves computing it.

        The digest goes along twice, signed as the payload's and as the object's checksum: some servers prove the one,
        some the other, so that what was damaged on the way is refused.
        """
        digest = sha256 if sha256 is not None else hashlib.sha256(data).digest()
        headers = {"x-amz-checksum-sha256": base64.b64encode(digest).decode()}
        doing = f"writing {name} to"
        self._do(
            "PUT", self._key(name), doing=doing, headers=headers, body=data, payload=digest.hex(), ok=(200, 201, 204)
        )

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """An object's bytes, or `length` of them from `offset`. Raises ObjectNotFound."""
        headers = {}
        if length is not None:
            if length <= 0:
                return b""
            headers["range"] = f"bytes={offset}-{offset + length - 1}"
        elif offset:
            headers["range"] = f"bytes={offset}-"
        answer = self._do("GET", self._key(name), doing=f"reading {name} from", headers=headers, ok=(200, 206, 416))
        if answer.status == 416:
            raise Corrupted(
                f"reading {name} from {self._where}: it is shorter than the {offset} bytes that precede the range"
            )
        body = answer.body
        if answer.status == 200 and (offset or length is not None):  # a server that does not do ranges
            body = body[offset : None if length is None else offset + length]
        if length is not None and len(body) != length:
            raise Corrupted(
                f"reading {name} from {self._where}: {length} bytes wanted at {offset}, only {len(body)} there"
            )
        return body

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Names and sizes in bytes of the objects whose names begin with `prefix`, in the server's order."""
        return self._list(prefix, 1000)

    def _list(self, prefix: str, page_size: int) -> Iterator[tuple[str, int]]:
        token = ""
        start = len(self._prefix) + 1 if self._prefix else 0
        while True:
            query = {"list-type": "2", "prefix": self._key(prefix), "encoding-type": "url", "max-keys": str(page_size)}
            if token:
                query["continuation-token"] = token
            answer = self._do("GET", None, doing=f"listing {prefix or 'objects'} in", query=query, ok=(200,))
            page, token = answers.parse_listing(answer.body, self._where)
            for key, size in page:
                yield key[start:], size
            if not token:
                return

    def delete(self, name: str) -> None:
        """Remove an object; that it is gone already is no error."""
        self._do("DELETE", self._key(name), doing=f"deleting {name} from", ok=(200, 204, 404))

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        try:
            self._do(
                "GET",
                self._key(name),
                doing=f"looking for {name} in",
                headers={"range": "bytes=0-0"},
                ok=(200, 206, 416),
            )
        except ObjectNotFound:
            return False
        return True

    def probe(self, *, write: bool = True) -> None:
        """Prove that the bucket can be used: write, read back, list and delete a small object (or list only).

        Raises AccessDenied, BucketNotFound, Unreachable or StoreRefused, whose message tells which step failed.
        """
        next(self._list("", 1), None)  # first, since some servers create a missing bucket when it is written to
        if not write:
            return
        name = f"backstay-probe-{secrets.token_hex(8)}"
        content = secrets.token_bytes(64)
        self.put(name, content)
        try:
            if self.get(name) != content:
                raise Corrupted(f"probing {self._where}: what was read back is not what was written")
            if not any(found == name for found, _ in self.list(name)):
                raise StoreRefused(f"probing {self._where}: an object that was just written is not in the listing")
        finally:
            self.delete(name)

    # --- how a request is made ------------------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    @functools.cached_property
    def _pool(self) -> urllib3.PoolManager:
        return connection.pool(self._scheme, self._base_host, self._ca_file)

    def _keys(self) -> S3Credentials:
        if self._credentials is not None:
            return self._credentials
        with self._identity_lock:
            if self._identity is None:
                import botocore.session

                self._identity = botocore.session.get_session().get_credentials()
            if self._identity is None:
                raise AccessDenied(
                    f"using {self._where}: no credentials were given and this process has no identity of its own;"
                    " name a Secret with keys or give the pod a role"
                )
            frozen = self._identity.get_frozen_credentials()
        return S3Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")

    def _host_and_path(self, key: str | None) -> tuple[str, str]:
        host = self._base_host
        if not self.location.endpoint:
            host = f"s3.{self._region}.amazonaws.com" + (".cn" if self._region.startswith("cn-") else "")
        path = self._base_path
        if self._path_style:
            path += f"/{self.location.bucket}"
        else:
            host = f"{self.location.bucket}.{host}"
        if key is not None:
            path += f"/{key}"
        return host, signing.encode_path(path) or "/"

    def _send(
        self,
        method: str,
        key: str | None,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: Buffer,
        payload: str,
    ) -> _Answer:
        host, path = self._host_and_path(key)
        encoded_query = signing.encode_query(query)
        keys = self._keys()
        signed = signing.sign(
            method,
            path,
            encoded_query,
            {"host": host, **headers},
            payload,
            access_key_id=keys.access_key_id,
            secret_access_key=keys.secret_access_key,
            session_token=keys.session_token,
            region=self._region,
            now=datetime.now(UTC) + self._skew,
        )
        url = f"{self._scheme}://{host}{path}" + (f"?{encoded_query}" if encoded_query else "")
        sent = {**headers, **signed, "user-agent": "backstay", "accept-encoding": "identity"}
        response = self._pool.request(
            method,
            url,
            body=cast(bytes, body) if method == "PUT" else None,
            headers=sent,
            redirect=False,
            preload_content=True,
        )
        code = message = ""
        if response.status >= 300:
            code, message = answers.parse_error(response.data)
        return _Answer(response.status, response.headers, response.data, code, message)

    def _do(
        self,
        method: str,
        key: str | None,
        *,
        doing: str,
        ok: tuple[int, ...],
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Buffer = b"",
        payload: str = signing.EMPTY_SHA256,
    ) -> _Answer:
        import urllib3.exceptions

        started = time.monotonic()
        pause = 0.2
        adjusted = 0
        while True:
            trouble: str
            try:
                answer = self._send(method, key, query or {}, headers or {}, body, payload)
            except (urllib3.exceptions.SSLError, urllib3.exceptions.LocationParseError) as error:
                raise Unreachable(
                    f"{doing} {self._where}: {connection.plain(error)}; check the endpoint and the CA"
                ) from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                trouble = connection.plain(error)
                hint = "check the address, DNS and network policies"
            else:
                self._answered = True
                if answer.status in ok:
                    return answer
                if adjusted < 2 and self._adjust(answer):
                    adjusted += 1
                    continue
                if not (answer.status in _TRANSIENT_STATUS or answer.code in _TRANSIENT_CODES):
                    raise self._refusal(doing, answer)
                trouble = f"the server answers {answer.status} {answer.code}".rstrip()
                hint = "the server is overloaded or not ready; try again later"
            patience = self._patience if self._answered else FIRST_PATIENCE
            if time.monotonic() - started + pause > patience:
                raise Unreachable(f"{doing} {self._where}: {trouble}; {hint}")
            time.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(pause * 2, 10.0)

    def _adjust(self, answer: _Answer) -> bool:
        """Learn the bucket's region or the server's clock from a refusal; True when that makes another try worth it."""
        region = answer.headers.get("x-amz-bucket-region", "")
        if answer.code == "AuthorizationHeaderMalformed" and not region:
            found = re.search(r"expecting '([a-z0-9-]+)'", answer.message)
            region = found[1] if found else ""
        if region and region != self._region and answer.status in (301, 307, 400):
            self._region = region
            return True
        if answer.code == "RequestTimeTooSkewed" and "date" in answer.headers:
            try:
                self._skew = parsedate_to_datetime(answer.headers["date"]) - datetime.now(UTC)
            except (ValueError, TypeError):
                return False
            return True
        return False

    def _refusal(self, doing: str, answer: _Answer) -> RepositoryError:
        told = f"{doing} {self._where}"
        if answer.code == "NoSuchBucket":
            return BucketNotFound(f"{told}: there is no such bucket; create it, or correct its name or the endpoint")
        if answer.status == 404 and answer.code in ("NoSuchKey", "", "NotFound"):
            return ObjectNotFound(f"{told}: there is no such object")
        if answer.status in (401, 403) or answer.code in _DENIED_CODES:
            hint = _DENIED_CODES.get(answer.code, "check the credentials and their rights on the bucket")
            return AccessDenied(f"{told}: {answer.code or answer.status}: {hint}")
        detail = " ".join(part for part in (str(answer.status), answer.code, answer.message) if part)
        return StoreRefused(f"{told}: the server refuses: {detail[:300]}; check that the endpoint is an S3 server")
