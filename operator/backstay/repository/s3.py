"""The one door to S3: named objects in, named objects out, and errors that a person can act on.

Requests, signatures, regions and the process's own identity are botocore's: boto3's core, which loads in half of its
time. Its retries are turned off, since ours tell apart what botocore cannot. Permanent refusals (credentials, bucket)
fail at once. Transient trouble (timeouts, resets, throttling) is retried with growing pauses: for a few seconds while
the server has not answered once, since then the address is likely wrong, and for `patience` seconds later on, since
then a backup that is under way is worth waiting for.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from backstay.repository.errors import (
    AccessDenied,
    BucketNotFound,
    Corrupted,
    ObjectNotFound,
    RepositoryError,
    StoreRefused,
    Unreachable,
)
from backstay.repository.store import Buffer

Result = TypeVar("Result")

FIRST_PATIENCE = 8.0  # seconds of retries while the server has never answered
CONNECT_TIMEOUT = 5.0  # seconds
READ_TIMEOUT = 30.0  # seconds without a byte
CONNECTIONS = 16
_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
_TRANSIENT_CODES = {
    "RequestTimeout",
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "OperationAborted",
    "Throttling",
    "BadDigest",
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

        `credentials` None: the process's own identity. `ca_file`: certificates to trust, in PEM, not the usual ones.
        `patience`: seconds for which transient errors are retried once the server has answered.
        """
        self.location = location
        self._credentials = credentials
        self._ca_file = ca_file
        self._patience = patience
        self._prefix = location.prefix.strip("/")
        self._answered = False
        self._where = f"bucket {location.bucket!r} at {location.endpoint or 'AWS'}"
        if location.endpoint and not re.match(r"https?://[^/]", location.endpoint):
            raise Unreachable(
                f"using {self._where}: the endpoint is no http or https address; write it as https://host or"
                " https://host:port"
            )

    # --- the five requests ----------------------------------------------------------------------------------------

    def put(self, name: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        """Store an object. `sha256`: the digest of `data` when it is known already, which saves computing it.

        The digest goes along as the object's checksum, so that the server refuses what was damaged on the way.
        """
        digest = base64.b64encode(sha256 if sha256 is not None else hashlib.sha256(data).digest()).decode()
        body = bytes(data) if isinstance(data, memoryview) else data
        self._do(
            f"writing {name} to",
            lambda s3: s3.put_object(**self._object(name), Body=body, ChecksumSHA256=digest),
        )

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """An object's bytes, or `length` of them from `offset`. Raises ObjectNotFound."""
        if length is not None and length <= 0:
            return b""
        ranged = {"Range": f"bytes={offset}-{'' if length is None else offset + length - 1}"}

        def read(s3: Any) -> tuple[int, bytes]:
            answer = s3.get_object(**self._object(name), **(ranged if offset or length is not None else {}))
            return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Body"].read()

        status, body = self._do(f"reading {name} from", read)
        if status == 200:  # whole, be it that the server does not do ranges
            body = body[offset : None if length is None else offset + length]
        if length is not None and len(body) != length:
            raise Corrupted(
                f"reading {name} from {self._where}: {length} bytes wanted at {offset}, only {len(body)} there"
            )
        return body

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Names and sizes in bytes of the objects whose names begin with `prefix`, in the server's order."""
        start = len(self._prefix) + 1 if self._prefix else 0
        token = ""
        while True:
            page = self._page(prefix, 1000, token)
            for item in page.get("Contents", ()):
                yield item["Key"][start:], item["Size"]
            token = page.get("NextContinuationToken", "") if page.get("IsTruncated") else ""
            if not token:
                return

    def delete(self, name: str) -> None:
        """Remove an object; that it is gone already is no error."""
        try:
            self._do(f"deleting {name} from", lambda s3: s3.delete_object(**self._object(name)))
        except ObjectNotFound:
            return

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        # Not a HEAD: its refusals have no body, so a missing bucket could not be told from a missing object.
        try:
            self._do(f"looking for {name} in", lambda s3: s3.get_object(**self._object(name))["Body"].close())
        except ObjectNotFound:
            return False
        return True

    def probe(self, *, write: bool = True) -> None:
        """Prove that the bucket can be used: write, read back, list and delete a small object (or list only).

        Raises AccessDenied, BucketNotFound, Unreachable or StoreRefused, whose message tells which step failed.
        """
        self._page("", 1)  # first, since some servers create a missing bucket when it is written to
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

    def _object(self, name: str) -> dict[str, str]:
        return {"Bucket": self.location.bucket, "Key": self._key(name)}

    def _page(self, prefix: str, size: int, token: str = "") -> dict[str, Any]:
        following = {"ContinuationToken": token} if token else {}
        place = {"Bucket": self.location.bucket, "Prefix": self._key(prefix)}
        return self._do(
            f"listing {prefix or 'objects'} in",
            lambda s3: s3.list_objects_v2(**place, MaxKeys=size, **following),
        )

    @functools.cached_property
    def _client(self) -> Any:
        return _make_client(self.location, self._credentials, self._ca_file)

    def _do(self, doing: str, request: Callable[[Any], Result]) -> Result:
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectionError,
            HTTPClientError,
            NoCredentialsError,
            SSLError,
        )

        told = f"{doing} {self._where}"
        started = time.monotonic()
        pause = 0.2
        while True:
            try:
                result = request(self._client)
            except ClientError as error:
                self._answered = True
                code = str(error.response.get("Error", {}).get("Code", ""))
                status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
                if status not in _TRANSIENT_STATUS and code not in _TRANSIENT_CODES:
                    raise _refusal(told, status, code, error) from error
                trouble = f"the server answers {status} {code}".rstrip()
                hint = "the server is overloaded or not ready; try again later"
            except NoCredentialsError as error:
                raise AccessDenied(
                    f"{told}: no credentials were given and this process has no identity of its own; name a Secret"
                    " with keys or give the pod a role"
                ) from error
            except SSLError as error:
                raise Unreachable(f"{told}: {_plain(error)}; check the endpoint and the CA") from error
            except (ConnectionError, HTTPClientError, OSError) as error:
                trouble, hint = _plain(error), "check the address, DNS and network policies"
            except (BotoCoreError, ValueError) as error:  # an answer that is no S3, a bucket name that cannot be
                raise StoreRefused(f"{told}: {_plain(error)}; check the endpoint and the bucket's name") from error
            else:
                self._answered = True
                return result
            patience = self._patience if self._answered else FIRST_PATIENCE
            if time.monotonic() - started + pause > patience:
                raise Unreachable(f"{told}: {trouble}; {hint}")
            time.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(pause * 2, 10.0)


