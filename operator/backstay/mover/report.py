"""What a mover says: JSON lines on standard output while it works, and one result in the termination message.

A termination message holds 4 KiB, so the result is cut to fit: example warnings go first, counts stay exact.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

RESULT_LIMIT = 4000  # bytes
_WARNINGS = 10  # examples given for a volume
_WARNING_LENGTH = 200  # characters of one
_INTERVAL = 1.0  # seconds between progress lines


def encode_result(result: dict[str, Any], limit: int = RESULT_LIMIT) -> str:
    """The result as JSON of at most `limit` bytes of UTF-8."""
    for count in (_WARNINGS, 3, 1, 0):
        text = _encode(_cut(result, count))
        if len(text.encode()) <= limit:
            return text
    volumes = result.get("volumes", [])
    if volumes:
        kept = ("claim", "snapshot", "tree", "warningCount")
        short = [{key: volume[key] for key in kept if key in volume} for volume in volumes]
        text = _encode({"ok": result.get("ok", False), "volumes": short, "cut": True})
        if len(text.encode()) <= limit:
            return text
        failure = {"ok": False, "reason": "ResultTooLarge", "permanent": True}
        return _encode({**failure, "message": f"{len(volumes)} volumes are too many for one mover to report on"})
    return _encode({**result, "message": str(result.get("message", ""))[: limit // 8]})


def _encode(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _cut(result: dict[str, Any], warnings: int) -> dict[str, Any]:
    if "volumes" not in result:
        return result
    volumes = []
    for volume in result["volumes"]:
        examples = [text[:_WARNING_LENGTH] for text in volume.get("warnings", [])[:warnings]]
        volumes.append({**volume, "warnings": examples} if "warnings" in volume else volume)
    return {**result, "volumes": volumes}


class Report:
    """Writes JSON lines, whole ones, from several threads; a thread of its own tells the progress each second."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._latest: Callable[[], dict[str, Any] | None] = lambda: None
        self._thread: threading.Thread | None = None

    def log(self, message: str, level: str = "info", **fields: Any) -> None:
        """One line for whoever reads the pod's log."""
        self.line({"level": level, "message": message, **fields})

    def line(self, document: dict[str, Any]) -> None:
        """One JSON document on a line of its own."""
        with self._mutex:
            self._out.write(_encode(document) + "\n")
            self._out.flush()

    def start(self, latest: Callable[[], dict[str, Any] | None]) -> None:
        """Tell each second what `latest` gives, until `stop`."""
        self._latest = latest
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the progress lines."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _tick(self) -> None:
        while not self._stop.wait(_INTERVAL):
            progress = self._latest()
            if progress is not None:
                self.line({"progress": progress})
