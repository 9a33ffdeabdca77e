"""As whom movers run."""

from __future__ import annotations

import pytest

from backstay.volumes.identity import identity_for, run_as_of, security_contexts


def pod(pod_context=None, *containers, statuses=()):
    return {
        "metadata": {"name": "db-0"},
        "spec": {
            "securityContext": pod_context or {},
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
            "containers": list(containers) or [container()],
        },
        "status": {"phase": "Running", "containerStatuses": list(statuses)},
    }


def container(name="c", context=None, *, read_only=False, mounts=True):
    mount = [{"name": "v", "mountPath": "/d", "readOnly": read_only}] if mounts else []
    return {"name": name, "securityContext": context or {}, "volumeMounts": mount}


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (pod({"runAsUser": 999, "runAsGroup": 998}), {"runAsUser": 999, "runAsGroup": 998}),
        (pod({"runAsUser": 999}, container(context={"runAsUser": 70})), {"runAsUser": 70}),
        (pod({"runAsUser": 999, "fsGroup": 5}), {"runAsUser": 999, "fsGroup": 5}),
        (pod({"runAsUser": 9, "supplementalGroups": [7, 3]}), {"runAsUser": 9, "supplementalGroups": [3, 7]}),
        (pod({"runAsUser": 9, "runAsNonRoot": True}), {"runAsUser": 9}),
        (pod({"runAsNonRoot": True}), {"runAsNonRoot": True}),
        (pod({"seLinuxOptions": {"level": "s0:c1"}}), {"seLinuxOptions": {"level": "s0:c1"}}),
        (pod({"runAsUser": 9}, container("a", {"runAsUser": 1}, mounts=False), container("b")), {"runAsUser": 9}),
        (
            pod({}, container("ro", {"runAsUser": 1}, read_only=True), container("rw", {"runAsUser": 2})),
            {"runAsUser": 2},
        ),
        (
            pod({}, container("rw", {"runAsUser": 2}), container("root", {"runAsUser": 0}, read_only=True)),
            {"runAsUser": 0},
        ),
    ],
)
def test_the_identity_is_that_of_the_most_able_container_on_the_volume(user, expected):
    assert run_as_of(user, "data") == expected


def test_what_the_runtime_reports_counts_before_the_spec():
    status = {"name": "c", "user": {"linux": {"uid": 999, "gid": 999, "supplementalGroups": [999, 101, 5]}}}

    run_as = run_as_of(pod({"fsGroup": 5}, statuses=[status]), "data")

    assert run_as == {"runAsUser": 999, "runAsGroup": 999, "supplementalGroups": [101], "fsGroup": 5}


@pytest.mark.parametrize(
    ("known", "level", "user", "warned"),
    [
        (None, "", 0, False),
        (None, "baseline", 0, False),
        (None, "restricted", 65532, True),
        ({}, "", 0, False),
        ({"runAsNonRoot": True}, "", 65532, True),
        ({"runAsUser": 0}, "baseline", 0, False),
        ({"runAsUser": 0}, "restricted", 65532, True),
        ({"runAsUser": 999}, "restricted", 999, False),
    ],
)
def test_nobody_runs_as_more_than_the_application_and_its_namespace_allow(known, level, user, warned):
    identity = identity_for(known, level)

    assert identity.run_as["runAsUser"] == user
    assert bool(identity.warning) == warned


def test_a_user_gets_a_restricted_security_context():
    pod_context, container_context = security_contexts({"runAsUser": 999, "runAsGroup": 998}, filling=False)

    assert pod_context == {
        "runAsUser": 999,
        "runAsGroup": 998,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container_context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_group_of_the_volume_reads_as_a_supplemental_group_and_fills_as_fs_group():
    run_as = {"runAsUser": 999, "fsGroup": 5, "supplementalGroups": [7]}

    reading, _ = security_contexts(run_as, filling=False)
    filling, _ = security_contexts(run_as, filling=True)

    assert "fsGroup" not in reading
    assert reading["supplementalGroups"] == [5, 7]
    assert filling["fsGroup"] == 5
    assert filling["supplementalGroups"] == [7]


def test_root_keeps_only_what_files_need():
    _, reading = security_contexts({"runAsUser": 0}, filling=False)
    _, filling = security_contexts({"runAsUser": 0}, filling=True)

    assert reading["capabilities"] == {"drop": ["ALL"], "add": ["DAC_OVERRIDE"]}
    assert filling["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"]}
