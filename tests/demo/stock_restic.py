"""The bucket read by restic itself: the independent witness that nobody needs Backstay to get at the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.demo import bucket
from tests.demo.protection import PASSWORD
from tests.demo.story import Story
from tests.demo.terminal import show
from tests.repository import restic_binary

ADDRESS = f"s3:{bucket.ENDPOINT}/{bucket.NAME}/{bucket.PREFIX}"
LINES_OF_LISTING = 12


def binary() -> Path:
    """The restic program, fetched once for a machine."""
    return restic_binary.restic()


def read(story: Story) -> dict[str, Any]:
    """List snapshots and files, and read the restore point's description; returns that description."""
    environment = {
        "RESTIC_PASSWORD": PASSWORD,
        "RESTIC_REPOSITORY": ADDRESS,
        "PATH": f"{binary().parent}:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    story.say(f"RESTIC_REPOSITORY={ADDRESS}")
    show(story, "timeout 60 restic --no-cache snapshots --compact", **environment)
    show(story, f"timeout 60 restic --no-cache ls latest | sed -n 1,{LINES_OF_LISTING}p", **environment)
    dump = "timeout 60 restic --no-cache dump latest backstay/restore-point.json"
    return json.loads(show(story, dump, quiet=True, **environment))
