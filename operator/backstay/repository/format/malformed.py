"""What is raised by documents that are none, and how that is told.

The bucket's bytes may say anything: numbers of a million digits, nesting without end. An error names the document and
repeats little of what is in it.
"""

from __future__ import annotations

import msgspec

from backstay.repository.errors import Corrupted

# What reading a document may raise when it is none. OverflowError: of times and numbers that nothing here can hold.
MALFORMED = (msgspec.MsgspecError, ValueError, KeyError, RecursionError, OverflowError)
_TOLD = 200  # characters


def malformed(what: str, error: BaseException) -> Corrupted:
    """The error to raise. `what`: which document it is, and what it is not."""
    told = str(error).encode("ascii", "backslashreplace").decode()
    return Corrupted(f"{what}: {told if len(told) <= _TOLD else told[:_TOLD] + '...'}")
