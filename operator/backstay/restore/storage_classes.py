"""Which storage class a restored claim gets here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from backstay.restore.errors import RestoreError

_DEFAULT_MARKS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")


@dataclass(frozen=True)
class StorageClasses:
    """The classes that this cluster has; ``default`` is empty when none is marked so."""

    names: frozenset[str]
    default: str = ""

    @classmethod
    def of(cls, objects: Iterable[Mapping[str, Any]]) -> StorageClasses:
        """From StorageClass objects. Of several defaults the newest counts, as for the API server."""
        names, defaults = set(), []
        for item in objects:
            metadata = item["metadata"]
            names.add(metadata["name"])
            if any((metadata.get("annotations") or {}).get(mark) == "true" for mark in _DEFAULT_MARKS):
                defaults.append((metadata.get("creationTimestamp") or "", metadata["name"]))
        return cls(frozenset(names), max(defaults)[1] if defaults else "")

    def __str__(self) -> str:
        return ", ".join(sorted(self.names)) or "none"


@dataclass(frozen=True)
class Choice:
    """The class to write into the claim (None: leave it to the server), and what to tell about it, if anything."""

    name: str | None
    warning: str = ""


def choose(wanted: str | None, mapping: Mapping[str, str], here: StorageClasses) -> Choice:
    """The class for a claim that had ``wanted``; None: it named none, and "": it asked for a volume without a class.

    The map comes first, then the class of the same name, then the default class, with a warning where the claim had
    asked for something else. Raises RestoreError when there is no class left to take.
    """
    mapped = mapping.get(wanted or "")
    if mapped is not None:
        if mapped not in here.names:
            raise RestoreError(
                "StorageClassNotFound",
                f"spec.storageClasses maps {wanted or '(none)'} to {mapped}, but no StorageClass {mapped} exists here."
                f" There are: {here}.",
            )
        return Choice(mapped)
    if wanted and wanted in here.names:
        return Choice(wanted)
    if here.default:
        if wanted is None:  # written out, it would be a change in a field that nobody may change later
            return Choice(None)
        told = f"StorageClass {wanted} does not exist here" if wanted else "the claim's volume had no StorageClass"
        return Choice(here.default, f"{told}; the default class {here.default} is used")
    missing = f"There is no StorageClass {wanted} here" if wanted else "A claim names no StorageClass"
    raise RestoreError(
        "StorageClassNotFound",
        f"{missing} and no class is the default. Map it in spec.storageClasses; there are: {here}.",
    )
