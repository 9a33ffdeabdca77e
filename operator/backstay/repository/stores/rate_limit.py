"""A limit on bytes per second that all transfers of a store share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_BURST = 0.25  # seconds of unused allowance that are kept


class RateLimit:
    """A token bucket. Safe to use from several threads, which wait in the order in which they came."""

    def __init__(
        self,
        bytes_per_second: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if bytes_per_second <= 0:
            raise ValueError(f"a limit of {bytes_per_second} bytes per second lets nothing through")
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._mutex = threading.Lock()
        self._free_at = clock()  # when everything that was let through has had its time

    @property
    def portion(self) -> int:
        """Bytes that are best asked for at once: an eighth of a second's, so that the stream does not stand still."""
        return min(max(self._rate // 8, 1024), 128 << 10)

    def wait(self, count: int) -> None:
        """Return when `count` more bytes may pass."""
        with self._mutex:
            now = self._clock()
            begins = max(self._free_at, now - _BURST)
            self._free_at = begins + count / self._rate
            pause = self._free_at - now
        if pause > 0:
            self._sleep(pause)
