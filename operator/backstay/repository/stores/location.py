"""Where a repository lies, in the words of restic's RESTIC_REPOSITORY."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from backstay.repository.errors import StoreRefused
from backstay.repository.stores.local import LocalLocation, LocalStore
from backstay.repository.stores.s3 import S3Credentials, S3Location, S3Store

if TYPE_CHECKING:
    from backstay.repository.stores.object_lock import Retention

_FORMS = "s3:https://host/bucket/prefix, or a directory: local:/path or /path"
#: restic's other kinds of places.
_OTHERS = {"sftp", "rest", "rclone", "b2", "azure", "gs", "swift"}
_AMAZON = re.compile(r"s3[.-](?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?|s3\.amazonaws\.com", re.ASCII)


def parse(url: str, *, region: str = "") -> S3Location | LocalLocation:
    """A place as restic writes it. `region`: of the bucket, where the address does not tell it.

    Raises StoreRefused when it is none that is known here. The same words lead to the same objects as with restic:
    `s3:host/bucket` and `s3://host/bucket` mean https.
    """
    scheme, separator, rest = url.partition(":")
    if not url:
        raise StoreRefused(f"no place is given for the repository; name one: {_FORMS}")
    if separator and scheme == "s3":
        return _s3(url, rest, region)
    if separator and scheme == "local":
        if not rest:
            raise StoreRefused(f"the repository {url!r} has no path; write it as local:/path")
        return LocalLocation(rest)
    if separator and scheme in _OTHERS:
        raise StoreRefused(
            f"the repository {_hidden(url)!r} lies in a place of kind {scheme!r}, which is not supported; use {_FORMS},"
            " or copy it with restic"
        )
    if separator and not url.startswith(("/", "./", "../")):
        raise StoreRefused(
            f"the repository {_hidden(url)!r} is of no known kind; write it as {_FORMS} (a path with a colon needs"
            " local: before it)"
        )
    return LocalLocation(url)


def open_store(
    location: S3Location | LocalLocation,
    credentials: S3Credentials | Callable[[], S3Credentials] | None = None,
    ca_file: str | None = None,
    *,
    patience: float = 90.0,
    retention: Retention | None = None,
    upload_limit: int | None = None,
    download_limit: int | None = None,
    **options: Any,
) -> S3Store | LocalStore:
    """The store at a place; arguments as those of S3Store, and of no effect in a directory.

    Nothing is sent or touched yet. Raises StoreRefused when retention is asked of a directory.
    """
    if isinstance(location, LocalLocation):
        if retention is not None:
            raise StoreRefused(f"the directory {location.path} cannot retain objects; only S3 with Object Lock can")
        return LocalStore(location.path)
    return S3Store(
        location,
        credentials,
        ca_file,
        patience=patience,
        retention=retention,
        upload_limit=upload_limit,
        download_limit=download_limit,
        **options,
    )


def _s3(url: str, rest: str, region: str) -> S3Location:
    if rest.startswith("http"):
        try:
            parts = urlsplit(rest)
            parts.port  # noqa: B018  (looks at it, and raises)
        except ValueError as error:
            raise StoreRefused(f"the repository {_hidden(url)!r} is no address: {error}") from error
        scheme, host, path = parts.scheme, parts.netloc.rpartition("@")[2], unquote(parts.path)
    else:
        scheme = "https"
        host, _, path = rest.removeprefix("//").partition("/")
    bucket, _, prefix = path.lstrip("/").partition("/")
    if scheme not in ("http", "https") or not host or not bucket:
        raise StoreRefused(f"the repository {_hidden(url)!r} names no server and bucket; write it as {_FORMS}")
    prefix = posixpath.normpath(prefix).strip("/") if prefix.strip("/") else ""
    amazon = _AMAZON.fullmatch(host)
    if amazon and scheme == "https":  # botocore knows the way better, and follows when the bucket is elsewhere
        return S3Location(bucket, prefix, "", region or amazon["region"] or "")
    return S3Location(bucket, prefix, f"{scheme}://{host}", region, force_path_style=True)


def _hidden(url: str) -> str:
    """Without a password that may stand in it."""
    return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:***@", url)
