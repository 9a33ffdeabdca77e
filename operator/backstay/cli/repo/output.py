"""What a command says: lines for a person, JSON lines with restic's message types for a program, a bar on a terminal.

Results go to standard output, everything about the way there to standard error. `rich` draws the bar and is imported
only when there is a terminal to draw it on.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from backstay.repository.outcome import Progress

Tell = Callable[[Progress], None]
_SECONDS = 1.0  # between two status lines
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)


class Output:
    """The standard streams of one command."""

    def __init__(
        self,
        *,
        json: bool = False,
        quiet: bool = False,
        verbose: int = 0,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        self._out = out or sys.stdout
        self._err = err or sys.stderr

    def say(self, text: str = "") -> None:
        """A line of the result, for a person."""
        if not self.json:
            self._write(self._out, text)

    def note(self, text: str) -> None:
        """A line about what is going on."""
        if not self.json and not self.quiet:
            self._write(self._out, text)

    def detail(self, text: str, level: int = 1) -> None:
        """A line for those who asked for more."""
        if not self.json and self.verbose >= level:
            self._write(self._out, text)

    def record(self, document: Any) -> None:
        """A line of the result, for a program."""
        if self.json:
            self._write(self._out, encode(document))

    def warn(self, message: str, path: str = "", during: str = "") -> None:
        """Something that went wrong without ending the work."""
        if self.json:
            document = {"message_type": "error", "error": {"message": message}, "during": during, "item": path}
            self._write(self._err, encode(document))
        else:
            self._write(self._err, f"Warning: {path}: {message}" if path else f"Warning: {message}")

    def failure(self, code: int, message: str, word: str = "Error") -> None:
        """Why the command ends with `code`."""
        line = " ".join(message.split())
        if self.json:
            self._write(self._err, encode({"message_type": "exit_error", "code": code, "message": line}))
        else:
            self._write(self._err, f"{word}: {line}")

    def close(self) -> None:
        """Let what was said reach its reader. Raises BrokenPipeError when there is none any more."""
        self._out.flush()

    def abandon(self) -> None:
        """Nobody reads: let the interpreter not complain about that when it ends."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text + "\n")
        except UnicodeEncodeError:  # a name that is no UTF-8, or a terminal that is not
            stream.write(printable(text, stream.encoding or "ascii") + "\n")

    @contextmanager
    def progress(self, verb: str, *, unit: str = "files") -> Iterator[Tell]:
        """What to call while work goes on; it says so in whichever way is wanted here.

        `verb`: backup, restore or another, which decides how restic's status line names its members.
        """
        if self.json:
            yield self._status_lines(verb)
        elif self.quiet or not self._err.isatty():
            yield lambda at: None
        else:
            with _bar(verb, unit, self._err) as tell:
                yield tell

    def _status_lines(self, verb: str) -> Tell:
        begun = time.monotonic()
        told = begun
        files, size = ("files_restored", "bytes_restored") if verb == "restore" else ("files_done", "bytes_done")

        def tell(at: Progress) -> None:
            nonlocal told
            moment = time.monotonic()
            if moment - told < _SECONDS:
                return
            told = moment
            document: dict[str, Any] = {"message_type": "status", "seconds_elapsed": int(moment - begun)}
            if at.total_bytes:
                document["percent_done"] = min(1.0, at.bytes / at.total_bytes)
            members = {"total_files": at.total_files, files: at.files, "total_bytes": at.total_bytes, size: at.bytes}
            document.update((name, value) for name, value in members.items() if value)
            self._write(self._out, encode(document))
            self._out.flush()

        return tell


@contextmanager
def _bar(verb: str, unit: str, stream: TextIO) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(file=stream), transient=True, refresh_per_second=5) as bar:
        task = bar.add_task(verb, total=None, count="")

        def tell(at: Progress) -> None:
            of = f"/{at.total_files}" if at.total_files else ""
            bar.update(task, completed=at.bytes, total=at.total_bytes, count=f"{at.files}{of} {unit}")

        yield tell


def encode(document: Any) -> str:
    """A document as one line of JSON that any stream can carry."""
    text = _ENCODER.encode(document)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def printable(text: str, encoding: str) -> str:
    """A text with what the encoding cannot say replaced."""
    raw = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return raw.encode(encoding, "replace").decode(encoding)


def size(count: float) -> str:
    """An amount of data as restic shows it."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.3f} {unit}"
    return f"{int(count)} B"


def counted(number: int, noun: str) -> str:
    """So many of them: 1 file, 2 files, 3 entries."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """A time span as restic shows it."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def table(header: list[str], rows: list[list[str]], *, footer: str = "") -> list[str]:
    """Lines of a table; a cell may have several lines."""
    cells = [[cell.split("\n") for cell in row] for row in rows]
    widths = [max([len(title), *(len(line) for row in cells for line in row[at])]) for at, title in enumerate(header)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

    def line(parts: list[str]) -> str:
        return "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()

    lines = [line(header), rule]
    for row in cells:
        for number in range(max(len(cell) for cell in row)):
            lines.append(line([cell[number] if number < len(cell) else "" for cell in row]))
    lines.append(rule)
    return [*lines, footer] if footer else lines
