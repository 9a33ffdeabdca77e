"""The description of a restore point, stored in its own snapshot as ``backstay/restore-point.json``.

It makes a bucket self-describing: a cluster that has never seen the application learns from it what there is, when it
was cut, and how a volume's mover must run. Unknown fields are ignored and new ones have defaults, so that older and
newer releases read each other's points.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from backstay.api.meta import Struct

FORMAT_VERSION = 1


class ApplicationIdentity(Struct, frozen=True):
    """Whose point this is: cluster id (UID of the namespace kube-system), namespace, policy."""

    cluster: str
    namespace: str
    policy: str


class CapturedObject(Struct, frozen=True):
    """One object of the application: where its JSON stands in the snapshot, and why it was captured."""

    group: str
    version: str
    kind: str
    plural: str
    name: str
    path: str
    reason: str


class VolumeUser(Struct, frozen=True):
    """The pod that used the volume: with what identity and where a mover for it must run.

    ``run_as`` holds the pod's effective ``runAsUser``, ``runAsGroup``, ``supplementalGroups``, ``fsGroup``,
    ``seLinuxOptions``, ``seccompProfile`` as far as set; ``placement`` its ``nodeSelector``, ``affinity``,
    ``tolerations``, ``topologySpreadConstraints``, ``priorityClassName``. ``group`` is equal for volumes of one pod.
    """

    pod: str = ""
    group: str = ""
    run_as: dict[str, Any] = {}
    placement: dict[str, Any] = {}


class CapturedVolume(Struct, frozen=True):
    """One claim's data. ``tree`` is the id that counts; ``snapshot`` is a hint, since copying changes it."""

    claim: str
    claim_uid: str
    method: str
    consistency: str
    snapshot: str = ""
    tree: str = ""
    files: int = 0
    bytes: int = 0
    storage_class: str = ""
    capacity: str = ""
    access_modes: tuple[str, ...] = ()
    user: VolumeUser | None = None
    warnings: tuple[str, ...] = ()
    warning_count: int = 0


class RestorePoint(Struct, frozen=True, kw_only=True):
    """Everything about one restore point but the objects' own JSON."""

    backstay: str
    kubernetes: str = ""
    backup: str
    backup_uid: str
    application: ApplicationIdentity
    start_time: datetime
    cut_time: datetime
    completion_time: datetime
    outcome: str
    version: int = FORMAT_VERSION
    objects: tuple[CapturedObject, ...] = ()
    resource_bytes: int = 0
    volumes: tuple[CapturedVolume, ...] = ()
    warnings: tuple[str, ...] = ()
