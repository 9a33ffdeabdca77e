"""The facts of claims."""

from __future__ import annotations

from backstay.volumes.claims import as_idle_pods, claim_facts

CLAIM = {
    "metadata": {"name": "data-db-0", "uid": "c1", "labels": {"app": "db"}},
    "spec": {
        "storageClassName": "fast",
        "volumeName": "pv1",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    },
    "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"]},
}
VOLUME = {
    "spec": {
        "csi": {"driver": "csi.example.com"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone"}]}]}},
    }
}


def pod(name, claim="data-db-0", *, phase="Running", node="n1", labels=None, read_only=False):
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "nodeName": node,
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/d", "readOnly": read_only}]}],
        },
        "status": {"phase": phase},
    }


def test_facts_come_from_the_claim_its_volume_and_its_pods():
    facts = claim_facts(CLAIM, VOLUME, [pod("db-0"), pod("other", "else")])

    assert (facts.name, facts.capacity, facts.driver, facts.node) == ("data-db-0", "2Gi", "csi.example.com", "n1")
    assert [p["metadata"]["name"] for p in facts.pods] == ["db-0"]
    assert facts.node_terms == ({"matchExpressions": [{"key": "zone"}]},)
    assert facts.written


def test_finished_pods_and_movers_do_not_use_a_claim():
    users = [pod("job", phase="Succeeded"), pod("mover", labels={"backstay.dev/component": "mover"})]

    facts = claim_facts(CLAIM, VOLUME, users)

    assert facts.pods == ()
    assert facts.node == ""


def test_a_claim_mounted_read_only_is_not_written():
    assert not claim_facts(CLAIM, VOLUME, [pod("reader", read_only=True)]).written


def test_a_running_pod_is_preferred_to_a_waiting_one():
    facts = claim_facts(CLAIM, VOLUME, [pod("new", phase="Pending", node=""), pod("old")])

    assert facts.user["metadata"]["name"] == "old"


def test_a_scaled_down_stateful_set_still_stands_for_the_claims_that_it_made():
    stateful_set = {
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {
            "template": {"spec": {"containers": [{"name": "c", "volumeMounts": [{"name": "data"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
        },
    }
    idle = as_idle_pods(stateful_set, ["data-db-0", "data-db-1", "data-dbx-0", "other"])

    facts = claim_facts(CLAIM, VOLUME, [], idle)

    assert facts.pods == ()
    assert facts.user["metadata"]["name"] == "db-0"
    assert [pod["metadata"]["name"] for pod in idle] == ["db-0", "db-1"]
    assert claim_facts({**CLAIM, "metadata": {"name": "data-dbx-0"}}, VOLUME, [], idle).user is None
