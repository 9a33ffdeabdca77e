"""A repository in an S3 bucket: named objects in, named objects out.

Requests, signatures, regions and the process's own identity are botocore's: boto3's core, which loads in half of its
time. Its retries are turned off, since ours tell apart what botocore cannot (`s3_connection`).
"""

from __future__ import annotations

import base64
import enum
import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backstay.repository.errors import Corrupted, ObjectNotFound, StoreRefused
from backstay.repository.stores.rate_limit import RateLimit
from backstay.repository.stores.s3_body import UploadBody, receive, receive_into
from backstay.repository.stores.s3_connection import S3Connection
from backstay.repository.stores.s3_errors import code_of
from backstay.repository.stores.store import Buffer

if TYPE_CHECKING:
    from backstay.repository.stores.object_lock import Deleted, Retention

CONNECTIONS = 16
PAGE = 1000  # names in an answer, which is as many as S3 gives
_PROBE = "backstay-probe-"


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


class Integrity(enum.Enum):
    """What proves, before an upload counts as done, that the server has the bytes that were sent."""

    CHECKSUM = "object checksum"  #: the server verifies the SHA-256 that is sent with the object
    SIGNATURE = "signed payload"  #: the server ignores it, and verifies the payload's hash in the signature
    MD5 = "Content-MD5"  #: the server verifies only this, which we then compute for each upload
    READ_BACK = "read back"  #: the server verifies nothing: each object is read again after it was written


