"""Proof that a storage can be used now: reached, written, read back, and opened by its password."""

from __future__ import annotations

import contextlib
import threading

from backstay.api.storage import BackupStorage
from backstay.kube.runtime import Runtime
from backstay.repository import Repository, RepositoryError, RepositoryExists, RepositoryNotFound, S3Store
from backstay.storage.access import OpenRepository, config_digest, connect, find_open, forget, keep
from backstay.storage.errors import StorageError, explain
from backstay.storage.secrets import read_secrets

#: Two storages of one bucket and prefix must not both find it empty and make a repository each.
_initialising = threading.Lock()


def prove(runtime: Runtime, storage: BackupStorage, known_id: str) -> Repository:
    """The storage's repository, after everything was tried that a backup will need; made when there is none.

    `known_id`: the repository that was found in this very place before, or empty. A place that has lost it is an
    error, not a reason to begin anew: somebody's restore points are gone, and that must be seen.
    Raises StorageError, with words for the user, and UnavailableError.
    """
    secrets = read_secrets(runtime.client.as_account(storage.metadata.namespace), storage)
    store = connect(runtime, storage, secrets)
    try:
        store.probe(write=storage.spec.access_mode != "ReadOnly")
        kept = find_open(storage, secrets)
        if kept is not None and kept.config == _config_or_none(store):
            return kept.repository
        repository = _open_or_init(runtime, storage, store, secrets.password, known_id)
        return keep(storage, secrets, OpenRepository(repository, config_digest(store))).repository
    except RepositoryError as error:
        forget(storage.metadata.uid)
        raise explain(error, storage) from error


def _open_or_init(runtime: Runtime, storage: BackupStorage, store: S3Store, password: str, known_id: str) -> Repository:
    try:
        return _checked(Repository.open(store, password), storage, known_id)
    except RepositoryNotFound:
        if known_id:
            raise _lost(storage, known_id, "is gone") from None
        if storage.spec.access_mode == "ReadOnly":
            raise
    with _initialising:
        runtime.leading()
        # That there is one by now means that another storage or cluster was quicker; its password decides.
        with contextlib.suppress(RepositoryExists):
            Repository.init(store, password)
        # Opened from the bucket and not taken from init: after a race with another cluster, the config that lies
        # there now is the one that counts, and our password must open it.
        return Repository.open(store, password)


def _checked(repository: Repository, storage: BackupStorage, known_id: str) -> Repository:
    if known_id and repository.id != known_id:
        raise _lost(storage, known_id, f"was replaced by repository {repository.id[:10]}")
    return repository


def _lost(storage: BackupStorage, known_id: str, what: str) -> StorageError:
    s3 = storage.spec.s3
    return StorageError(
        "RepositoryLost",
        f"repository {known_id[:10]}, which this storage held in bucket {s3.bucket!r}, prefix {s3.prefix!r}, {what}: "
        "bring the bucket's content back, or, to accept the loss, delete this BackupStorage and create it again",
        permanent=True,
    )


def _config_or_none(store: S3Store) -> str | None:
    try:
        return config_digest(store)
    except RepositoryNotFound:
        return None
