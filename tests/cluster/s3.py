"""SeaweedFS as the S3 server, on the node's address and behind a Service for pods."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.commands import run, until
from tests.cluster.errors import CommandError
from tests.cluster.network import NODE_ADDRESS, inside
from tests.cluster.places import Places
from tests.cluster.processes import Processes

PORT: Final = 8333
ENDPOINT: Final = f"http://{NODE_ADDRESS}:{PORT}"
SERVICE_ENDPOINT: Final = f"http://s3.object-store.svc.cluster.local:{PORT}"
BUCKET: Final = "backups"
"""Made by `up`, for whoever needs just one."""


@dataclass(frozen=True)
class Keys:
    """An S3 identity's credentials."""

    access_key: str
    secret_key: str


class ObjectStore:
    """The S3 server of one cluster."""

    def __init__(self, places: Places) -> None:
        self._folder = places.state / "s3"

    @property
    def keys(self) -> Keys:
        """Of an identity that may do everything."""
        return self._identity("admin")

    @property
    def reader_keys(self) -> Keys:
        """Of an identity that may list and read, but not write."""
        return self._identity("reader")

    def start(self, processes: Processes, weed: Path) -> None:
        """Start the server with two identities and small volumes."""
        (self._folder / "data").mkdir(parents=True)
        rights = {"admin": ["Admin", "Read", "Write", "List", "Tagging"], "reader": ["Read", "List"]}
        identities = [
            {
                "name": name,
                "credentials": [{"accessKey": f"backstay-{name}", "secretKey": secrets.token_hex(20)}],
                "actions": actions,
            }
            for name, actions in rights.items()
        ]
        self._config.write_text(json.dumps({"identities": identities}, indent=1))
        self._config.chmod(0o600)
        # Each bucket grows volumes of its own; one at a time is plenty, and its default is seven.
        (self._folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
        # Its parts find one another by sockets in /tmp that are named by port alone, so two servers would mix up.
        (self._folder / "tmp").mkdir()
        own_tmp = 'mount --bind "$0" /tmp && exec "$@"'
        processes.start(
            "s3",
            [
                *("unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", own_tmp, self._folder / "tmp"),
                weed,
                "-logtostderr",
                "server",
                f"-dir={self._folder / 'data'}",
                f"-ip={NODE_ADDRESS}",
                "-ip.bind=0.0.0.0",
                "-master.volumeSizeLimitMB=256",
                "-master.telemetry=false",
                "-volume.max=0",
                "-filer",
                "-s3",
                f"-s3.port={PORT}",
                f"-s3.config={self._config}",
                # A bucket that is not there must be an error, as it is on other servers.
                "-s3.autoCreateBucket=false",
            ],
            folder=self._folder,
        )

    def await_ready(self, processes: Processes, weed: Path) -> None:
        """Wait until the server answers, and make the bucket."""

        def made() -> bool:
            processes.require_alive()
            try:
                self.create_bucket(BUCKET, weed)
            except CommandError:
                return False
            return True

        until("the S3 server to take a bucket", made, seconds=40, every=0.3)

    def create_bucket(self, name: str, weed: Path) -> None:
        """Make a bucket; one that exists stays as it is."""
        shell: list[str | Path] = [weed, "shell", f"-master={NODE_ADDRESS}:9333", f"-filer={NODE_ADDRESS}:8888"]
        printed = run(inside(shell), input=f"s3.bucket.create -name {name}\ns3.bucket.list\nexit\n", timeout=15)
        if not any(line.split()[:1] == [name] for line in printed.splitlines()):
            raise CommandError(f"create bucket {name}", 1, printed)

    @property
    def _config(self) -> Path:
        return self._folder / "identities.json"

    def _identity(self, name: str) -> Keys:
        for identity in json.loads(self._config.read_text())["identities"]:
            if identity["name"] == name:
                (pair,) = identity["credentials"]
                return Keys(pair["accessKey"], pair["secretKey"])
        raise KeyError(name)
