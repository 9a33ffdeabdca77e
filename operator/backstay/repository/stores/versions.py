"""The versions of objects, in a bucket that keeps them: what overwrites and deletions leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from backstay.repository.errors import Corrupted

if TYPE_CHECKING:
    from backstay.repository.stores.s3 import S3Store

PAGE = 1000  # versions in an answer, which is as many as S3 gives


@dataclass(frozen=True)
class Version:
    """One version of an object, or a delete marker, which has no content.

    `size`: bytes. `written`: UTC, whole seconds on most servers. `newest`: it is what a plain read sees.
    """

    name: str
    id: str
    size: int
    written: datetime
    newest: bool
    marker: bool


def histories(store: S3Store, prefix: str) -> Iterator[tuple[str, list[Version]]]:
    """Each object whose name begins with `prefix`, in order of names, with all its versions, the newest first."""
    for name, found in groupby(_all(store, prefix), key=lambda version: version.name):
        # One page tells versions and markers apart from each other; the newest is first, whatever the clock says.
        yield name, sorted(found, key=lambda version: (version.newest, version.written), reverse=True)


def history(store: S3Store, name: str) -> list[Version]:
    """All versions of one object, the newest first."""
    for found, versions in histories(store, name):
        if found == name:
            return versions
        break  # names are listed in order, and the name itself is the first that begins with it
    return []


def _all(store: S3Store, prefix: str) -> Iterator[Version]:
    place = {"Bucket": store.location.bucket, "Prefix": store.key(prefix)}

    def page_after(following: dict[str, str]) -> dict[str, Any]:
        return store.connection.do(
            f"listing versions of {prefix or 'objects'} in",
            lambda s3: s3.list_object_versions(**place, **following, MaxKeys=PAGE),
        )

    following: dict[str, str] = {}
    while True:
        page = page_after(following)
        found = [
            *(_version(store, item, marker=False) for item in page.get("Versions", ())),
            *(_version(store, item, marker=True) for item in page.get("DeleteMarkers", ())),
        ]
        yield from sorted(found, key=lambda version: version.name.encode())
        if not page.get("IsTruncated"):
            return
        markers = {"KeyMarker": page.get("NextKeyMarker", ""), "VersionIdMarker": page.get("NextVersionIdMarker", "")}
        if not markers["KeyMarker"] or markers == following:
            raise Corrupted(f"listing versions in {store.connection.where}: the server's pages do not go on")
        following = {key: value for key, value in markers.items() if value}


def _version(store: S3Store, item: dict[str, Any], *, marker: bool) -> Version:
    try:
        return Version(
            store.name_of(item["Key"]),
            item.get("VersionId", "null"),
            int(item.get("Size", 0)),
            timestamp(item["LastModified"]),
            bool(item.get("IsLatest")),
            marker,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupted(f"listing versions in {store.connection.where}: the server's answer makes no sense") from error


def timestamp(told: Any) -> datetime:
    """A time of an S3 answer, in UTC."""
    found = told if isinstance(told, datetime) else datetime.fromisoformat(str(told))
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