_session_lock = threading.Lock()


@functools.cache
def _session() -> Any:
    """Shared, since each session reads the service's description, a megabyte of JSON, anew."""
    import botocore.session

    return botocore.session.get_session()


def _make_client(location: S3Location, credentials: S3Credentials | None, ca_file: str | None) -> Any:
    from botocore.config import Config

    keys: dict[str, str | None] = {}
    if credentials is not None:
        keys = {
            "aws_access_key_id": credentials.access_key_id,
            "aws_secret_access_key": credentials.secret_access_key,
            "aws_session_token": credentials.session_token or None,
        }
    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 1},
        # The object's checksum, which is known already, protects the body: hashing it again would only cost.
        s3={
            "addressing_style": "path" if location.force_path_style else "auto",
            "payload_signing_enabled": False,
        },
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra="backstay",
    )
    with _session_lock:  # making a client is not thread-safe
        return _session().create_client(
            "s3",
            region_name=location.region or "us-east-1",
            endpoint_url=location.endpoint or None,
            verify=ca_file,
            config=config,
            **keys,
        )


def _refusal(told: str, status: int, code: str, error: Exception) -> RepositoryError:
    if code == "NoSuchBucket":
        return BucketNotFound(f"{told}: there is no such bucket; create it, or correct its name or the endpoint")
    if status == 404 and code in ("NoSuchKey", "", "404", "NotFound"):
        return ObjectNotFound(f"{told}: there is no such object")
    if status == 416:
        return Corrupted(f"{told}: it is shorter than where the reading should begin")
    if status in (401, 403) or code in _DENIED_CODES:
        hint = _DENIED_CODES.get(code, "check the credentials and their rights on the bucket")
        return AccessDenied(f"{told}: {code or status}: {hint}")
    return StoreRefused(f"{told}: the server refuses: {_plain(error)}; check that the endpoint is an S3 server")


def _plain(error: BaseException) -> str:
    """One line for people, without object addresses and cut where a foreign server's answer would go on."""
    text = re.sub(r"<[^>]*>:?\s*", "", " ".join(str(error).split())).strip(" :")
    return text[:300] or type(error).__name__
