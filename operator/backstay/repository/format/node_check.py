"""Whether a node of a tree could be restored at all: what a check reports, and what a repair leaves out."""

from __future__ import annotations

import re
from contextlib import suppress

from backstay.repository.format import rfc3339, tree
from backstay.repository.format.tree import NodeJSON

_TYPES = frozenset(("file", "dir", "symlink", "dev", "chardev", "fifo", "socket"))
_NULL = "0" * 64  # restic's id of nothing
# All that occurs, but for the last days of months: those are left to the calendar.
_USUAL_TIME = re.compile(
    r"[12]\d{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
    r"(?:Z|[+-]\d\d:\d\d)",
    re.ASCII,
).fullmatch


def binary_id(text: str) -> bytes | None:
    """A hexadecimal id as 32 bytes, or None when it is none, or that of nothing."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return None
    return found if len(text) == 64 and len(found) == 32 and text != _NULL else None


def shown(quoted: str) -> str:
    """A node's name out of its form in a tree; that form itself when nothing is quoted so."""
    with suppress(ValueError):
        return tree.unquote(quoted)
    return quoted


def node_fault(node: NodeJSON) -> str:
    """What is wrong with a node by itself, to follow its name; empty when nothing is."""
    try:
        name = tree.unquote(node.name)
        for text in (node.mtime, node.atime, node.ctime):
            if not _USUAL_TIME(text):
                rfc3339.to_ns(text)
    except ValueError as error:
        return f"cannot be read: {str(error)[:100]}"
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        return "is a name that could lead elsewhere"
    if node.type not in _TYPES:
        return f"is of the unknown type {node.type[:40]!a}"
    if node.type == "dir" and binary_id(node.subtree or "") is None:
        return "is a directory without a tree"
    if node.type == "file":
        if node.content is None:
            return "is a file without a list of blobs"
        for text in node.content:
            if binary_id(text) is None:
                return f"refers to {text[:80]!a}, which is no blob"
    return ""
