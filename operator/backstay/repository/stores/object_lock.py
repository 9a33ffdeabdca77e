"""S3 Object Lock: objects that nobody can remove before their time, not even with our keys.

Each object but the locks is written with a retention of its own. A default retention of the bucket is refused, since it
would hold locks too: they could not be removed, and each would block the repository until it is stale.

In such a bucket a plain deletion only hides an object behind a delete marker. Space comes back when its versions are
deleted by id, after their retention: at once by `delete_versions`, or later by `sweep`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from backstay.repository.errors import AccessDenied, ObjectLockUnavailable, ObjectNotFound, RepositoryError
from backstay.repository.stores.s3_errors import code_of
from backstay.repository.stores.versions import Version, histories, history, timestamp

if TYPE_CHECKING:
    from backstay.repository.stores.s3 import S3Store

Item = TypeVar("Item")
Result = TypeVar("Result")

_LONGEST = 36500  # days
_UNLOCKED_CODES = {
    "NoSuchObjectLockConfiguration",
    "ObjectLockConfigurationNotFoundError",
    "ObjectLockConfigurationNotFound",
}


@dataclass(frozen=True)
class Retention:
    """For how long an object is kept from everybody.

    `mode`: "Governance" lets those with a special right shorten it, "Compliance" lets nobody. `days`: from the writing.
    """

    mode: Literal["Governance", "Compliance"]
    days: int

    def __post_init__(self) -> None:
        if self.mode not in ("Governance", "Compliance"):
            raise ValueError(f"retention mode {self.mode!r} is neither Governance nor Compliance")
        if not 1 <= self.days <= _LONGEST:
            raise ValueError(f"a retention of {self.days} days is not between 1 and {_LONGEST}")

    def until(self, now: datetime) -> datetime:
        """When the retention of what is written now is over, in whole seconds, which is what S3 takes."""
        return (now + timedelta(days=self.days)).astimezone(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Deleted:
    """What a deletion by versions came to. `bytes` are freed, `retained_bytes` are not yet, at the latest `until`."""

    versions: int = 0
    bytes: int = 0
    retained_versions: int = 0
    retained_bytes: int = 0
    until: datetime | None = None

    def __add__(self, other: Deleted) -> Deleted:
        known = [time for time in (self.until, other.until) if time is not None]
        return Deleted(
            self.versions + other.versions,
            self.bytes + other.bytes,
            self.retained_versions + other.retained_versions,
            self.retained_bytes + other.retained_bytes,
            max(known, default=None),
        )


def require(store: S3Store) -> None:
    """Prove that the bucket can keep single objects. Raises ObjectLockUnavailable with the reason."""
    told = f"Object Lock in {store.connection.where}"
    bucket = store.location.bucket
    try:
        versioning = store.connection.do(
            "reading the versioning of", lambda s3: s3.get_bucket_versioning(Bucket=bucket)
        ).get("Status")
        answer = store.connection.do(
            "reading the Object Lock configuration of", lambda s3: s3.get_object_lock_configuration(Bucket=bucket)
        )
    except RepositoryError as error:
        if code_of(error) in _UNLOCKED_CODES:
            raise ObjectLockUnavailable(
                f"{told}: the bucket was made without it; make a bucket with Object Lock, or ask for no retention"
            ) from error
        if code_of(error) in ("NotImplemented", "MethodNotAllowed", "InvalidRequest"):
            raise ObjectLockUnavailable(
                f"{told}: the server does not implement it; use one that does, or ask for no retention"
            ) from error
        raise
    settings = answer.get("ObjectLockConfiguration", {})
    if settings.get("ObjectLockEnabled") != "Enabled":
        raise ObjectLockUnavailable(
            f"{told}: the bucket was made without it; make a bucket with Object Lock, or ask for no retention"
        )
    if versioning != "Enabled":
        raise ObjectLockUnavailable(f"{told}: the bucket does not keep versions; enable its versioning")
    if settings.get("Rule", {}).get("DefaultRetention"):
        raise ObjectLockUnavailable(
            f"{told}: the bucket has a default retention, which would hold locks too, so that they could not be removed"
            " and would block the repository; remove the default: each object that must stay gets its own retention"
        )


def extend(store: S3Store, names: Iterable[str], until: datetime) -> int:
    """Extend the retention of objects to `until` where it is shorter; returns how many were extended.

    Those that are not there (any more) raise ObjectNotFound: what a snapshot needs must be there to be kept.
    """
    until = until.astimezone(UTC).replace(microsecond=0)
    mode = (store.retention.mode if store.retention else "Governance").upper()

    def one(name: str) -> bool:
        held = _retention(store, name, "")
        if held is not None and held[1] >= until:
            return False
        store.connection.do(
            f"extending the retention of {name} in",
            # A stricter mode that somebody set stays.
            lambda s3: s3.put_object_retention(
                **store.address(name), Retention={"Mode": held[0] if held else mode, "RetainUntilDate": until}
            ),
        )
        return True

    return sum(_each(store, names, one))


def delete_versions(store: S3Store, names: Iterable[str], now: datetime) -> Deleted:
    """Remove objects with all of their versions, as far as no retention forbids it at `now`.

    What must stay is hidden behind a delete marker, so that it is gone from listings, and counted; `sweep` removes it
    when its time has come.
    """

    def one(name: str) -> Deleted:
        found = history(store, name)
        done = _delete_all(store, [version for version in found if not version.marker], now)
        if done.retained_versions:
            if not found[0].marker:
                store.delete(name)
        else:
            _delete_all(store, [version for version in found if version.marker], now)
        return done

    return sum(_each(store, names, one), Deleted())


def sweep(store: S3Store, now: datetime, prefix: str = "") -> Deleted:
    """Remove what is hidden, be it behind a delete marker or an overwrite, and whose retention is over at `now`.

    Reads the list of all versions under `prefix`, and the retention of each hidden one.
    """

    def one(item: tuple[str, list[Version]]) -> Deleted:
        _, found = item
        hidden = [version for version in found if not version.newest and not version.marker]
        done = _delete_all(store, hidden, now)
        if not done.retained_versions and all(version.marker or version in hidden for version in found):
            _delete_all(store, [version for version in found if version.marker], now)  # they hide nothing any more
        return done

    worn = (item for item in histories(store, prefix) if len(item[1]) > 1 or item[1][0].marker)
    return sum(_each(store, worn, one), Deleted())


def _delete_all(store: S3Store, versions: list[Version], now: datetime) -> Deleted:
    total = Deleted()
    for version in versions:
        total += _delete_one(store, version, now)
    return total


def _delete_one(store: S3Store, version: Version, now: datetime) -> Deleted:
    held = None if version.marker else _retention(store, version.name, version.id)
    retained = Deleted(retained_versions=1, retained_bytes=version.size, until=held[1] if held else None)
    if held is not None and held[1] > now:
        return retained
    try:
        store.connection.do(
            f"deleting version {version.id} of {version.name} from",
            lambda s3: s3.delete_object(**store.address(version.name), VersionId=version.id),
        )
    except ObjectNotFound:
        return Deleted()
    except AccessDenied:
        if held is None:
            raise
        return retained  # by the server's clock its time is not over, or somebody holds it for legal reasons
    return Deleted(versions=0 if version.marker else 1, bytes=version.size)


def _retention(store: S3Store, name: str, version: str) -> tuple[str, datetime] | None:
    """Mode and end of the retention of an object's version (empty: the newest). Raises ObjectNotFound."""
    which = {"VersionId": version} if version else {}
    try:
        found: dict[str, Any] = store.connection.do(
            f"reading the retention of {name} in", lambda s3: s3.get_object_retention(**store.address(name), **which)
        ).get("Retention", {})
    except RepositoryError as error:
        if code_of(error) == "MethodNotAllowed":  # as AWS says of a delete marker
            raise ObjectNotFound(f"{name} is not in {store.connection.where} (any more)") from error
        if code_of(error) not in _UNLOCKED_CODES:
            raise
        # Some servers say the same of an object that is hidden behind a delete marker.
        if not version and not store.exists(name):
            raise ObjectNotFound(f"{name} is not in {store.connection.where} (any more)") from error
        return None
    if not found.get("Mode") or not found.get("RetainUntilDate"):
        return None
    return str(found["Mode"]), timestamp(found["RetainUntilDate"])


def _each(store: S3Store, items: Iterable[Item], work: Callable[[Item], Result]) -> Iterator[Result]:
    """Results of `work` on each item, some at a time, however many there are."""
    rest = iter(items)
    with ThreadPoolExecutor(store.connection.connections, thread_name_prefix="object-lock") as executor:
        while batch := list(islice(rest, 16 * store.connection.connections)):
            yield from executor.map(work, batch)
