"""What the reader of the demo sees: numbered steps with their durations, commands, and a summary."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten

INDENT = "     "
SUMMARY_WIDTH = 66


class Story:
    """Prints the demo as it happens and remembers how long each step took."""

    def __init__(self) -> None:
        self.number = 0
        self.title = ""
        self.durations: list[tuple[str, float]] = []
        self._since = time.monotonic()

    def continue_after(self, durations: list[tuple[str, float]]) -> None:
        """Take up a story whose first steps, with these titles and seconds, were told by another process."""
        self.durations = [(title, seconds) for title, seconds in durations]
        self.number = len(durations)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One numbered step; its duration in seconds is printed when it succeeded."""
        self.number += 1
        self.title = title
        print(f"\n[{self.number:>2}] {title}", flush=True)
        self._since = time.monotonic()
        yield
        self.durations.append((title, self.elapsed))
        print(f"{INDENT}({self.elapsed:.1f} s)", flush=True)

    @property
    def elapsed(self) -> float:
        """Seconds since the current step began."""
        return time.monotonic() - self._since

    def say(self, text: str) -> None:
        """One or more lines for the reader."""
        for line in text.rstrip("\n").splitlines():
            print(f"{INDENT}{line}".rstrip(), flush=True)

    def command(self, text: str) -> None:
        """A command that is run now, as one would type it."""
        print(f"{INDENT}$ {text}", flush=True)

    def progress(self, text: str) -> None:
        """A state that something has reached, with the seconds since the step began."""
        print(f"{INDENT}{self.elapsed:6.1f} s  {text}", flush=True)

    def summary(self, facts: list[tuple[str, str]]) -> None:
        """The facts that were proven, then what each step took."""
        print("\nProven", flush=True)
        for what, value in facts:
            print(f"  {what:<{SUMMARY_WIDTH}} {value}")
        print("\nTimes")
        for title, seconds in self.durations:
            print(f"  {shorten(title, SUMMARY_WIDTH, placeholder=' ...'):<{SUMMARY_WIDTH}} {seconds:6.1f} s")
        print(f"  {'in all':<{SUMMARY_WIDTH}} {sum(seconds for _, seconds in self.durations):6.1f} s", flush=True)
