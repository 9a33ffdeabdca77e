"""From a directory to a tree in the repository: which directory is worked on when, and by whom.

What is below a directory is stored first, so that a tree is made when all ids in it are known. The newest task goes
first, which keeps the number of open directories small. With a crew the tasks go to its processes; this one knows what
is stored already, hands out the memory for packs, and uploads them.
"""

from __future__ import annotations

import os
import pickle
import selectors
import stat
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from backstay.repository.archive.orders import Below, Done, Exclude, Settings, Task
from backstay.repository.archive.scanner import WARNINGS, Scanner
from backstay.repository.archive.worker import (
    Ask,
    Filled,
    Finish,
    Finished,
    Flags,
    FromWorker,
    Slot,
    SlotWanted,
    Told,
    Tree,
)
from backstay.repository.crew import Channel, Crew
from backstay.repository.errors import Corrupted, SourceError
from backstay.repository.format import rfc3339, tree
from backstay.repository.format.blob import BlobType, Codec
from backstay.repository.format.chunker import Chunker
from backstay.repository.format.snapshot import Snapshot
from backstay.repository.outcome import Archive, Progress, Warning
from backstay.repository.reader import Reader

if TYPE_CHECKING:
    from backstay.repository.archive.writer import Writer

AHEAD = 2  # tasks that a process has, with the one that it is at
PIPE_BYTES = 64 << 10  # bytes that a pipe takes without anybody reading, with something to spare
CLOCK_TICK = 2_000_000_000  # ns by which a file's times must precede the parent's
_PROGRESS_SECONDS = 0.25


@dataclass
class _Open:
    """A directory that is not stored yet. `waiting`: how many directories below must be stored before.

    `trusted`: what the parent's tree of it names is in the repository, as far as is known.
    """

    path: bytes
    above: _Open | None
    before: bytes
    device: int
    device_number: int
    waiting: int = 0
    subtrees: dict[bytes, bytes] | None = None
    trusted: bool = True


@dataclass
class _Figures:
    files: int = 0
    size: int = 0
    new: int = 0
    changed: int = 0
    unmodified: int = 0
    changed_while_read: int = 0
    dirs: int = 0
    dirs_new: int = 0
    dirs_changed: int = 0
    dirs_unmodified: int = 0
    warnings: list[Warning] = field(default_factory=list)
    warning_count: int = 0
    notes: list[Warning] = field(default_factory=list)


