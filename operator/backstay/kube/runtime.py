"""What every reconcile is given: the API client, the operator's settings, the clock and the proof of leadership."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backstay.kube.client import Client
from backstay.kube.resource import NAMESPACES

_OWN_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class InvalidSettingError(ValueError):
    """An environment variable of the operator has no usable value; the text names it."""


@dataclass(frozen=True)
class Settings:
    """The operator's configuration, which the chart puts into its environment as ``BACKSTAY_*``."""

    namespace: str = "backstay-system"
    #: Names this process among others that want the same Lease.
    identity: str = "backstay"
    image: str = "backstay"
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    #: Every namespace counts as enrolled.
    enroll_all: bool = False
    #: A storage without credentials is reached with the pods' own cloud identity, by whoever may write a storage.
    pod_identity: bool = False
    #: ``resources`` of a mover's container.
    mover_resources: dict[str, Any] = field(default_factory=dict)
    #: Threads that reconcile.
    workers: int = 8
    liveness_port: int = 8080

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read BACKSTAY_NAMESPACE, _POD, _IMAGE, _IMAGE_PULL_POLICY, _IMAGE_PULL_SECRETS (names, commas between),
        _ENROLL_ALL and _POD_IDENTITY (true or false), _MOVER_RESOURCES (JSON), _WORKERS, _LIVENESS_PORT.

        Raises InvalidSettingError.
        """

        def text(name: str, default: str) -> str:
            return environment.get(f"BACKSTAY_{name}") or default

        default = cls()
        try:
            return cls(
                namespace=text("NAMESPACE", _own_namespace() or default.namespace),
                identity=f"{text('POD', socket.gethostname())}_{os.getpid()}_{os.urandom(4).hex()}",
                image=text("IMAGE", default.image),
                image_pull_policy=text("IMAGE_PULL_POLICY", default.image_pull_policy),
                image_pull_secrets=tuple(
                    name.strip() for name in text("IMAGE_PULL_SECRETS", "").split(",") if name.strip()
                ),
                enroll_all=_boolean("ENROLL_ALL", text("ENROLL_ALL", "false")),
                pod_identity=_boolean("POD_IDENTITY", text("POD_IDENTITY", "false")),
                mover_resources=_mapping("MOVER_RESOURCES", text("MOVER_RESOURCES", "{}")),
                workers=int(text("WORKERS", str(default.workers))),
                liveness_port=int(text("LIVENESS_PORT", str(default.liveness_port))),
            )
        except ValueError as error:
            if isinstance(error, InvalidSettingError):
                raise
            raise InvalidSettingError(f"a BACKSTAY_ environment variable is not usable: {error}") from error


@dataclass(frozen=True)
class Runtime:
    """The outside world of a reconcile. ``cluster_id`` is the UID of the namespace kube-system.

    ``now`` gives the present in UTC. ``leading`` raises LostLeaseError when another operator may be at work: call it
    before each act that cannot be taken back.
    """

    client: Client
    settings: Settings
    cluster_id: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    leading: Callable[[], None] = lambda: None


def read_cluster_id(client: Client) -> str:
    """The cluster's identity: the UID of the namespace kube-system, which lives as long as the cluster."""
    return str(client.get(NAMESPACES, "kube-system")["metadata"]["uid"])


def _own_namespace() -> str:
    try:
        return _OWN_NAMESPACE_FILE.read_text().strip()
    except FileNotFoundError:
        return ""


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise InvalidSettingError(f"BACKSTAY_{name} is {text!r}; it must be true or false")
    return text.lower() == "true"


def _mapping(name: str, text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise InvalidSettingError(f"BACKSTAY_{name} must be a JSON object, not {text!r}")
    return value