class S3Store:
    """Objects under one bucket and prefix. Safe to use from several threads."""

    def __init__(
        self,
        location: S3Location,
        credentials: S3Credentials | Callable[[], S3Credentials] | None,
        ca_file: str | None = None,
        *,
        patience: float = 90.0,
        retention: Retention | None = None,
        upload_limit: int | None = None,
        download_limit: int | None = None,
        connections: int = CONNECTIONS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Nothing is sent yet.

        `credentials`: keys, or what gives them and is asked again when they are refused as expired; None: the process's
        own identity. `ca_file`: certificates to trust, in PEM, not the usual ones. `patience`: seconds for which
        transient errors are retried once the server has answered. `retention`: S3 Object Lock for each object that is
        written; see `object_lock.require`. `upload_limit`, `download_limit`: bytes per second of all transfers
        together. `connections`: requests at a time, others wait.
        """
        self.location = location
        self.retention = retention
        self.connection = S3Connection(location, credentials, ca_file, patience=patience, connections=connections)
        self._prefix = location.prefix.strip("/")
        self._upload_limit = RateLimit(upload_limit) if upload_limit else None
        self._download_limit = RateLimit(download_limit) if download_limit else None
        self._now = now
        self._integrity: Integrity | None = None
        self._checksums = True  # until the server says that it does not implement them

    # --- the five requests ----------------------------------------------------------------------------------------

    def put(self, name: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        """Store an object. `sha256`: the digest of `data` when it is known already, which saves computing it.

        The digest goes along as the object's checksum and as the signed hash of the payload, so that the server refuses
        what was damaged on the way. `data` is not copied: leave it alone until this returns.
        """
        digest = sha256 if sha256 is not None else hashlib.sha256(data).digest()
        try:
            self._upload(name, data, digest)
        except StoreRefused as error:
            if not self._checksums or code_of(error) != "NotImplemented":
                raise
            self._checksums = False
            self._upload(name, data, digest)
        if self._integrity is Integrity.READ_BACK and hashlib.sha256(self.get(name)).digest() != digest:
            raise Corrupted(f"writing {name} to {self.connection.where}: what was read back is not what was written")

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """An object's bytes, or `length` of them from `offset`. Raises ObjectNotFound."""
        return self.get_version(name, "", offset, length)

    def get_version(self, name: str, version: str, offset: int = 0, length: int | None = None) -> bytes:
        """The same of a version of the object, by its id; an empty id means the newest."""
        if length is not None and length <= 0:
            return b""
        wanted = self.address(name)
        if offset or length is not None:
            wanted["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        if version:
            wanted["VersionId"] = version

        def read(s3: Any) -> tuple[int, bytes]:
            answer = s3.get_object(**wanted)
            return answer["ResponseMetadata"]["HTTPStatusCode"], receive(answer["Body"], self._download_limit)

        status, body = self.connection.do(f"reading {name} from", read)
        if status == 200 and "Range" in wanted:  # whole: the server does not do ranges
            body = body[offset : None if length is None else offset + length]
        if length is not None and len(body) != length:
            raise Corrupted(
                f"reading {name} from {self.connection.where}: {length} bytes wanted at {offset}, only {len(body)} are"
                " there"
            )
        return body

    def get_into(self, name: str, offset: int, room: memoryview) -> None:
        """As `get`, of as many bytes as `room` takes, into memory that is there already."""
        wanted = {**self.address(name), "Range": f"bytes={offset}-{offset + len(room) - 1}"}

        def read(s3: Any) -> int:
            answer = s3.get_object(**wanted)
            if answer["ResponseMetadata"]["HTTPStatusCode"] == 200:
                answer["Body"].close()
                return -1
            return receive_into(answer["Body"], room, self._download_limit)

        count = self.connection.do(f"reading {name} from", read)
        if count < 0:  # whole: the server does not do ranges
            room[:] = self.get(name, offset, len(room))
        elif count != len(room):
            raise Corrupted(
                f"reading {name} from {self.connection.where}: {len(room)} bytes wanted at {offset}, only {count} there"
            )

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Names and sizes in bytes of the objects whose names begin with `prefix`, in the server's order."""
        token = ""
        while True:
            page = self._page(prefix, PAGE, token)
            for item in page.get("Contents", ()):
                yield self.name_of(item["Key"]), item["Size"]
            token = page.get("NextContinuationToken", "") if page.get("IsTruncated") else ""
            if not token:
                return

    def delete(self, name: str) -> None:
        """Remove an object; that it is gone already is no error. In a bucket with versions this only hides it."""
        try:
            self.connection.do(f"deleting {name} from", lambda s3: s3.delete_object(**self.address(name)))
        except ObjectNotFound:
            return

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        # Not a HEAD: its refusals have no body, so a missing bucket could not be told from a missing object.
        try:
            self.connection.do(f"looking for {name} in", lambda s3: s3.get_object(**self.address(name))["Body"].close())
        except ObjectNotFound:
            return False
        return True

    # --- proofs ---------------------------------------------------------------------------------------------------

    def probe(self, *, write: bool = True) -> None:
        """Prove that the bucket can be used: write, read back, list and delete a small object (or list only).

        Also finds out what `integrity` tells, and that the bucket can do the `retention` that was asked for.
        Raises AccessDenied, BucketNotFound, Unreachable, ObjectLockUnavailable or StoreRefused, whose message tells
        which step failed.
        """
        self._page("", 1)  # first, since some servers create a missing bucket when it is written to
        if not write:
            return
        if self.retention is not None:
            from backstay.repository.stores import object_lock

            object_lock.require(self)
        name, content = _PROBE + secrets.token_hex(8), secrets.token_bytes(64)
        self.put(name, content)
        try:
            if self.get(name) != content:
                raise Corrupted(f"probing {self.connection.where}: what was read back is not what was written")
            if not any(found == name for found, _ in self.list(name)):
                raise StoreRefused(
                    f"probing {self.connection.where}: an object that was just written is not in the listing"
                )
            self.integrity()
        finally:
            self.delete(name)

    def integrity(self) -> Integrity:
        """What proves uploads to this server, found out by sending damaged ones, and from then on relied on.

        It costs one request with a good server and is remembered by this store. `probe` does it, and each `Writer`
        before its first pack.
        """
        if self._integrity is None:
            self._integrity = self._find_integrity()
        return self._integrity

    @property
    def integrity_found(self) -> Integrity | None:
        """The same as far as it was found out; nothing is sent."""
        return self._integrity

    def _find_integrity(self) -> Integrity:
        content = secrets.token_bytes(64)
        right, wrong = hashlib.sha256(content).digest(), bytes(32)
        md5 = base64.b64encode(bytes(16)).decode()
        for kind, digest, extra in (
            (Integrity.CHECKSUM, right, {"ChecksumSHA256": base64.b64encode(wrong).decode()}),
            (Integrity.SIGNATURE, wrong, {}),
            (Integrity.MD5, right, {"ContentMD5": md5}),
        ):
            if self._refuses_damage(content, digest, extra):
                return kind
        return Integrity.READ_BACK

    def _refuses_damage(self, content: bytes, digest: bytes, extra: dict[str, str]) -> bool:
        name = _PROBE + secrets.token_hex(8)

        def attempt(s3: Any) -> bool:
            from botocore.exceptions import ClientError

            try:
                s3.put_object(**self.address(name), Body=UploadBody(content, digest), **extra)
            except ClientError as error:
                # Only what names the damage; anything else may be a refusal of each and every upload, or may pass.
                if "Digest" in code_of(error) or "SHA256" in code_of(error) or "Checksum" in code_of(error):
                    return True
                if code_of(error) == "NotImplemented":
                    return False
                raise
            return False

        refused = self.connection.do("probing for damaged uploads in", attempt)
        if not refused:
            self.delete(name)
        return refused

    # --- Object Lock ----------------------------------------------------------------------------------------------

    def retain(self, names: Iterable[str], until: datetime) -> int:
        """Extend the retention of objects to `until`, where it is shorter; returns how many were extended."""
        from backstay.repository.stores import object_lock

        return object_lock.extend(self, names, until)

    def delete_versions(self, names: Iterable[str], now: datetime) -> Deleted:
        """Remove objects with all of their versions, as far as no retention forbids it; hide those that must stay."""
        from backstay.repository.stores import object_lock

        return object_lock.delete_versions(self, names, now)

    def sweep(self, now: datetime, prefix: str = "") -> Deleted:
        """Remove the versions that are hidden and whose retention is over, whoever hid them."""
        from backstay.repository.stores import object_lock

        return object_lock.sweep(self, now, prefix)

    # --- how a request is made ------------------------------------------------------------------------------------

    def address(self, name: str) -> dict[str, str]:
        """Where an object lies, as botocore's arguments."""
        return {"Bucket": self.location.bucket, "Key": self.key(name)}

    def key(self, name: str) -> str:
        """The key of an object in the bucket."""
        return f"{self._prefix}/{name}" if self._prefix else name

    def name_of(self, key: str) -> str:
        """The name of the object with a key that lies under our prefix."""
        return key[len(self._prefix) + 1 :] if self._prefix else key

    def _upload(self, name: str, data: Buffer, digest: bytes) -> None:
        extra: dict[str, Any] = {}
        if self._checksums:
            extra["ChecksumSHA256"] = base64.b64encode(digest).decode()
        if self._integrity is Integrity.MD5:
            extra["ContentMD5"] = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        if self.retention is not None and not name.startswith(("locks/", _PROBE)):
            extra["ObjectLockMode"] = self.retention.mode.upper()
            extra["ObjectLockRetainUntilDate"] = self.retention.until(self._now())
        self.connection.do(
            f"writing {name} to",
            lambda s3: s3.put_object(**self.address(name), Body=UploadBody(data, digest, self._upload_limit), **extra),
        )

    def _page(self, prefix: str, size: int, token: str = "") -> dict[str, Any]:
        following = {"ContinuationToken": token} if token else {}
        place = {"Bucket": self.location.bucket, "Prefix": self.key(prefix)}
        return self.connection.do(
            f"listing {prefix or 'objects'} in",
            lambda s3: s3.list_objects_v2(**place, MaxKeys=size, **following),
        )
