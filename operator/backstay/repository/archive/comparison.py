"""Whether the parent's node tells what is on disk now.

Type, size, mtime, ctime and inode must be the same, and both times must lie well before the parent was taken: a write
in the same tick of the clock as the parent's reading would otherwise stay unseen for ever. A change of anything else,
attributes say, changes the ctime too.
"""

from __future__ import annotations

import os
import re
import stat

from backstay.repository.archive.node_text import KIND
from backstay.repository.archive.parent import Batch
from backstay.repository.format import rfc3339, tree
from backstay.repository.format.tree import NodeJSON

NO_ID = "00" * 32  # stands for what is no id, and so cannot be in the repository
_ID = re.compile("[0-9a-f]{64}")


Unchanged = tuple[str, os.stat_result, list[str]]  # a file that is taken over, and the ids that it needs


class Comparison:
    """Compares entries with nodes of one parent, and remembers what makes that quick."""

    def __init__(self, latest: int) -> None:
        """`latest`: ns; what was changed later must be read."""
        self._latest = latest
        self._file_modes: dict[int, int] = {}  # Go's mode of a file's mode
        self._seconds: dict[str, int] = {}  # ns of the first 19 characters of a time

    def same(self, node: NodeJSON, status: os.stat_result, device_number: int, subtree: str) -> bool:
        """Whether a node is that of an entry. `subtree`: the tree of a directory now."""
        mtime, ctime, mode = status.st_mtime_ns, status.st_ctime_ns, status.st_mode
        kind = mode & KIND
        if (
            ctime > self._latest
            or mtime > self._latest
            or node.inode != status.st_ino
            or node.mode != tree.go_mode(mode)
            or self._ns(node.ctime) != ctime
            or self._ns(node.mtime) != mtime
            or node.uid != status.st_uid
            or node.gid != status.st_gid
            or node.type != tree.type_name(mode)
            or node.error
        ):
            return False
        if kind == stat.S_IFREG:
            self._file_modes[mode] = node.mode
            same_links = status.st_nlink == 1 or node.device_id == device_number
            return node.size == status.st_size and node.content is not None and same_links
        return kind != stat.S_IFDIR or node.subtree == subtree

    def run(self, descriptor: int, names: list[str], at: int, batch: Batch, first: int, most: int) -> list[Unchanged]:
        """Files from `names[at]` and the batch's node `first` on, as long as each is plainly unchanged.

        It is `same` for what most backups consist of, and finds nothing that `same` would not find: whatever is not
        plain ends the run. Millions of files pass here, so it is one loop on local names.
        """
        nodes, modes, seconds, latest = batch.nodes, self._file_modes, self._seconds, self._latest
        look, is_id = os.stat, _ID.fullmatch
        found: list[Unchanged] = []
        try:
            for number in range(min(len(names) - at, len(nodes) - first, most)):
                name, node = names[at + number], nodes[first + number]
                if node.name != name or "\\" in name:
                    break
                status = look(name, dir_fd=descriptor, follow_symlinks=False)
                ctime, mtime = status.st_ctime_ns, status.st_mtime_ns
                text = node.ctime
                if (
                    node.inode != status.st_ino
                    or node.size != status.st_size
                    or ctime > latest
                    or seconds[text[:19]] + int(text[20:-1].ljust(9, "0")) != ctime
                ):
                    break
                if node.mtime != text:
                    text = node.mtime
                    if mtime > latest or seconds[text[:19]] + int(text[20:-1].ljust(9, "0")) != mtime:
                        break
                elif mtime != ctime:
                    break
                if (
                    modes[status.st_mode] != node.mode
                    or node.uid != status.st_uid
                    or node.gid != status.st_gid
                    or status.st_nlink != 1
                    or node.error
                ):
                    break
                content = node.content
                if content is None or len(content) > 1 or (content and not is_id(content[0])):
                    break
                found.append((name, status, content))
        except (OSError, LookupError, ValueError):
            return found  # not plain
        return found

    def _ns(self, text: str) -> int:
        """As rfc3339.to_ns; -1, which no reused time is, when it is no time."""
        try:
            if text[-1:] == "Z" and len(text) > 20:
                if len(self._seconds) > 10_000:
                    self._seconds.clear()
                self._seconds[text[:19]] = rfc3339.to_ns(text[:19] + "Z")
            return rfc3339.to_ns(text)
        except ValueError:
            return -1


def proper_ids(content: list[str]) -> list[str]:
    """A file's ids, with NO_ID for what is none."""
    return [text if _ID.fullmatch(text) else NO_ID for text in content]
