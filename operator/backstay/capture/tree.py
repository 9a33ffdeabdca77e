"""Where a captured object stands in the restore point's tree: ``resources/<group>/<Kind>/<name>/object.json``.

The tree is for people too, who mount it or restore it to a disk with stock restic, so every name in it must be one that
any file system takes.
"""

from __future__ import annotations

import re

from backstay.api.names import RESOURCES_DIRECTORY, short_hash

#: File systems take 255 bytes; tools append suffixes to it.
_LONGEST = 200
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


def object_path(group: str, kind: str, name: str) -> str:
    """The path of an object's JSON below the root of a restore point's tree; the empty API group is ``core``."""
    return "/".join((RESOURCES_DIRECTORY, group or "core", kind, safe_name(name), "object.json"))


def safe_name(name: str) -> str:
    """A name that any file system takes, different for each name.

    Names of roles may hold nearly any character but ``/`` and ``%``, which is why ``%`` and two hex digits can stand
    for each byte that is not safe. What is too long then ends in ``~`` and a hash of the whole.
    """
    escaped = _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), name)
    if escaped.startswith("."):
        escaped = "%2E" + escaped[1:]
    if len(escaped) <= _LONGEST:
        return escaped
    return f"{escaped[: _LONGEST - 20]}~{short_hash(name, length=16)}"
