"""Running a program to its end, and waiting for something to become true."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError, CommandError


def run(
    command: Sequence[str | Path],
    *,
    input: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Run a program and return its standard output.

    Args:
        command: the program and its arguments.
        input: what it reads on standard input; nothing where None.
        env: its whole environment; ours where None.
        cwd: the folder it starts in; ours where None.
        timeout: seconds after which it is killed.

    Raises:
        CommandError: it ended with an exit code other than 0, or took too long.
    """
    words = [str(word) for word in command]
    data = input.encode() if isinstance(input, str) else input
    try:
        done = subprocess.run(
            words,
            input=data if data is not None else b"",
            capture_output=True,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise CommandError(" ".join(words), 124, f"no end after {timeout} s: {late.output!r}") from late
    except FileNotFoundError as missing:
        raise CommandError(" ".join(words), 127, str(missing)) from missing
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode:
        raise CommandError(" ".join(words), done.returncode, err + out)
    return out


def until(what: str, check: Callable[[], bool], *, seconds: float, every: float = 0.1) -> None:
    """Wait until `check` is true.

    Raises:
        ClusterError: it was not, within `seconds`; the message names `what` was awaited.
    """
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {seconds:.0f} s in vain for: {what}")
        time.sleep(every)


def say(text: str) -> None:
    """Tell the person at the terminal what happens; standard output stays free for results."""
    print(text, file=sys.stderr, flush=True)
