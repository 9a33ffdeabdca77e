"""The shop: how it comes to a namespace, and what its web answers."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass

from tests.demo.errors import DemoError
from tests.demo.story import Story
from tests.demo.terminal import get, show, wait

FIRST_ORDERS = 100_000
"""Orders that the schema loads; the writer's come after them."""


@dataclass(frozen=True)
class Answer:
    """What the shop says about its orders up to a number."""

    count: int
    last: int
    md5: str
    page: str

    @property
    def headline(self) -> str:
        """The page's line of figures."""
        found = re.search("<p>(.*?)</p>", self.page)
        return found.group(1) if found else self.page


def open_namespace(story: Story, namespace: str) -> None:
    """Make a namespace that Backstay may work in and where only restricted pods may run."""
    show(story, f"kubectl create namespace {namespace}")
    show(
        story,
        f"kubectl label namespace {namespace} backstay.dev/enrolled=true pod-security.kubernetes.io/enforce=restricted",
    )
    wait("the service account default", lambda: get("serviceaccount", namespace, "default"), seconds=30)


def wait_ready(namespace: str, *, seconds: float) -> None:
    """Wait until the database and both web pods are ready."""

    def ready() -> bool:
        database, web = get("statefulset", namespace, "shop-database"), get("deployment", namespace, "shop-web")
        return bool(
            database
            and web
            and database.get("status", {}).get("readyReplicas") == database["spec"]["replicas"]
            and web.get("status", {}).get("readyReplicas") == web["spec"]["replicas"]
        )

    wait(
        f"the shop's pods in {namespace} to be ready",
        ready,
        seconds=seconds,
        describe=("pods", f"--namespace={namespace}"),
    )


def address(namespace: str) -> str:
    """Host and port of the shop's Service."""
    service = get("service", namespace, "shop-web")
    if service is None:
        raise DemoError(f"namespace {namespace} has no Service shop-web")
    return f"{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"


def ask(namespace: str, through: int | None = None) -> Answer:
    """The checksum and the page over all orders, or over those up to ``through``."""
    query = "" if through is None else f"?through={through}"
    figures = json.loads(fetch(namespace, f"/checksum{query}"))
    return Answer(**figures, page=fetch(namespace, f"/{query}"))


def fetch(namespace: str, path: str) -> str:
    """The shop's answer to one request; asked again for a while, since a Service takes a moment to reach new pods."""
    url = f"http://{address(namespace)}{path}"

    def answer() -> str | None:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return response.read().decode()
        except (urllib.error.URLError, OSError):
            return None

    return wait(f"an answer of {url}", answer, seconds=60, describe=("pods", f"--namespace={namespace}"))
