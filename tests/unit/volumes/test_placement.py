"""Where movers run."""

from __future__ import annotations

from backstay.volumes.claims import ClaimFacts
from backstay.volumes.placement import filling_placement, placement_of, reading_placement

ZONE = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
DISK = {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}
PIN = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}


def terms(placement):
    affinity = placement["affinity"]["nodeAffinity"]
    return affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]


def user(**spec):
    return {"metadata": {"name": "db-0"}, "spec": {"nodeName": "n1", **spec}, "status": {"phase": "Running"}}


def required(*node_terms):
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [*node_terms]}}}


def test_a_live_mover_is_pinned_to_the_node_of_the_pod_without_naming_it_past_the_scheduler():
    tolerations = [{"key": "dedicated", "operator": "Exists"}]
    pod = user(tolerations=tolerations, nodeSelector={"disk": "ssd"}, affinity=required(ZONE))

    placement = reading_placement(
        ClaimFacts("data", access_modes=("ReadWriteOnce",), pods=(pod,)), "Live", placement_of(pod)
    )

    assert terms(placement) == [PIN]
    assert placement["tolerations"] == tolerations
    assert set(placement) == {"affinity", "tolerations"}


def test_a_shared_volume_or_an_unmounted_one_is_read_anywhere():
    shared = ClaimFacts("data", access_modes=("ReadWriteMany",), pods=(user(),))
    unmounted = ClaimFacts("data", access_modes=("ReadWriteOnce",))

    assert reading_placement(shared, "Live", {}) == {}
    assert reading_placement(unmounted, "Live", {}) == {}


def test_a_snapshot_is_read_where_both_the_volume_and_its_pod_may_be():
    pod = user(affinity={**required(DISK), "podAntiAffinity": {"x": []}}, topologySpreadConstraints=[{"maxSkew": 1}])

    placement = reading_placement(ClaimFacts("data", node_terms=(ZONE,), pods=(pod,)), "Snapshot", placement_of(pod))

    assert terms(placement) == [{"matchExpressions": DISK["matchExpressions"] + ZONE["matchExpressions"]}]
    assert "podAntiAffinity" not in placement["affinity"]
    assert "topologySpreadConstraints" not in placement


def test_a_pods_placement_leaves_out_what_admission_gives_to_every_pod():
    defaults = [{"key": "node.kubernetes.io/not-ready"}, {"key": "node.kubernetes.io/unreachable"}]

    placement = placement_of(user(tolerations=defaults, nodeSelector={"a": "b"}, priorityClassName="high"))

    assert placement == {"nodeSelector": {"a": "b"}, "priorityClassName": "high"}
    assert filling_placement(placement) == {"nodeSelector": {"a": "b"}}
