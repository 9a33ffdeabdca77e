"""Which kinds a cluster serves, from the aggregated discovery documents (Kubernetes 1.30 and later serve them)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from backstay.kube.resource import Resource

logger = logging.getLogger(__name__)

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def resources_of(document: Mapping[str, Any]) -> Iterator[Resource]:
    """The listable kinds of an ``APIGroupDiscoveryList``, each in the first, preferred, version that has it."""
    for group in document.get("items") or []:
        group_name = (group.get("metadata") or {}).get("name", "")
        seen: set[str] = set()
        for version in group.get("versions") or []:
            if version.get("freshness") == "Stale":
                # An extension API server that is down: its kinds are unknown now, and must not pass for absent.
                logger.warning(
                    "kinds of %s/%s may be incomplete: its API server is down", group_name, version["version"]
                )
            for entry in version.get("resources") or []:
                plural = entry["resource"]
                verbs = frozenset(entry.get("verbs") or ())
                if plural in seen or "list" not in verbs:
                    continue
                seen.add(plural)
                yield Resource(
                    group=group_name,
                    version=version["version"],
                    kind=(entry.get("responseKind") or {}).get("kind", ""),
                    plural=plural,
                    namespaced=entry.get("scope") == "Namespaced",
                    verbs=verbs,
                )
