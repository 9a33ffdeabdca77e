"""Fixtures: a bucket and namespaces of a test's own, deleted afterwards, and the operator that must be there.

Run as `python -m tests.cluster exec -- .venv/bin/pytest tests/e2e`, after `python -m tests.cluster install`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.e2e.place import Place
from tests.e2e.tenants import OPERATOR_NAMESPACE, kubectl


@pytest.fixture(scope="session")
def operator() -> None:
    """The operator, which must have been installed."""
    kubectl("--namespace", OPERATOR_NAMESPACE, "rollout", "status", "deployment/backstay-operator", "--timeout=50s")


@pytest.fixture(scope="session")
def s3() -> Any:
    """A client for the cluster's S3 server, by its address outside of pods."""
    config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
    return boto3.client("s3", endpoint_url=os.environ["BACKSTAY_S3_ENDPOINT"], region_name="us-east-1", config=config)


@pytest.fixture
def bucket(s3: Any) -> Iterator[str]:
    """A bucket of the test's own."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    s3.create_bucket(Bucket=name)
    yield name
    remove_bucket(s3, name)


def remove_bucket(s3: Any, name: str) -> None:
    """Delete a bucket with its content; it may be gone already."""
    if name not in {found["Name"] for found in s3.list_buckets()["Buckets"]}:
        return
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        for found in page.get("Contents", ()):
            s3.delete_object(Bucket=name, Key=found["Key"])
    s3.delete_bucket(Bucket=name)


@pytest.fixture
def places(operator: None) -> Iterator[Callable[..., Place]]:
    """Makes namespaces for the test."""
    made: list[Place] = []

    def make(prefix: str = "shop", **options: Any) -> Place:
        made.append(Place.make(prefix, **options))
        return made[-1]

    yield make
    for place in made:
        place.destroy()
