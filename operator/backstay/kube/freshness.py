"""Whether the watches still deliver: a watcher that has died silently looks just like a quiet cluster.

Our own list of each kind says what there is; the watch must deliver the same soon. If it does not, the operator's
liveness fails, and it is started anew.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

#: Seconds that a watch may lag behind a list.
PATIENCE = 30.0


class Freshness:
    """What the watches have delivered, held against what the lists have shown. Thread-safe; times are monotonic."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._delivered: dict[tuple[str, str], int] = {}
        self._owed: dict[tuple[str, str], tuple[int, float, str]] = {}
        self._deleted: set[tuple[str, str]] = set()

    def delivered(self, obj: dict[str, Any], *, deleted: bool = False) -> None:
        """A watch brought this object."""
        key, version, _ = _identify(obj)
        with self._lock:
            if deleted:
                self._delivered.pop(key, None)
                self._owed.pop(key, None)
                self._deleted.add(key)  # a list that was begun before may still show it, and must not call it owed
                return
            self._delivered[key] = max(version, self._delivered.get(key, 0))
            owed = self._owed.get(key)
            if owed and owed[0] <= self._delivered[key]:
                del self._owed[key]

    def listed(self, kind: str, objects: Iterable[dict[str, Any]], now: float) -> None:
        """A list of all objects of a kind, begun at `now`."""
        with self._lock:
            found = {}
            for obj in objects:
                key, version, title = _identify(obj)
                found[key] = (version, title)
            for key in [known for known in self._owed if known[0] == kind and known not in found]:
                del self._owed[key]  # it is gone, and so is the event that brings its deletion owed no more
            for key in [known for known in self._delivered if known[0] == kind and known not in found]:
                del self._delivered[key]
            self._deleted -= {key for key in self._deleted if key[0] == kind and key not in found}
            for key, (version, title) in found.items():
                if self._delivered.get(key, 0) < version and key not in self._deleted:
                    since = self._owed[key][1] if key in self._owed else now
                    self._owed[key] = (version, since, title)

    def overdue(self, now: float) -> list[str]:
        """The objects whose present version no watch has delivered in time, as words for a log."""
        with self._lock:
            return [title for _, since, title in self._owed.values() if now - since > PATIENCE]


def _identify(obj: dict[str, Any]) -> tuple[tuple[str, str], int, str]:
    metadata = obj["metadata"]
    kind = str(obj.get("kind", ""))
    # Comparable for every kind by promise of the API since Kubernetes 1.35, and in fact long before.
    version = metadata.get("resourceVersion", "0")
    title = f"{kind} {metadata.get('namespace', '')}/{metadata.get('name', '')}"
    return (kind, metadata.get("uid", "")), int(version) if version.isdigit() else 0, title
