"""From a BackupStorage's name to its open repository, always with the Secrets as they are now."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from backstay.api.meta import InvalidObjectError, parse
from backstay.api.storage import BackupStorage
from backstay.kube.resource import STORAGES
from backstay.kube.runtime import Runtime
from backstay.repository import ObjectNotFound, Repository, RepositoryError, RepositoryNotFound, S3Location, S3Store
from backstay.storage.errors import StorageError, explain
from backstay.storage.secrets import StorageSecrets, read_secrets

#: Open repositories that are kept; each holds its index in memory once it was needed.
_KEPT = 8

#: What an open repository was opened with: UID and generation of the storage, version of its Secrets.
_Key = tuple[str, int, str]


@dataclass(frozen=True)
class OpenRepository:
    """A repository and the digest of its config file as it was when it was opened."""

    repository: Repository
    config: str


_cache: OrderedDict[_Key, OpenRepository] = OrderedDict()
_cache_lock = threading.Lock()


def open_repository(runtime: Runtime, namespace: str, storage_name: str, *, write: bool) -> Repository:
    """The repository of a BackupStorage, whose namespace must be enrolled, with all that is in it by now.

    `write` says what it is opened for: a ReadOnly storage is refused then.
    Raises StorageError, with words for the user, and UnavailableError.
    """
    storage = find_storage(runtime, namespace, storage_name)
    if not write:
        repository = open_to_read(runtime, storage)
        try:
            repository.load_index()
        except RepositoryError as error:
            raise explain(error, storage) from error
        return repository
    if storage.spec.access_mode == "ReadOnly":
        raise StorageError(
            "StorageReadOnly",
            f"BackupStorage {storage_name!r} is ReadOnly: backups need one whose spec.accessMode is ReadWrite",
            permanent=True,
        )
    # Opened anew: writers that share an open repository take each other's packs for stored before an index names them,
    # and if the one fails then, the other has committed a snapshot that cannot be read.
    secrets = read_secrets(runtime.client.as_account(namespace), storage)
    try:
        return Repository.open(connect(runtime, storage, secrets), secrets.password)
    except RepositoryError as error:
        raise explain(error, storage) from error


def open_to_read(runtime: Runtime, storage: BackupStorage) -> Repository:
    """The storage's repository, kept open for as long as neither the storage nor its Secrets change.

    Deriving the key from the password takes up to a second, and a loaded index is large. What others wrote meanwhile is
    found after `load_index`. Raises StorageError and UnavailableError.
    """
    secrets = read_secrets(runtime.client.as_account(storage.metadata.namespace), storage)
    kept = find_open(storage, secrets)
    if kept is not None:
        return kept.repository
    try:
        store = connect(runtime, storage, secrets)
        repository, config = Repository.open(store, secrets.password), config_digest(store)
    except RepositoryError as error:
        raise explain(error, storage) from error
    return keep(storage, secrets, OpenRepository(repository, config)).repository


def find_storage(runtime: Runtime, namespace: str, name: str) -> BackupStorage:
    """A BackupStorage by name. Raises StorageError when there is none."""
    found = runtime.client.find(STORAGES, name, namespace)
    if found is None:
        raise StorageError(
            "StorageNotFound",
            f"BackupStorage {name!r} does not exist in namespace {namespace!r}: create it or correct the name",
            permanent=True,
        )
    try:
        return parse(BackupStorage, found)
    except InvalidObjectError as error:
        raise StorageError("InvalidObject", str(error), permanent=True) from error


def connect(runtime: Runtime, storage: BackupStorage, secrets: StorageSecrets) -> S3Store:
    """The bucket and prefix of a storage; nothing is sent yet."""
    if secrets.credentials is None and not runtime.settings.pod_identity:
        # Otherwise whoever may write a BackupStorage could reach every bucket that the operator's own identity can.
        raise StorageError(
            "CredentialsMissing",
            f"name a Secret with keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in spec.s3.credentialsSecretRef of "
            f"BackupStorage {storage.metadata.name!r}; the operator's own identity is used only when the cluster's "
            "administrator sets BACKSTAY_POD_IDENTITY to true",
            permanent=True,
        )
    ca_file = _certificates_file(secrets.certificates) if secrets.certificates else None
    try:
        return S3Store(location(storage), secrets.credentials, ca_file)
    except RepositoryError as error:
        raise explain(error, storage) from error


def location(storage: BackupStorage) -> S3Location:
    """Where the storage's repository lies."""
    s3 = storage.spec.s3
    return S3Location(s3.bucket, s3.prefix.strip("/"), s3.endpoint, s3.region, s3.force_path_style)


def config_digest(store: S3Store) -> str:
    """What a repository's config looks like from outside, to notice cheaply that it was replaced.

    Raises RepositoryError; RepositoryNotFound when there is no config.
    """
    try:
        return hashlib.sha256(store.get("config")).hexdigest()
    except ObjectNotFound as error:
        raise RepositoryNotFound(f"there is no repository in bucket {store.location.bucket!r}") from error


def find_open(storage: BackupStorage, secrets: StorageSecrets) -> OpenRepository | None:
    """The repository that is open already for this storage and exactly these Secrets."""
    with _cache_lock:
        key = _key(storage, secrets)
        found = _cache.get(key)
        if found is not None:
            _cache.move_to_end(key)
        return found


def keep(storage: BackupStorage, secrets: StorageSecrets, opened: OpenRepository) -> OpenRepository:
    """Keep an open repository for the next ones who ask."""
    with _cache_lock:
        key = _key(storage, secrets)
        for stale in [known for known in _cache if known[0] == key[0] and known != key]:
            del _cache[stale]
        _cache[key] = opened
        _cache.move_to_end(key)
        while len(_cache) > _KEPT:
            _cache.popitem(last=False)
    return opened


def forget(storage_uid: str) -> None:
    """Open anew next time, because the repository was found wanting or the storage is gone."""
    with _cache_lock:
        for stale in [known for known in _cache if known[0] == storage_uid]:
            del _cache[stale]


def _key(storage: BackupStorage, secrets: StorageSecrets) -> _Key:
    return storage.metadata.uid, storage.metadata.generation, secrets.version


_directory: Path | None = None
_directory_lock = threading.Lock()


def _certificates_file(certificates: str) -> str:
    """A file with these certificates: the S3 library takes them by path only."""
    global _directory
    with _directory_lock:
        if _directory is None:
            _directory = Path(tempfile.mkdtemp(prefix="backstay-ca-"))
            atexit.register(shutil.rmtree, _directory, ignore_errors=True)
        path = _directory / f"{hashlib.sha256(certificates.encode()).hexdigest()}.pem"
        if not path.exists():
            path.write_text(certificates)
        return str(path)