class Archiver:
    """One walk over one directory."""

    def __init__(
        self, writer: Writer, reader: Reader, codec: Codec, seed: int, progress: Callable[[Progress], None] | None
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._codec = codec
        self._seed = seed
        self._progress = progress
        self._told_at = 0.0
        self._told_files = self._told_bytes = 0
        self._tasks: list[_Open] = []
        self._figures = _Figures()
        self._root_tree = b""

    def run(
        self,
        path: str,
        name: str,
        parent: Snapshot | None,
        crew: Crew | None,
        exclude: Exclude | None,
        *,
        one_file_system: bool,
        device_number: int,
    ) -> Archive:
        """Walk `path`. See Writer.backup."""
        writer = self._writer
        root = os.fsencode(path)
        added, plain = writer.added_bytes, writer.added_plain_bytes
        data_blobs, tree_blobs = (writer.added_blobs(kind) for kind in BlobType)
        try:
            status = os.stat(root)
            if not stat.S_ISDIR(status.st_mode):
                raise SourceError(f"reading {path}: it is not a directory")
            before = self._parent_tree(parent, name)
            settings = Settings(root, status.st_dev, device_number, self._parent_time(parent), one_file_system, exclude)
            scanner = Scanner(settings, writer, self._codec, lambda: Chunker(self._seed), self._tell)
        except OSError as error:
            raise SourceError(f"reading {path}: {error.strerror}; check the mount and this user's rights") from error
        try:
            scanner.prove_readable()
            self._tasks.append(_Open(b"", None, before, status.st_dev, device_number))
            if crew is not None and crew.usable:
                self._run_crew(crew, settings)
            else:
                self._run_here(scanner)
            tree_id = self._root_tree
            if name:
                node = scanner.root_node(tree.name_text(os.fsencode(name)), tree_id.hex())
                tree_id = writer.save_blob(BlobType.TREE, tree.join([node]))
        except OSError as error:
            raise SourceError(f"reading {path}: {error.strerror}; check the mount and this user's rights") from error
        finally:
            scanner.close()
        self._tell(0, 0, force=True)
        done = self._figures
        return Archive(
            tree=tree_id.hex(),
            files=done.files,
            dirs=done.dirs,
            bytes=done.size,
            added_bytes=writer.added_bytes - added,
            notes=tuple(done.notes),
            warnings=tuple(done.warnings),
            warning_count=done.warning_count,
            changed_while_read=done.changed_while_read,
            files_new=done.new,
            files_changed=done.changed,
            files_unmodified=done.unmodified,
            dirs_new=done.dirs_new,
            dirs_changed=done.dirs_changed,
            dirs_unmodified=done.dirs_unmodified,
            data_blobs=writer.added_blobs(BlobType.DATA) - data_blobs,
            tree_blobs=writer.added_blobs(BlobType.TREE) - tree_blobs,
            data_added=writer.added_plain_bytes - plain,
        )

    # --- the parent -----------------------------------------------------------------------------------------------

    def _parent_time(self, parent: Snapshot | None) -> int:
        if parent is None:
            return 0
        return rfc3339.to_ns(rfc3339.from_datetime(parent.time)) - CLOCK_TICK

    def _parent_tree(self, parent: Snapshot | None, name: str) -> bytes:
        """The id of the parent's tree of the root; none when it cannot be read."""
        if parent is None:
            return b""
        if not name:
            return bytes.fromhex(parent.tree)
        try:
            nodes = tree.decode(self._reader.tree(bytes.fromhex(parent.tree)), parent.tree)
        except Corrupted as error:
            self._warn(b"/", f"the parent cannot be used, so all is read again: {error}")
            return b""
        return next((bytes.fromhex(node.subtree) for node in nodes if node.name == name and node.subtree), b"")

    def _task(self, directory: _Open) -> Task:
        """What a worker needs to know. The parent's tree is fetched now and not before: many may be waiting."""
        task = Task(
            path=directory.path,
            device=directory.device,
            device_number=directory.device_number,
            subtrees=directory.subtrees,
            trusted=directory.trusted,
        )
        if directory.before:
            try:
                task.before, location = self._reader.sealed_tree(directory.before)
                task.before_id, task.before_length = directory.before, location.plain_length
            except Corrupted as error:
                self._warn(b"/" + directory.path, f"the parent cannot be used here, so all is read again: {error}")
        return task

    def is_large(self, directory: _Open) -> bool:
        """Whether the task of a directory is more than a pipe takes at once."""
        size = len(directory.path) + sum(len(name) + 40 for name in directory.subtrees or ())
        if directory.before:
            with suppress(Corrupted):  # told when the task is made
                size += self._reader.locate(BlobType.TREE, directory.before).length
        return size > PIPE_BYTES

    # --- the order of things --------------------------------------------------------------------------------------

    def _take_in(self, directory: _Open, outcome: Below | Done) -> None:
        if isinstance(outcome, Below):
            directory.waiting = len(outcome.names)
            directory.subtrees = directory.subtrees or {}
            prefix = directory.path + b"/" if directory.path else b""
            for name, before in zip(reversed(outcome.names), reversed(outcome.before), strict=True):
                self._tasks.append(_Open(prefix + name, directory, before, outcome.device, outcome.device_number))
            return
        if outcome.reused and 0 in self._writer.known(BlobType.DATA, outcome.reused):
            directory.trusted = False  # the repository has lost something that the parent has
            self._tasks.append(directory)
            return
        self._add_up(outcome)
        above = directory.above
        if above is None:
            self._root_tree = outcome.tree_id
            return
        assert above.subtrees is not None
        above.subtrees[directory.path.rpartition(b"/")[2]] = outcome.tree_id
        above.waiting -= 1
        if not above.waiting:
            self._tasks.append(above)

    def _add_up(self, done: Done) -> None:
        figures = self._figures
        for name in ("files", "size", "new", "changed", "unmodified", "changed_while_read", "warning_count"):
            setattr(figures, name, getattr(figures, name) + getattr(done, name))
        if done.tree_id:
            figures.dirs += 1
            figures.dirs_unmodified += done.unmodified_directory
            figures.dirs_changed += done.had_parent and not done.unmodified_directory
            figures.dirs_new += not done.had_parent
        for path, message in done.warnings[: WARNINGS - len(figures.warnings)]:
            figures.warnings.append(Warning(path.decode("utf-8", "replace"), message))
        for path, message in done.notes[: WARNINGS - len(figures.notes)]:
            figures.notes.append(Warning(path.decode("utf-8", "replace"), message))

    def _run_here(self, scanner: Scanner) -> None:
        while self._tasks:
            directory = self._tasks.pop()
            self._take_in(directory, scanner.run(self._task(directory)))
        scanner.tell()

    def _run_crew(self, crew: Crew, settings: Settings) -> None:
        try:
            _Foreman(self, crew, settings).run()
        except BaseException:
            crew.close()  # its processes are in the middle of something that nobody wants any more
            raise

    # --- telling --------------------------------------------------------------------------------------------------

    def _tell(self, files: int, size: int, *, force: bool = False) -> None:
        self._told_files += files
        self._told_bytes += size
        if self._progress is None:
            return
        at = time.monotonic()
        if force or at - self._told_at > _PROGRESS_SECONDS:
            self._told_at = at
            self._progress(Progress(self._told_files, self._told_bytes))

    def _warn(self, path: bytes, message: str) -> None:
        self._figures.warning_count += 1
        if len(self._figures.warnings) < WARNINGS:
            self._figures.warnings.append(Warning(path.decode("utf-8", "replace"), message))


class _Foreman:
    """Keeps the processes of a crew busy until all tasks are done."""

    def __init__(self, archiver: Archiver, crew: Crew, settings: Settings) -> None:
        self._archiver = archiver
        self._writer = archiver._writer
        self._crew = crew
        self._orders: dict[Channel, deque[_Open]] = {channel: deque() for channel in crew.channels}
        self._wanting: list[Channel] = []
        self._decode = msgspec.msgpack.Decoder(FromWorker).decode
        self._encode = msgspec.msgpack.Encoder().encode
        key = archiver._codec.key
        crew.begin("archive.worker", pickle.dumps((settings, key.encrypt, key.mac_k, key.mac_r, archiver._seed)))

    def run(self) -> None:
        """Until the root is stored and every process has handed over its last pack."""
        with selectors.DefaultSelector() as selector:
            for channel in self._crew.channels:
                selector.register(channel, selectors.EVENT_READ)
            selector.register(self._crew.returned, selectors.EVENT_READ)
            finishing: set[Channel] = set()
            while True:
                self._give_out()
                if not any(self._orders.values()) and not finishing:
                    finishing = set(self._crew.channels)
                    for channel in finishing:
                        channel.send(self._encode(Finish()))
                for selected, _ in selector.select():
                    if selected.fileobj == self._crew.returned:
                        os.eventfd_read(self._crew.returned)
                        self._hand_out()
                        continue
                    channel = selected.fileobj  # type: ignore[assignment]
                    if self._answer(channel, self._decode(channel.receive())):
                        finishing.discard(channel)
                        if not finishing:
                            return

    def _give_out(self) -> None:
        """One task for each, then one ahead, so that nobody waits for the next.

        Ahead goes only what the pipe takes at once: a process that is at work may be sending something large, and then
        each end would wait for the other to read.
        """
        tasks = self._archiver._tasks
        for ahead in range(AHEAD):
            for channel, orders in self._orders.items():
                if tasks and len(orders) == ahead and not (ahead and self._archiver.is_large(tasks[-1])):
                    orders.append(tasks.pop())
                    channel.send(self._encode(self._archiver._task(orders[-1])))

    def _answer(self, channel: Channel, message: FromWorker) -> bool:
        """Do what a process asks for; whether it has finished."""
        if isinstance(message, Ask):
            look = self._writer.claim if message.claim else self._writer.known
            channel.send(self._encode(Flags(look(message.kind, message.ids))))
        elif isinstance(message, Filled):
            slot = message.slot
            self._writer.adopt(
                self._crew.slot(slot),
                message.header,
                message.count,
                message.size,
                message.plain,
                lambda: self._crew.give_back(slot),
            )
        elif isinstance(message, SlotWanted):
            self._wanting.append(channel)
            self._hand_out()
        elif isinstance(message, Tree):
            self._writer.save_compressed(BlobType.TREE, message.id, message.content, message.plain_length)
        elif isinstance(message, Told):
            self._archiver._tell(message.files, message.size)
        elif isinstance(message, Finished):
            return True
        else:
            self._archiver._take_in(self._orders[channel].popleft(), message)
        return False

    def _hand_out(self) -> None:
        self._writer.check()
        while self._wanting and (slot := self._crew.take_slot()) is not None:
            self._wanting.pop(0).send(self._encode(Slot(slot)))
