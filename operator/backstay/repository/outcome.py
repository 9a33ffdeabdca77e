"""What a backup or a restore came to, and how far it is: the figures and warnings that are handed to whoever asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from backstay.repository.format.snapshot import Summary


class Warning(NamedTuple):
    """Something that was not carried over as asked: which path, and what happened to it.

    `kind`: an error where content is missing because the repository is damaged.
    """

    path: str
    message: str
    kind: Literal["warning", "error"] = "warning"


@dataclass(frozen=True)
class Progress:
    """How far a backup or restore is. Totals are None while they are not known."""

    files: int
    bytes: int
    total_files: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True)
class Archive:
    """What a backup of one directory made.

    `tree`: hexadecimal id of the root's tree. `added_bytes`: bytes newly stored, compressed. `warnings` holds the first
    few; `warning_count` is exact. `notes`: the first few things that were left out as they should be.
    `changed_while_read`: files whose content may be of no single moment.
    """

    tree: str
    files: int
    dirs: int
    bytes: int
    added_bytes: int
    notes: tuple[Warning, ...] = ()
    warnings: tuple[Warning, ...] = ()
    warning_count: int = 0
    changed_while_read: int = 0
    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    dirs_new: int = 0
    dirs_changed: int = 0
    dirs_unmodified: int = 0
    data_blobs: int = 0
    tree_blobs: int = 0
    data_added: int = 0

    def summary(self, begun: datetime, ended: datetime) -> Summary:
        """The figures as a snapshot carries them. `begun` and `ended`: of the backup."""
        return Summary(
            backup_start=begun,
            backup_end=ended,
            files_new=self.files_new,
            files_changed=self.files_changed,
            files_unmodified=self.files_unmodified,
            dirs_new=self.dirs_new,
            dirs_changed=self.dirs_changed,
            dirs_unmodified=self.dirs_unmodified,
            data_blobs=self.data_blobs,
            tree_blobs=self.tree_blobs,
            data_added=self.data_added,
            data_added_packed=self.added_bytes,
            total_files_processed=self.files,
            total_bytes_processed=self.bytes,
        )


@dataclass(frozen=True)
class Restoration:
    """What a restore did, or in a dry run would do. `warnings` holds the first few; `warning_count` is exact.

    `damaged`: entries that could not be restored since the repository has lost something of them, which is exact too; a
    directory counts as one. Each is a warning of kind error, and these come first. A restore with any has failed.

    `files`, `bytes`: all files of the snapshot that were selected, and their content; a further name of a file counts
    no bytes. Of these files `files_restored` were made, `files_updated` had some blobs or their length corrected in
    place, `files_unchanged` held everything already, and `files_skipped` were left as they are, as `overwrite` asks.
    `bytes_restored` were written, `bytes_skipped` not. `deleted`: entries that went because the snapshot lacks them.
    `files_verified` were read back, and `verify_errors` of them were not as they should be: each is a warning too.
    """

    files: int
    bytes: int
    dirs: int = 0
    warnings: tuple[Warning, ...] = ()
    warning_count: int = 0
    files_restored: int = 0
    files_updated: int = 0
    files_unchanged: int = 0
    files_skipped: int = 0
    deleted: int = 0
    bytes_restored: int = 0
    bytes_skipped: int = 0
    files_verified: int = 0
    verify_errors: int = 0
    damaged: int = 0
