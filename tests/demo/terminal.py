"""Running commands and waiting for Kubernetes, as a person at a terminal would."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tests.demo.errors import DemoError
from tests.demo.story import Story

Result = TypeVar("Result")

COMMAND_TIMEOUT = 120.0
"""Seconds; kubectl itself waits for a namespace to be gone."""


def show(story: Story, command: str, *, quiet: bool = False, **variables: str) -> str:
    """Print a shell command, run it as printed with ``variables`` in its environment, print and return its output.

    Raises:
        DemoError: it failed or did not end in time.
    """
    story.command(command)
    output = run(["bash", "-euo", "pipefail", "-c", command], **variables)
    if not quiet:
        story.say(output)
    return output


def run(command: list[str], **variables: str) -> str:
    """Run a program and return its standard output.

    Raises:
        DemoError: it failed or did not end in time; the text holds what it printed.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            env={**os.environ, **variables},
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise DemoError(f"no end after {COMMAND_TIMEOUT:.0f} s: {command[-1]}") from late
    if done.returncode:
        raise DemoError(f"{command[-1]}\nexit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def get(kind: str, namespace: str, name: str) -> dict[str, Any] | None:
    """One object, or None where it does not exist."""
    text = run(["kubectl", "get", kind, name, f"--namespace={namespace}", "--ignore-not-found", "--output=json"])
    return json.loads(text) if text.strip() else None


def list_objects(kind: str, namespace: str) -> list[dict[str, Any]]:
    """All objects of a kind in a namespace."""
    return json.loads(run(["kubectl", "get", kind, f"--namespace={namespace}", "--output=json"]))["items"]


def wait(
    what: str, check: Callable[[], Result | None], *, seconds: float, describe: tuple[str, ...] = (), every: float = 0.5
) -> Result:
    """Look until ``check`` returns something true, and return that.

    Args:
        what: what is awaited, for the error.
        check: returns None or something false while it is not there yet; may raise DemoError to give up at once.
        seconds: how long to wait at most.
        describe: arguments for ``kubectl describe``, shown when the wait is in vain.
        every: seconds between two looks.

    Raises:
        DemoError: the deadline passed.
    """
    deadline = time.monotonic() + seconds
    while not (result := check()):
        if time.monotonic() > deadline:
            raise DemoError(f"waited {seconds:.0f} s in vain for: {what}", explain(*describe) if describe else "")
        time.sleep(every)
    return result


def explain(*arguments: str) -> str:
    """What ``kubectl describe`` and the namespace's newest events tell, for a failure."""
    namespace = [argument for argument in arguments if argument.startswith("--namespace")]
    parts = []
    for command in (
        ["kubectl", "describe", *arguments],
        ["kubectl", "get", "pods,jobs,persistentvolumeclaims", *namespace],
        ["kubectl", "events", *namespace],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        parts.append("\n".join([f"$ {' '.join(command)}", *lines[-60:]]))
    return "\n\n".join(parts)


def condition(resource: dict[str, Any], type_: str) -> dict[str, str]:
    """The condition of this type; empty where it is not there yet."""
    conditions = resource.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == type_), {})
