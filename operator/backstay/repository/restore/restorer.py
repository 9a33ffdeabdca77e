"""From a tree in the repository to a directory: the walk.

Contents go in batches to those who fetch and write them (`contents`); directories are made and finished in
`levels`, everything else in `entries`.

Names come from the bucket and are not trusted: none may hold a separator or mean another directory, none may come twice
in a directory. Nothing is reached through a path: each directory is opened in its parent, never through a link, and
whatever stands in an entry's place is unlinked rather than followed or written through.

A file that is there already, with one name only, is written into: its blobs are read and hashed, and only those that
differ are fetched and written. A restore that is killed meanwhile leaves such a file with some old and some new blobs,
with the old length or times, so that the next restore, even one of `if-changed`, compares it again. Files that are made
anew are removed when a restore fails; one that is killed may leave them unfinished, with the time of the restore.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from backstay.repository.crew import Crew
from backstay.repository.directories import Directories, join
from backstay.repository.errors import Corrupted, TargetError, UnsafeName
from backstay.repository.format import tree
from backstay.repository.format.blob import Codec
from backstay.repository.format.tree import Node, NodeJSON
from backstay.repository.outcome import Progress, Restoration
from backstay.repository.reader import Reader, parse_id
from backstay.repository.restore import metadata
from backstay.repository.restore.contents import Contents
from backstay.repository.restore.entries import Entries, attributes
from backstay.repository.restore.existing import Choice, Options
from backstay.repository.restore.files import target_error
from backstay.repository.restore.flow import Flow
from backstay.repository.restore.levels import Level, Levels
from backstay.repository.restore.metadata import Attributes
from backstay.repository.restore.report import Report

_ALL = Choice(take=True, descend=True)


class Restorer:
    """One restore of one tree into one directory."""

    def __init__(
        self,
        reader: Reader,
        codec: Codec,
        target: str,
        options: Options,
        *,
        crew: Crew | None = None,
        progress: Callable[[Progress], None] | None = None,
        total_files: int | None = None,
        total_bytes: int | None = None,
    ) -> None:
        self._reader = reader
        self._codec = codec
        self._target = os.fsencode(os.path.abspath(target))
        self._options = options
        self._crew = crew
        self._report = Report(progress, total_files, total_bytes)
        self._levels: Levels
        self._entries: Entries

    def run(self, tree_id: str, root: Node | None) -> Restoration:
        """Restore. `root`: the node that the target itself stands for. See Repository.restore."""
        descriptor, fresh = self._open_target()
        directories = Directories(descriptor, self._target)
        flow: Flow | None = None
        try:
            if descriptor >= 0:
                flow = Flow(
                    self._reader, self._codec, self._target, descriptor, self._crew, self._report.tell,
                    replace=self._options.replace, sparse=self._options.sparse,
                )  # fmt: skip
            contents = Contents(self._reader, flow, directories, self._report, self._options)
            self._levels = Levels(directories, contents, self._report, self._options)
            self._entries = Entries(directories, contents, self._report, self._options)
            try:
                self._walk(tree_id, metadata.of(root) if root is not None else None, fresh)
                contents.finish()
            except BaseException as error:
                if flow is not None:
                    flow.close()
                    flow = None
                contents.abandon()
                if isinstance(error, OSError):
                    raise target_error(error, os.fsencode(error.filename or self._target)) from error
                raise
        finally:
            if flow is not None:
                flow.close()
            directories.close()
            if descriptor >= 0:
                os.close(descriptor)
        return self._report.outcome()

    def _open_target(self) -> tuple[int, bool]:
        """A descriptor of the target, -1 when this is a dry run and there is none, and whether it is new or empty."""
        fresh = False
        try:
            if not self._options.dry_run:
                with suppress(FileExistsError):
                    os.makedirs(self._target)
                    fresh = True
            descriptor = os.open(self._target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except NotADirectoryError as error:
            raise TargetError(f"restoring into {os.fsdecode(self._target)}: it is not a directory") from error
        except OSError as error:
            if isinstance(error, FileNotFoundError) and self._options.dry_run:
                return -1, True
            raise target_error(error, self._target) from error
        return descriptor, fresh or not _holds_anything(descriptor)

    def _walk(self, tree_id: str, root: Attributes | None, fresh: bool) -> None:
        top = Level(None, b"", root)
        top.made, top.fresh = True, fresh
        top.nodes = self._nodes(top, tree_id)
        stack = [top]
        select = self._options.select
        begun = False
        while stack:
            level = stack[-1]
            try:
                entry = next(level.nodes, None)
            except Corrupted as error:
                if not begun:
                    raise  # there is nothing at all
                self._report.damage(b"/" + level.path, f"its content is missing: {error}")
                level.extras.clear()  # of what is there, nobody knows what the snapshot lacks
                entry = None
            begun = True
            if entry is None:
                self._levels.leave(stack.pop())
                continue
            name, node = entry
            choice = select(b"/" + join(level.path, name), node.type == "dir") if select is not None else _ALL
            if node.type == "dir":
                if not choice.take and not choice.descend:
                    continue
                try:
                    below = Level(level, name, attributes(level, name, node))
                except Corrupted as error:
                    self._report.damage(b"/" + join(level.path, name), f"it is not restored: {error}")
                    continue
                if choice.take and not self._levels.ensure(below):
                    continue
                if choice.descend:
                    below.nodes = self._nodes(below, node.subtree or "")
                stack.append(below)
            elif choice.take and (level.made or self._levels.ensure(level)):
                try:
                    self._entries.restore(level, name, node)
                except Corrupted as error:
                    self._report.damage(b"/" + join(level.path, name), f"it is not restored: {error}")

    def _nodes(self, level: Level, tree_id: str) -> Iterator[tuple[bytes, NodeJSON]]:
        """The nodes of a directory's tree by their names, which are proven to be harmless; few are held at a time.

        What of the directory is not in the tree becomes its `extras`, when that is to be removed.
        """
        there: deque[bytes] = deque()  # what is in the directory, and not passed yet
        if self._options.delete and not level.fresh and not level.refused:
            there = self._levels.entries(level)
        shown = os.fsdecode(join(self._target, level.path) if level.path else self._target)
        last = b""
        for batch in self._reader.node_batches(parse_id(tree_id, f"the directory {shown!r}")):
            named = []
            for node in batch:
                name = _name(node, last, tree_id, shown)
                named.append((name, node))
                last = name
                while there and there[0] <= name:
                    if (entry := there.popleft()) != name:
                        level.extras.append(entry)
            yield from named
        level.extras += there


def _holds_anything(directory: int) -> bool:
    with os.scandir(directory) as entries:
        return next(entries, None) is not None


def _name(node: NodeJSON, last: bytes, tree_id: str, shown: str) -> bytes:
    """A node's name on disk. `last`: the name before it, which is less: so no name comes twice.

    Whoever writes trees sorts them, restic at all times. Raises UnsafeName.
    """
    try:
        text = tree.unquote(node.name)
    except ValueError as error:
        raise Corrupted(f"tree {tree_id} holds a node that cannot be read: {error}") from error
    try:
        name = tree.name_bytes(text)
    except ValueError:
        name = b""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        fault = "which could lead elsewhere"
    elif name <= last:
        fault = "which comes twice" if name == last else "which is out of order and may come twice"
    else:
        return name
    raise UnsafeName(
        f"restoring into {shown!r}: tree {tree_id} holds the name {text!r}, {fault}; it was made by a hostile or broken"
        " program, so the restore stops here"
    )
