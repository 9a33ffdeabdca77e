"""A store that only seems to take what is written, for telling what a backup would do."""

from __future__ import annotations

from collections.abc import Iterator

from backstay.repository.stores.store import Buffer, Store


class DryStore:
    """Reads what is there, keeps the names of what is put, and changes nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: set[str] = set()

    def put(self, name: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        """Nothing but remember the name."""
        self._names.add(name)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """As the store has it."""
        return self._store.get(name, offset, length)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """As the store has it."""
        return self._store.list(prefix)

    def delete(self, name: str) -> None:
        """Nothing but forget the name."""
        self._names.discard(name)

    def exists(self, name: str) -> bool:
        """Whether it is there, or would be."""
        return name in self._names or self._store.exists(name)
