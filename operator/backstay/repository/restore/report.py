"""What a restore has done so far: counted, told to whoever watches, and handed over at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from backstay.repository.outcome import Progress, Restoration, Warning
from backstay.repository.restore.metadata import Losses

WARNINGS = 100
_PROGRESS_SECONDS = 0.25


class Report:
    """Figures and warnings of one restore; what they mean is told by `Restoration`, which has the same names.

    Any thread may `tell`; the rest is for the one that walks.
    """

    def __init__(
        self, progress: Callable[[Progress], None] | None, total_files: int | None, total_bytes: int | None
    ) -> None:
        self.files = self.bytes = self.dirs = self.deleted = 0
        self.files_restored = self.files_updated = self.files_unchanged = self.files_skipped = 0
        self.bytes_restored = self.bytes_skipped = 0
        self.files_verified = self.verify_errors = 0
        self.losses = Losses()
        self.damaged = 0
        self._errors: list[Warning] = []
        self._warnings: list[Warning] = []
        self._warning_count = 0
        self._progress = progress
        self._totals = (total_files, total_bytes)
        self._mutex = threading.Lock()
        self._told_at = 0.0
        self._done_files = self._done_bytes = 0

    def warn(self, path: bytes, message: str) -> None:
        """Something is not as the snapshot has it. `path`: from the root of the tree on, with a slash before it."""
        self._warning_count += 1
        if len(self._warnings) < WARNINGS:
            self._warnings.append(Warning(path.decode("utf-8", "replace"), message))

    def damage(self, path: bytes, message: str) -> None:
        """An entry is missing because the repository is damaged. `path` as for `warn`."""
        self.damaged += 1
        if len(self._errors) < WARNINGS:
            told = f"{message}; look for it in another snapshot, and see what else is damaged with 'check --read-data'"
            self._errors.append(Warning(path.decode("utf-8", "replace"), told, "error"))

    def tell(self, files: int, size: int, *, force: bool = False) -> None:
        """So many files more are done, and so many bytes."""
        with self._mutex:
            self._done_files += files
            self._done_bytes += size
            if self._progress is None:
                return
            at = time.monotonic()
            if not force and at - self._told_at <= _PROGRESS_SECONDS:
                return
            self._told_at = at
            progress = Progress(self._done_files, self._done_bytes, *self._totals)
        self._progress(progress)

    def skip(self, size: int) -> None:
        """A file of `size` bytes stays as it is, since that was asked."""
        self.files_skipped += 1
        self.bytes_skipped += size
        self.tell(1, size)

    def outcome(self) -> Restoration:
        """All of it, when nothing is left to do."""
        self.tell(0, 0, force=True)
        for path, message in self.losses.told():
            self.warn(path, message)
        return Restoration(
            files=self.files,
            bytes=self.bytes,
            dirs=self.dirs,
            warnings=tuple([*self._errors, *self._warnings][:WARNINGS]),
            warning_count=self.damaged + self._warning_count + self.losses.beyond(),
            files_restored=self.files_restored,
            files_updated=self.files_updated,
            files_unchanged=self.files_unchanged,
            files_skipped=self.files_skipped,
            deleted=self.deleted,
            bytes_restored=self.bytes_restored,
            bytes_skipped=self.bytes_skipped,
            files_verified=self.files_verified,
            verify_errors=self.verify_errors,
            damaged=self.damaged,
        )
