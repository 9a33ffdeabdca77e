"""Backstay's own objects in the demo: storage, Backup and Restore, applied and watched with kubectl."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.demo.errors import DemoError
from tests.demo.story import Story
from tests.demo.terminal import condition, explain, get, list_objects, show, wait

PASSWORD = "the-password-of-the-demo"
"""A repository's password: whoever holds it reads the backups, and without it nobody does."""

BACKUP_DEADLINE = 300.0
RESTORE_DEADLINE = 300.0
READY_DEADLINE = 60.0


def make_secrets(story: Story, namespace: str, credentials: str = "AWS") -> None:
    """The two Secrets that a BackupStorage names: credentials for the bucket, and the repository's password.

    ``credentials`` is the beginning of the names of the environment variables that hold the former.
    """
    show(
        story,
        f"kubectl -n {namespace} create secret generic backup-s3"
        f" --from-literal=AWS_ACCESS_KEY_ID=${credentials}_ACCESS_KEY_ID"
        f" --from-literal=AWS_SECRET_ACCESS_KEY=${credentials}_SECRET_ACCESS_KEY",
    )
    show(
        story,
        f"kubectl -n {namespace} create secret generic backup-password --from-literal=password=$PASSWORD",
        PASSWORD=PASSWORD,
    )


def make_storage(story: Story, namespace: str, manifest: str) -> None:
    """Apply a BackupStorage and wait until it is Ready."""
    show(story, f"kubectl -n {namespace} apply -f {manifest}")
    wait_ready(story, "backupstorage", namespace, "main")


def wait_ready(story: Story, kind: str, namespace: str, name: str) -> dict[str, Any]:
    """Wait until a storage or a policy is Ready; prints each reason that it gives on the way."""
    told: list[str] = []

    def ready() -> dict[str, Any] | None:
        found = get(kind, namespace, name)
        if found is None:
            return None
        state = condition(found, "Ready")
        tell(story, told, f"{kind} {name}: {state.get('reason', 'not looked at yet')}. {state.get('message', '')}")
        return found if state.get("status") == "True" else None

    return wait(
        f"{kind} {namespace}/{name} to be Ready",
        ready,
        seconds=READY_DEADLINE,
        describe=(kind, name, f"--namespace={namespace}"),
    )


def wait_scheduled(story: Story, namespace: str, policy: str) -> str:
    """Wait for the Backup that the policy's schedule orders; returns its name."""
    due = wait_ready(story, "backuppolicy", namespace, policy).get("status", {}).get("nextScheduleTime")
    if due:
        seconds = (datetime.fromisoformat(due) - datetime.now(UTC)).total_seconds()
        story.say(f"the next slot is at {due}, in {max(0, seconds):.0f} s")
    backups = wait(
        f"the first Backup of policy {namespace}/{policy}",
        lambda: list_objects("backups", namespace),
        seconds=120,
        describe=("backuppolicy", policy, f"--namespace={namespace}"),
    )
    name = str(min(backups, key=lambda backup: backup["metadata"]["creationTimestamp"])["metadata"]["name"])
    story.progress(f"the schedule made Backup {name}")
    return name


def watch_backup(story: Story, namespace: str, name: str) -> dict[str, Any]:
    """Follow a Backup to its end; returns the finished object.

    Raises:
        DemoError: it did not complete without warnings.
    """
    return watch(story, "backup", namespace, name, BACKUP_DEADLINE, volume_line)


def restore(story: Story, namespace: str, backup: str) -> dict[str, Any]:
    """Order a Restore of ``backup`` into the namespace and follow it to its end; returns the finished object.

    Raises:
        DemoError: it did not complete without warnings.
    """
    show(
        story, f"sed s/NAME-OF-THE-BACKUP/{backup}/ tests/demo/backup/restore.yaml | kubectl -n {namespace} create -f -"
    )
    return watch(story, "restore", namespace, "shop", RESTORE_DEADLINE, volume_line)


def watch(
    story: Story, kind: str, namespace: str, name: str, seconds: float, line: Callable[[dict[str, Any]], str]
) -> dict[str, Any]:
    """Print what the status of a Backup or Restore tells, each time that it changes, until the end."""
    told: list[str] = []

    def finished() -> dict[str, Any] | None:
        found = get(kind, namespace, name)
        if found is None:
            return None
        status, state = found.get("status", {}), condition(found, "Succeeded")
        words = [status.get("phase") or "Pending", state.get("reason", ""), status.get("progress", "")]
        tell(story, told, "  ".join([*(w for w in words if w), *(line(v) for v in status.get("volumes", []))]))
        return found if state.get("status") in ("True", "False") else None

    where = (kind, name, f"--namespace={namespace}")
    done = wait(f"{kind} {namespace}/{name} to end", finished, seconds=seconds, describe=where)
    if done["status"].get("phase") != "Completed":
        state = condition(done, "Succeeded")
        raise DemoError(
            f"{kind} {namespace}/{name} ended as {done['status'].get('phase')}: {state.get('reason')}. "
            f"{state.get('message')}",
            explain(*where),
        )
    return done


def volume_line(volume: dict[str, Any]) -> str:
    """One volume of a status, for a progress line."""
    size, total = volume.get("bytes", 0), volume.get("totalBytes")
    amount = f" {size / 1e6:.1f} MB" if size else ""
    return f"[{volume['claim']}: {volume.get('phase', '')}{amount}{f' of {total / 1e6:.1f} MB' if total else ''}]"


def wait_catalogued(story: Story, namespace: str, snapshot: str) -> str:
    """Wait until the Backup with this committing snapshot was found in the bucket; returns its name."""

    def found() -> str | None:
        for backup in list_objects("backups", namespace):
            if backup.get("status", {}).get("snapshot") == snapshot and condition(backup, "Succeeded").get("status"):
                return str(backup["metadata"]["name"])
        return None

    name = wait(
        f"the restore point to appear as a Backup in {namespace}",
        found,
        seconds=60,
        describe=("backupstorage", "main", f"--namespace={namespace}"),
    )
    story.progress(f"Backup {name} was found in the bucket")
    return name


def tell(story: Story, told: list[str], text: str) -> None:
    """Print a state unless it was the last one printed."""
    if not told or told[-1] != text:
        told.append(text)
        story.progress(text)
