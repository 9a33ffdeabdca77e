"""A store in memory, which can be told to fail, for tests that are about decisions and not about S3."""

from __future__ import annotations

from collections.abc import Iterator

from backstay.repository import ObjectNotFound, Unreachable


class MemoryStore:
    """Objects in a dict. `history` has each change in order; from the one numbered `fail_at` on, all changes fail."""

    def __init__(self, objects: dict[str, bytes] | None = None, fail_at: int | None = None) -> None:
        self.objects = dict(objects or {})
        self.history: list[tuple[str, str]] = []
        self.reads: list[str] = []
        self.fail_at = fail_at

    def _change(self, verb: str, name: str) -> None:
        if self.fail_at is not None and len(self.history) >= self.fail_at:
            raise Unreachable(f"{verb} {name}: the test has cut the connection")
        self.history.append((verb, name))

    def put(self, name: str, data: bytes | bytearray | memoryview, *, sha256: bytes | None = None) -> None:
        self._change("put", name)
        self.objects[name] = bytes(data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self.reads.append(name)
        if name not in self.objects:
            raise ObjectNotFound(f"reading {name}: there is no such object")
        data = self.objects[name]
        return data[offset:] if length is None else data[offset : offset + length]

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        return iter([(name, len(data)) for name, data in sorted(self.objects.items()) if name.startswith(prefix)])

    def delete(self, name: str) -> None:
        self._change("delete", name)
        self.objects.pop(name, None)

    def exists(self, name: str) -> bool:
        return name in self.objects
