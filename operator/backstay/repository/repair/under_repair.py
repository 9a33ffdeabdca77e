"""A repository as its repair sees it: locked exclusively, and with an index that holds only what the repair puts in."""

from __future__ import annotations

from collections.abc import Callable

from backstay.repository.lock import REFRESH_SECONDS, Lock
from backstay.repository.repository import Repository


class UnderRepair(Repository):
    """A second view of an opened repository. Its writer stores again what its index does not hold."""

    def __init__(self, opened: Repository) -> None:
        super().__init__(opened.store, opened.codec.key, opened.config, opened.key_id)
        self.held: Lock | None = None

    def load_index(self) -> None:
        """Nothing: what the indexes say is not believed."""

    def lock(
        self,
        *,
        exclusive: bool = True,
        holder: str = "",
        wait: float = 0.0,
        refresh_seconds: float = REFRESH_SECONDS,
        on_wait: Callable[[str], None] | None = None,
    ) -> Lock:
        """An exclusive lock, whatever was asked for: also a writer's."""
        self.held = super().lock(
            exclusive=True, holder=holder, wait=wait, refresh_seconds=refresh_seconds, on_wait=on_wait
        )
        return self.held

    def delete(self, name: str) -> None:
        """Remove an object while the lock is proven to be ours. Raises LockLost."""
        assert self.held is not None
        self.held.ensure_held()
        self.store.delete(name)
