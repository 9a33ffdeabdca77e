"""BackupStorage: from the user's wish to an open repository, and from what lies in it to Backup objects."""

from backstay.storage.access import open_repository
from backstay.storage.errors import StorageError
from backstay.storage.mover_access import MoverAccess, mover_access

__all__ = ["MoverAccess", "StorageError", "mover_access", "open_repository"]
