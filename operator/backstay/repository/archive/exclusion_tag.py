"""Directories that say of themselves that a backup may leave out what is in them.

A cache says so by a file CACHEDIR.TAG that begins with a signature (the Cache Directory Tagging Specification); other
names, with or without a text that they must begin with, are chosen by who backs up. The directory itself is kept, and
the tag, so that a restore brings back a directory that says the same. See "Excluding Files" in restic's manual.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from typing import NamedTuple

from backstay.repository.errors import InvalidPattern

_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class Tag(NamedTuple):
    """A file's name, and the bytes that it must begin with; none: that it exists is enough."""

    name: bytes
    header: bytes = b""

    @classmethod
    def parse(cls, text: str) -> Tag:
        """Out of `name` or `name:header`. Raises InvalidPattern."""
        name, _, header = text.partition(":")
        if not name or "/" in name:
            raise InvalidPattern(f"reading {text!r}: write the name of a file, or name:header, without a directory")
        return cls(os.fsencode(name), os.fsencode(header))


CACHEDIR = Tag(b"CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55")


def excluded_by_content(
    directory: bytes, names: Container[bytes], *, caches: bool, if_present: Sequence[Tag] = ()
) -> bool:
    """Whether what is in `directory`, which holds `names`, is left out, but for `tag_of` it."""
    return tag_of(directory, names, caches=caches, if_present=if_present) is not None


def tag_of(directory: bytes, names: Container[bytes], *, caches: bool, if_present: Sequence[Tag] = ()) -> bytes | None:
    """The name of the only entry that is kept; None: all are. Empty when there are two tags, and each rules out all.

    A tag that cannot be read, or begins otherwise, rules out nothing.
    """
    found = [tag.name for tag in ((CACHEDIR, *if_present) if caches else if_present) if _present(directory, names, tag)]
    if not found:
        return None
    return found[0] if len(set(found)) == 1 else b""


def _present(directory: bytes, names: Container[bytes], tag: Tag) -> bool:
    if tag.name not in names:
        return False
    if not tag.header:
        return True
    try:
        descriptor = os.open(os.path.join(directory, tag.name), _OPEN_FLAGS)
    except OSError:
        return False
    try:
        return os.read(descriptor, len(tag.header)) == tag.header
    except OSError:
        return False
    finally:
        os.close(descriptor)
