"""What proves that an upload arrived as it was sent: the server's doing, which nobody would see if it were not told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backstay.cli.repo.output import Output
from backstay.repository.errors import RepositoryError

if TYPE_CHECKING:
    from backstay.repository.stores.store import Store

_NOTES = {
    "SIGNATURE": "the server does not verify objects' checksums, but the hash in each request's signature",
    "MD5": "the server verifies no SHA-256 of what is uploaded, only MD5",
    "READ_BACK": "the server does not verify what is uploaded, so each object is read again after it was written",
}


def upload_integrity(store: Store, output: Output) -> dict[str, str]:
    """The member of a summary that names the proof, on S3; a note when it is not the object's checksum."""
    from backstay.repository.stores.local import LocalStore

    if isinstance(store, LocalStore):
        return {}
    from backstay.repository.stores.s3 import S3Store

    if not isinstance(store, S3Store):  # nothing is written there
        return {}
    try:
        kind = store.integrity().name
    except RepositoryError:  # such as no right to delete the probe: no reason for what was written to have failed
        return {}
    if kind in _NOTES:
        output.note(_NOTES[kind])
    return {"upload_integrity": kind}
