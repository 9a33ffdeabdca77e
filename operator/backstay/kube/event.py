"""Events as Kubernetes objects, with deterministic names: a repeated event is counted, not multiplied."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from backstay.api.meta import Meta
from backstay.api.names import short_hash
from backstay.kube.resource import EVENTS, Resource

CONTROLLER = "backstay.dev/operator"
#: The API's limit for an event's note, in bytes.
_NOTE_BYTES = 1024


def build_event(
    reference: Mapping[str, Any], type: str, reason: str, message: str, action: str, now: datetime
) -> dict[str, Any]:
    """The event of this reason and message for one object."""
    name = str(reference["name"])
    digest = short_hash(str(reference.get("uid", "")), type, reason, message, length=16)
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": f"{name[:200]}.{digest}", "namespace": reference.get("namespace") or "default"},
        "eventTime": micro_time(now),
        "reportingController": CONTROLLER,
        "reportingInstance": CONTROLLER,
        "type": type,
        "reason": reason,
        "action": action,
        "note": message.encode()[:_NOTE_BYTES].decode(errors="ignore"),
        "regarding": {
            key: reference[key] for key in ("apiVersion", "kind", "name", "namespace", "uid") if reference.get(key)
        },
    }


def regarding(resource: Resource, metadata: Meta) -> dict[str, Any]:
    """What `Client.event` wants to know of the object that an event is about."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid,
    }


def count_again(event: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The merge patch that counts one more occurrence of an event that exists."""
    count = int((event.get("series") or {}).get("count", 1))
    return {"series": {"count": count + 1, "lastObservedTime": micro_time(now)}}


def micro_time(time: datetime) -> str:
    """A time as the API's MicroTime."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
