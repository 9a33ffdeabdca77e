"""From a tree in the repository to a directory."""

from __future__ import annotations

from dataclasses import dataclass

from backstay.repository.archiver import Warning


@dataclass(frozen=True)
class Restoration:
    """What a restore did. `warnings` holds the first few; `warning_count` is exact."""

    files: int
    bytes: int
    dirs: int = 0
    warnings: tuple[Warning, ...] = ()
    warning_count: int = 0
