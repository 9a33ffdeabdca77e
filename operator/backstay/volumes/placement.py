"""Where a mover runs: where its volume can be reached, and where the application's own pods are allowed to.

Never by ``nodeName``: that skips the scheduler, and with it the check that the node has room and takes pods at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backstay.volumes.claims import ClaimFacts, Object
from backstay.volumes.method import LIVE

#: What is copied from a pod, by field of its spec.
_COPIED = ("nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "priorityClassName")
#: Modes under which a second pod can use the volume on any node.
_SHARED = frozenset({"ReadWriteMany", "ReadOnlyMany"})

_DEFAULT_TOLERATIONS = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})


def placement_of(pod: Object) -> dict[str, Any]:
    """A pod's wishes about nodes, as they go into the restore point and into the pod that fills its volumes.

    Tolerations that admission gives to every pod are left out.
    """
    spec = pod.get("spec", {})
    placement = {key: spec[key] for key in _COPIED if spec.get(key)}
    tolerations = [t for t in placement.pop("tolerations", ()) if t.get("key") not in _DEFAULT_TOLERATIONS]
    if tolerations:
        placement["tolerations"] = tolerations
    return placement


def reading_placement(claim: ClaimFacts, method: str, wishes: Mapping[str, Any]) -> dict[str, Any]:
    """Where a mover may run that reads this claim; ``wishes`` is the `placement_of` the pod that uses it.

    Live: on the node of the pod that mounts it, unless its access mode lets other nodes in. From a snapshot: on nodes
    that the volume and its pods could use. Wishes of the pods about one another (affinity between pods, spread) are
    not copied: one mover beside running pods would only be kept out by them. Nor is their priority: a backup must
    not push other pods out.
    """
    placement = {key: wishes[key] for key in ("tolerations",) if key in wishes}
    if method == LIVE:
        if claim.node and not _SHARED & set(claim.access_modes):
            return {**placement, "affinity": pinned_to(claim.node)}
        terms: Sequence[Object] = ()  # the scheduler itself keeps to where a bound volume can be reached
    else:
        terms = claim.node_terms
    if "nodeSelector" in wishes:
        placement["nodeSelector"] = wishes["nodeSelector"]
    node_affinity = wishes.get("affinity", {}).get("nodeAffinity", {})
    wished = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms") or ()
    if required := _both(wished, terms):
        placement["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": required}}
        }
    return placement


def pinned_to(node: str) -> dict[str, Any]:
    """The affinity that lets only this node in."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def filling_placement(placement: Mapping[str, Any]) -> dict[str, Any]:
    """Where a mover may run that fills new claims for a pod with this placement (of a restore point).

    All of the pod's wishes hold, since the volumes come into being where this pod is put; only a priority class is
    left out, which may not exist here.
    """
    return {key: placement[key] for key in _COPIED if key in placement and key != "priorityClassName"}


def _both(left: Sequence[Object], right: Sequence[Object]) -> list[dict[str, Any]]:
    """Node selector terms that hold where a term of each side holds; an empty side demands nothing."""
    if not left or not right:
        return [dict(term) for term in (left or right)]
    return [
        {
            key: [*(one.get(key) or ()), *(other.get(key) or ())]
            for key in ("matchExpressions", "matchFields")
            if one.get(key) or other.get(key)
        }
        for one in left
        for other in right
    ]
