"""The NetworkPolicy of a storage's movers: they reach names and the S3 server, and nothing reaches them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from backstay.api.meta import object_reference
from backstay.api.names import COMPONENT_LABEL, STORAGE_LABEL
from backstay.api.storage import BackupStorage
from backstay.kube.resource import NETWORK_POLICIES, STORAGES

#: DNS as pods see it. A rule is applied after a Service's translation, and OpenShift's DNS pods listen on 5353.
_DNS_PORTS = (53, 5353)


def build_network_policy(storage: BackupStorage) -> dict[str, Any]:
    """The policy for the movers of one storage; it is deleted with the storage."""
    return {
        "apiVersion": NETWORK_POLICIES.api_version,
        "kind": NETWORK_POLICIES.kind,
        "metadata": {
            "name": f"backstay-mover-{storage.metadata.name}",
            "namespace": storage.metadata.namespace,
            "labels": {COMPONENT_LABEL: "network", "app.kubernetes.io/managed-by": "backstay"},
            "ownerReferences": [object_reference(STORAGES.kind, storage.metadata)],
        },
        "spec": {
            "podSelector": {"matchLabels": {STORAGE_LABEL: storage.metadata.name}},
            "policyTypes": ["Ingress", "Egress"],
            "egress": [
                {"ports": [{"protocol": kind, "port": port} for port in _DNS_PORTS for kind in ("UDP", "TCP")]},
                *_egress_to_s3(storage.spec.s3.endpoint),
            ],
        },
    }


def _egress_to_s3(endpoint: str) -> list[dict[str, Any]]:
    parts = urlsplit(endpoint)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    rules: list[dict[str, Any]] = [{"ports": [{"protocol": "TCP", "port": port}]}]
    labels = (parts.hostname or "").split(".")
    if len(labels) >= 3 and labels[2] == "svc":
        # A server in the cluster: its pods may listen on another port than its Service, which is the one that counts.
        namespace = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": labels[1]}}}
        rules.append({"to": [namespace]})
    return rules
