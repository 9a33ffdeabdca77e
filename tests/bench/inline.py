"""Until the command line has them: the verbs of the engine that are measured."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from urllib.parse import urlsplit

from backstay.repository import Repository, S3Credentials, S3Location, S3Store, Snapshot


def main() -> None:
    action, *rest = sys.argv[1:]
    parts = urlsplit(os.environ["RESTIC_REPOSITORY"].removeprefix("s3:"))
    bucket, _, prefix = parts.path.strip("/").partition("/")
    store = S3Store(
        S3Location(bucket, prefix, f"{parts.scheme}://{parts.netloc}", force_path_style=True),
        S3Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]),
    )
    password = os.environ["RESTIC_PASSWORD"]
    if action == "init":
        Repository.init(store, password)
        return
    repository = Repository.open(store, password)
    newest = max(repository.snapshots(), key=lambda s: s.time, default=None)
    if action == "backup":
        started = datetime.now(UTC)
        with repository.writer() as writer:
            archive = writer.backup(".", parent=newest)
            writer.commit(Snapshot(time=started, tree=archive.tree, paths=(os.getcwd(),), hostname="bench"))
    elif action == "restore":
        assert newest is not None
        repository.restore(newest.tree, rest[-1])
    else:
        sys.exit(f"{action}: not there yet")


if __name__ == "__main__":
    main()
