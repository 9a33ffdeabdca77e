"""The Job that carries bytes between claims and a repository, for reading (backup) and for filling (restore) alike.

The Job's pod has no token, no way to the API and no privilege. It is told what to do by one document in its
environment, and answers by its termination message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from backstay.api.names import COMPONENT_LABEL, OWNER_LABEL, STORAGE_LABEL
from backstay.volumes.identity import RunAs, security_contexts

CONTAINER = "mover"
#: The mover's exit status for a failure that trying again cannot mend.
EXIT_PERMANENT = 10
#: Where the n-th mount of a Job stands in its pod.
VOLUMES_DIRECTORY = "/volumes"

_BACKOFF_LIMIT = 2
#: A last net, in seconds: an operator deletes its Jobs itself, but one that never comes back cannot.
_TTL_SECONDS = 3600


class Access(Protocol):
    """How a pod gets at a repository: volumes and mounts with the Secrets, and environment variables."""

    @property
    def volumes(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def volume_mounts(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def env(self) -> Sequence[Mapping[str, Any]]: ...


class MoverSettings(Protocol):
    """What the operator's settings say about movers."""

    @property
    def image(self) -> str: ...
    @property
    def image_pull_policy(self) -> str: ...
    @property
    def image_pull_secrets(self) -> Sequence[str]: ...
    @property
    def mover_resources(self) -> Mapping[str, Any]: ...


def mount_path(index: int) -> str:
    """Where the mount of this number (from 0, in the order given to `build_mover_job`) stands in the pod."""
    return f"{VOLUMES_DIRECTORY}/{index}"


def build_mover_job(
    owner: Mapping[str, Any],
    *,
    namespace: str,
    name: str,
    storage: str,
    access: Access,
    order: Mapping[str, Any],
    mounts: Sequence[tuple[str, bool]],
    run_as: RunAs,
    placement: Mapping[str, Any],
    settings: MoverSettings,
) -> dict[str, Any]:
    """A mover's Job.

    ``owner`` is the ownerReference to the Backup or Restore; the Job goes when that goes. ``storage`` is the
    BackupStorage's name. ``order`` is the mover's order, whose ``action`` says whether it reads or fills. ``mounts``
    are (claim, read-only), the n-th at `mount_path(n)`. ``run_as`` is as in a restore point, ``placement`` as from
    `placement.reading_placement` or `placement.filling_placement`.
    """
    pod_context, container_context = security_contexts(run_as, filling=order["action"] != "backup")
    labels = {
        "app.kubernetes.io/managed-by": "backstay",
        COMPONENT_LABEL: "mover",
        OWNER_LABEL: owner["uid"],
        STORAGE_LABEL: storage,
    }
    # A mesh would hold the pod up until its proxy is ready, and keep it alive after the mover has ended.
    mesh = {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}
    pod_spec: dict[str, Any] = {
        **placement,
        "restartPolicy": "Never",
        "serviceAccountName": "default",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_context,
        "containers": [
            {
                "name": CONTAINER,
                "image": settings.image,
                "imagePullPolicy": settings.image_pull_policy,
                "command": ["backstay-mover"],
                "env": [
                    {"name": "BACKSTAY_ORDER", "value": json.dumps(order, separators=(",", ":"))},
                    {"name": "BACKSTAY_HOLDER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                    *access.env,
                ],
                "resources": dict(settings.mover_resources),
                "securityContext": container_context,
                "terminationMessagePolicy": "File",
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},
                    *access.volume_mounts,
                    *(
                        {"name": f"claim-{n}", "mountPath": mount_path(n), "readOnly": read_only}
                        for n, (_, read_only) in enumerate(mounts)
                    ),
                ],
            }
        ],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            *access.volumes,
            *(
                {"name": f"claim-{n}", "persistentVolumeClaim": {"claimName": claim, "readOnly": read_only}}
                for n, (claim, read_only) in enumerate(mounts)
            ),
        ],
    }
    if settings.image_pull_secrets:
        pod_spec["imagePullSecrets"] = [{"name": secret} for secret in settings.image_pull_secrets]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "annotations": mesh,
            "ownerReferences": [dict(owner)],
        },
        "spec": {
            "backoffLimit": _BACKOFF_LIMIT,
            "ttlSecondsAfterFinished": _TTL_SECONDS,
            # Two movers of one claim at the same time would take the same volume on two nodes.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [EXIT_PERMANENT]},
                    },
                ]
            },
            "template": {"metadata": {"labels": {**labels, **mesh}, "annotations": mesh}, "spec": pod_spec},
        },
    }
