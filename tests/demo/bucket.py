"""The demo's bucket, seen from outside of Backstay."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.demo.errors import DemoError

NAME = "shop-backups"
PREFIX = "prod/shop"
ENDPOINT = os.environ.get("BACKSTAY_S3_ENDPOINT", "")


class Bucket:
    """Lists and empties the bucket."""

    def __init__(self) -> None:
        self._s3: Any = boto3.client(
            "s3",
            endpoint_url=ENDPOINT,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=20),
        )

    def make_empty(self) -> int:
        """Create the bucket, or delete what an earlier demo left in it; returns the number of deleted objects."""
        try:
            self._s3.create_bucket(Bucket=NAME)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
                raise DemoError(f"the bucket {NAME} cannot be created: {error}") from error
        old = self.objects()
        for key in old:
            self._s3.delete_object(Bucket=NAME, Key=key)
        return len(old)

    def objects(self) -> dict[str, tuple[int, str]]:
        """Size in bytes and entity tag of every object."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=NAME)
        return {o["Key"]: (o["Size"], o["ETag"]) for page in pages for o in page.get("Contents", [])}

    def settled(self) -> dict[str, tuple[int, str]]:
        """The objects once nobody writes any more: no lock, and the same list twice within a second."""
        for _ in range(30):
            before = self.objects()
            time.sleep(1)
            after = self.objects()
            if before == after and not any("/locks/" in key for key in after):
                return after
        raise DemoError("the bucket still changes 30 s after the Backup was completed")


def fingerprint(objects: dict[str, tuple[int, str]]) -> str:
    """One short text that differs when any object was added, removed or changed."""
    return hashlib.sha256(repr(sorted(objects.items())).encode()).hexdigest()[:16]


def table(objects: dict[str, tuple[int, str]]) -> str:
    """Number and size of the objects by their kind, as restic's format names them."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for key, (size, _) in objects.items():
        kind = key.removeprefix(f"{PREFIX}/").split("/")[0]
        counts[kind] += 1
        sizes[kind] += size
    return "\n".join(f"{kind:<10} {counts[kind]:>4} objects  {sizes[kind] / 1e6:>8.2f} MB" for kind in sorted(counts))
