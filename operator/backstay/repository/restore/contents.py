"""The contents of a restore's files: collected into batches, compared with what is there, planned, written, read back.

While one batch is written, the next is collected; a batch is settled in the order in which it came, and what must wait
for its files (further names of them, the modes of their directories) is done then. So a restore holds a few batches in
memory, however large the snapshot is, and even one file may go through many batches.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from backstay.repository.directories import Directories, join
from backstay.repository.errors import Corrupted, TargetError
from backstay.repository.format.blob import BlobType
from backstay.repository.reader import Reader
from backstay.repository.restore import files as restore_files
from backstay.repository.restore import metadata
from backstay.repository.restore import plan as restore_plan
from backstay.repository.restore.existing import Options
from backstay.repository.restore.files import Occupied
from backstay.repository.restore.flow import Flow, Result
from backstay.repository.restore.orders import Candidate, Compare, Loss, Part, Written
from backstay.repository.restore.plan import File, Portion, Wanted
from backstay.repository.restore.report import Report

Answer = TypeVar("Answer")

PIECES = 8_192  # of files in a batch
FILES = 4_096
_RUNNING = 2  # batches that are being written
_COMPARED = 32 << 20  # bytes of files in one order to compare
_CANDIDATES = 512


class _Batch:
    def __init__(self) -> None:
        self.wanted: dict[bytes, Wanted] = {}
        self.existing: dict[File, list[tuple[bytes, int, int]]] = {}
        self.files: list[File] = []  # whose content ends in this batch
        self.pieces = 0
        self.after: list[Callable[[], None]] = []
        self.fetches: list[Future[list[Future[Result]]]] = []
        self.jobs: list[Future[Result]] = []


class Contents:
    """Puts contents into files. One thread calls it."""

    def __init__(
        self,
        reader: Reader,
        flow: Flow | None,
        directories: Directories,
        report: Report,
        options: Options,
    ) -> None:
        """`flow` None: there is no target, and nothing is done but counting."""
        self._reader = reader
        self._flow = flow
        self._directories = directories
        self._report = report
        self._options = options
        self._batch = _Batch()
        self._running: deque[_Batch] = deque()
        self._unfinished: dict[File, None] = {}  # made here, and not whole yet
        self._spoiled = False  # whether any file has lost something

    def add(self, file: File, content: Sequence[str]) -> None:
        """Have a file written, or compared and corrected when it has an identity."""
        old = file.identity is not None
        batch = self._batch
        pieces: list[tuple[bytes, int, int]] = []
        if old:
            batch.existing[file] = pieces
        for text in content:
            try:
                blob_id = bytes.fromhex(text)
            except ValueError:
                blob_id = b""
            if len(blob_id) != 32:
                self._spoil(file, f"it refers to {text[:80]!r}, which is no id")
                break
            if batch.pieces >= PIECES:
                file.whole = False
                self.launch()
                batch = self._batch
                pieces = []
                file.pieces = 0
                if old:
                    batch.existing[file] = pieces
            wanted = batch.wanted.get(blob_id)
            if wanted is None:
                try:
                    wanted = Wanted(blob_id, self._reader.locate(BlobType.DATA, blob_id))
                except Corrupted as error:
                    self._spoil(file, str(error))
                    break
                batch.wanted[blob_id] = wanted
            size = wanted.size
            if old:
                pieces.append((blob_id, file.size, size))
            else:
                wanted.places.append((file, file.size))
                file.pieces += 1
                file.written += size
            file.size += size
            batch.pieces += 1
        batch.files.append(file)
        if len(batch.files) >= FILES or batch.pieces >= PIECES:
            self.launch()

    def after(self, work: Callable[[], None]) -> None:
        """Do something when all files that were added so far are written."""
        self._batch.after.append(work)
        if len(self._batch.after) >= FILES:
            self.launch()

    def launch(self) -> None:
        """Have what was collected written, while more is collected."""
        batch, self._batch = self._batch, _Batch()
        if self._spoiled:
            for wanted in batch.wanted.values():
                wanted.places = [place for place in wanted.places if not place[0].fault]
            batch.existing = {file: pieces for file, pieces in batch.existing.items() if not file.fault}
        if batch.existing:
            self._compare(batch)
        if not self._options.dry_run and self._flow is not None:
            ranges = list(restore_plan.ranges(wanted for wanted in batch.wanted.values() if wanted.places))
            for found in ranges:
                for portion in found.portions:
                    self._make_partly_written(portion.order.parts, portion.files)
            empty = [
                file for file in batch.files if not file.done and not file.pieces and file.whole and not file.fault
            ]
            batch.jobs = [self._flow.write(portion) for portion in restore_plan.empties(empty)]
            batch.fetches = [self._flow.fetch(found) for found in ranges]
        self._running.append(batch)
        while len(self._running) > _RUNNING:
            self._settle()

    def finish(self) -> None:
        """Return when everything is done."""
        self.launch()
        while self._running:
            self._settle()

    def abandon(self) -> None:
        """Remove what was made and will never be whole. Nobody may be writing any more."""
        for file in self._unfinished:
            with suppress(OSError):
                os.unlink(file.name, dir_fd=self._directories.descriptor(file.directory))

    # --- what is there already ------------------------------------------------------------------------------------

    def _compare(self, batch: _Batch) -> None:
        """Find out what existing files lack; only that goes on to be written."""
        assert self._flow is not None
        orders = list(self._orders(batch.existing, amend=not self._options.dry_run))
        answers = self._flow.compare(order for order, _ in orders)
        for (_, files), answer in zip(orders, answers, strict=True):
            compared = self._result(answer)
            self._lose(compared.losses)
            for file, found in zip(files, compared.found, strict=True):
                pieces = batch.existing[file]
                present, same_size = found if found is not None else (bytes(len(pieces)), False)
                for (blob_id, offset, size), there in zip(pieces, present, strict=True):
                    if not there:
                        batch.wanted[blob_id].places.append((file, offset))
                        file.pieces += 1
                        file.written += size
                if file.whole and not file.written and same_size:
                    file.done = True
                    self._report.tell(1, 0)

    def _orders(
        self, files: dict[File, list[tuple[bytes, int, int]]], *, amend: bool
    ) -> Iterator[tuple[Compare, list[File]]]:
        numbers: dict[bytes, int] = {}
        order, some, size = Compare([], []), list[File](), 0
        for file, pieces in files.items():
            directory = numbers.setdefault(file.directory, len(numbers))
            if directory == len(order.directories):
                order.directories.append(file.directory)
            attributes = file.attributes if amend and file.whole else None
            order.candidates.append(
                Candidate(directory, file.name, file.size if file.whole else -1, pieces, attributes)
            )
            some.append(file)
            size += sum(length for _, _, length in pieces)
            if size >= _COMPARED or len(some) >= _CANDIDATES:
                yield order, some
                numbers, order, some, size = {}, Compare([], []), [], 0
        if some:
            yield order, some

    # --- writing --------------------------------------------------------------------------------------------------

    def _make_partly_written(self, parts: list[Part], files: list[File]) -> None:
        """Make those new files that more than one order will write into."""
        for part, file in zip(parts, files, strict=True):
            if part.attributes is not None:
                continue
            if file.identity is None:
                try:
                    directory = self._directories.descriptor(file.directory)
                    descriptor = restore_files.create(directory, file.name, 0o600, replace=self._options.replace)
                except Occupied:
                    raise TargetError(
                        f"restoring {os.fsdecode(self._shown(file))}: somebody made a file there meanwhile; restore"
                        " into a directory that nobody else changes"
                    ) from None
                except OSError as error:
                    raise restore_files.target_error(error, self._shown(file)) from error
                status = os.fstat(descriptor)
                os.close(descriptor)
                file.identity = (status.st_dev, status.st_ino)
                self._unfinished[file] = None
            part.identity = file.identity

    def _settle(self) -> None:
        batch = self._running.popleft()
        for fetch in batch.fetches:
            for job in self._result(fetch):
                self._written(*self._result(job))
        for job in batch.jobs:
            self._written(*self._result(job))
        for file in batch.files:
            if file.fault:
                self._give_up(file)
                continue
            if not file.done:
                if not self._options.dry_run:
                    self._finish(file)
                self._report.tell(1, 0)
            self._count(file)
        if self._options.verify and not self._options.dry_run:
            self._read_back(batch)
        for work in batch.after:
            work()

    def _result(self, future: Future[Answer]) -> Answer:
        """What a thread came to. Raises what went wrong first, since the rest may be its consequence only."""
        try:
            return future.result()
        except BaseException:
            assert self._flow is not None
            if self._flow.failure is not None:
                raise self._flow.failure from None
            raise

    def _written(self, written: Written, portion: Portion) -> None:
        self._lose(written.losses)
        damaged = {each.part: each for each in written.damaged}
        for number, (part, file) in enumerate(zip(portion.order.parts, portion.files, strict=True)):
            if number in damaged:
                file.touched |= damaged[number].touched
                self._spoil(file, damaged[number].fault)
            elif part.attributes is not None:
                file.done = True
            else:
                file.touched = True
        for number in written.occupied:
            portion.files[number].occupied = True

    def _lose(self, losses: list[Loss]) -> None:
        for loss in losses:
            self._report.losses.add(loss.kind, loss.path, loss.detail, loss.count)

    def _finish(self, file: File) -> None:
        """What several orders have written gets its length and attributes."""
        assert file.identity is not None
        try:
            directory = self._directories.descriptor(file.directory)
            descriptor = restore_files.reopen(directory, file.name, file.identity)
            try:
                if os.fstat(descriptor).st_size != file.size:
                    os.ftruncate(descriptor, file.size)
                path = b"/" + join(file.directory, file.name)
                metadata.apply(descriptor, file.attributes, self._report.losses, path)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise restore_files.target_error(error, self._shown(file)) from error
        self._unfinished.pop(file, None)

    def _spoil(self, file: File, fault: str) -> None:
        """What a file should hold is lost, so nothing more is written into it."""
        self._spoiled = True
        file.fault = file.fault or fault

    def _give_up(self, file: File) -> None:
        """The end of a file that has lost something: what was made of it goes, but what was there before stays."""
        if file in self._unfinished:
            del self._unfinished[file]
            with suppress(OSError):
                os.unlink(file.name, dir_fd=self._directories.descriptor(file.directory))
        became = "it is not restored"
        if not file.fresh:
            became = "its old content stays, in part overwritten" if file.touched else "its old content stays"
        self._report.damage(b"/" + join(file.directory, file.name), f"{became}: {file.fault}")
        self._report.tell(1, 0)

    def _count(self, file: File) -> None:
        report = self._report
        if file.occupied:
            report.warn(
                b"/" + join(file.directory, file.name), "was made by somebody else meanwhile, and was left alone"
            )
            report.files_skipped += 1
            report.bytes_skipped += file.size
            return
        if file.fresh:
            report.files_restored += 1
        elif file.written or file.old_size != file.size:
            report.files_updated += 1
        else:
            report.files_unchanged += 1
        report.bytes_restored += file.written
        if skipped := file.size - file.written:
            report.bytes_skipped += skipped
            report.tell(0, skipped)

    # --- reading back ---------------------------------------------------------------------------------------------

    def _read_back(self, batch: _Batch) -> None:
        """Compare what was written with what should be there."""
        assert self._flow is not None
        pieces: dict[File, list[tuple[bytes, int, int]]] = {
            file: [] for file in batch.files if file.fresh and not file.occupied and not file.fault
        }
        for wanted in batch.wanted.values():
            for file, offset in wanted.places:
                if not file.fault:
                    pieces.setdefault(file, []).append((wanted.id, offset, wanted.size))
        ended = set(batch.files)
        orders = list(self._orders(pieces, amend=False))
        answers = self._flow.compare(order for order, _ in orders)
        for (_, files), answer in zip(orders, answers, strict=True):
            for file, found in zip(files, self._result(answer).found, strict=True):
                self._report.files_verified += file.whole or file in ended
                if found is None or 0 in found[0] or not found[1]:
                    self._report.verify_errors += 1
                    what = "could not be read back" if found is None else "does not hold what was written into it"
                    self._report.warn(b"/" + join(file.directory, file.name), what)

    def _shown(self, file: File) -> bytes:
        return self._directories.shown(join(file.directory, file.name))
