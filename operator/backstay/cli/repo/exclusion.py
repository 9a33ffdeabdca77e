"""What a backup leaves out: by patterns, by a tag that a directory holds, or by size.

It is sent to the processes that walk, so it is made of plain values, and compiles its patterns where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backstay.repository.archive.exclusion_tag import Tag
    from backstay.repository.archive.patterns import Patterns

_DIRECTORIES = 256  # whose tags are remembered


@dataclass(frozen=True)
class Exclusion:
    """Asked with an absolute path and whether it is a directory. `larger_than`: bytes, of files."""

    patterns: tuple[str, ...] = ()
    ignoring_case: tuple[str, ...] = ()
    caches: bool = False
    if_present: tuple[str, ...] = ()
    larger_than: int | None = None

    def __bool__(self) -> bool:
        return any((self.patterns, self.ignoring_case, self.caches, self.if_present, self.larger_than is not None))

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def prove(self) -> None:
        """Compile everything. Raises InvalidPattern."""
        _ = self._exact, self._folded, self._tags

    @cached_property
    def _exact(self) -> Patterns:
        from backstay.repository.archive.patterns import Patterns

        return Patterns.parse(self.patterns)

    @cached_property
    def _folded(self) -> Patterns:
        from backstay.repository.archive.patterns import Patterns

        return Patterns.parse(self.ignoring_case, ignore_case=True)

    @cached_property
    def _tags(self) -> tuple[Tag, ...]:
        from backstay.repository.archive.exclusion_tag import Tag

        return tuple(Tag.parse(text) for text in self.if_present)

    @cached_property
    def _kept(self) -> dict[bytes, bytes | None]:
        return {}

    def __call__(self, path: bytes, is_dir: bool) -> bool:
        if self.patterns and self._exact.excludes(path, is_dir):
            return True
        if self.ignoring_case and self._folded.excludes(path, is_dir):
            return True
        if (self.caches or self.if_present) and self._tagged(path):
            return True
        return self.larger_than is not None and not is_dir and self._too_large(path, self.larger_than)

    def _tagged(self, path: bytes) -> bool:
        directory, _, name = path.rpartition(b"/")
        if directory not in self._kept:
            from backstay.repository.archive.exclusion_tag import tag_of

            if len(self._kept) >= _DIRECTORIES:
                self._kept.clear()
            self._kept[directory] = tag_of(
                directory or b"/", _Names(directory), caches=self.caches, if_present=self._tags
            )
        kept = self._kept[directory]
        return kept is not None and name != kept

    @staticmethod
    def _too_large(path: bytes, limit: int) -> bool:
        try:
            return os.lstat(path).st_size > limit
        except OSError:  # the archiver will tell
            return False


class _Names(Container[bytes]):
    """What a directory holds, looked up and not listed."""

    def __init__(self, directory: bytes) -> None:
        self._directory = directory

    def __contains__(self, name: object) -> bool:
        return isinstance(name, bytes) and os.path.lexists(self._directory + b"/" + name)
