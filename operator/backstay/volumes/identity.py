"""As whom a mover runs: with the identity that the application itself uses on the volume, and never with more.

What a pod runs as is frozen into the restore point in the words of a pod's ``securityContext``, so that a Restore in
another cluster can fill the volume as the same user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backstay.volumes.claims import Object, volume_names

RunAs = Mapping[str, Any]

#: Who nobody is: as in restricted namespaces' images without a user of their own.
UNPRIVILEGED = 65532

PSA_ENFORCE_LABEL = "pod-security.kubernetes.io/enforce"

#: Root without these could not read what belongs to others. CAP_DAC_READ_SEARCH would do, but the Pod Security level
#: baseline refuses it; the source is mounted read-only, so that CAP_DAC_OVERRIDE gives no more here.
_READING = ("DAC_OVERRIDE",)
#: What it takes to give files their owner, mode (with setuid and setgid bits) and times.
_FILLING = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")


@dataclass(frozen=True)
class Identity:
    """``run_as`` holds ``runAsUser``, ``runAsGroup``, ``supplementalGroups``, ``fsGroup``, ``seLinuxOptions`` as far as
    known; ``warning`` says in words what may go wrong with it, empty when nothing.
    """

    run_as: RunAs = field(default_factory=dict)
    warning: str = ""


def identity_for(run_as: RunAs | None, pod_security: str) -> Identity:
    """The identity for a mover from what `run_as_of` told about the volume's user; None when nobody uses it.

    ``pod_security`` is the level that the namespace enforces, empty for none.
    """
    known = {key: value for key, value in (run_as or {}).items() if key != "runAsNonRoot"}
    root_allowed = pod_security != "restricted"
    if "runAsUser" in known:
        if known["runAsUser"] == 0 and not root_allowed:
            return Identity(
                {**known, "runAsUser": UNPRIVILEGED},
                "its pods run as root, but the namespace now enforces Pod Security level restricted: the mover runs "
                f"as user {UNPRIVILEGED} and may not have access to every file",
            )
        return Identity(known)
    if root_allowed and not (run_as or {}).get("runAsNonRoot"):
        return Identity({**known, "runAsUser": 0, "runAsGroup": 0})
    whose = "no pod uses the claim" if run_as is None else "the user of its pods is known only to their image"
    return Identity(
        {**known, "runAsUser": UNPRIVILEGED, "runAsGroup": UNPRIVILEGED},
        f"{whose}, and root is not allowed: the mover runs as user {UNPRIVILEGED} and may not have access to every "
        "file; set runAsUser in the pods' securityContext",
    )


def run_as_of(pod: Object, claim: str) -> dict[str, Any]:
    """What the container that uses the claim runs as: what the runtime reports before what the pod's spec says.

    Of several containers the most able one counts, as files of all of them lie in the volume: root, then one that
    writes. ``runAsUser`` is absent when only the image knows it; ``runAsNonRoot`` may say then that it is not root.
    """
    names = volume_names(pod, claim)
    spec = pod.get("spec", {})
    candidates: list[tuple[bool, bool, int, dict[str, Any]]] = []
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        mounts = [m for m in container.get("volumeMounts") or () if m["name"] in names]
        if not mounts:
            continue
        run_as = _container_run_as(pod, container)
        writes = any(not m.get("readOnly") for m in mounts)
        candidates.append((run_as.get("runAsUser") != 0, not writes, len(candidates), run_as))
    if not candidates:
        return _container_run_as(pod, {})
    return min(candidates, key=lambda c: c[:3])[3]


def _container_run_as(pod: Object, container: Object) -> dict[str, Any]:
    pod_context = pod.get("spec", {}).get("securityContext") or {}
    context = {**pod_context, **(container.get("securityContext") or {})}
    keys = ("runAsUser", "runAsGroup", "seLinuxOptions")
    run_as: dict[str, Any] = {key: context[key] for key in keys if context.get(key) is not None}
    if context.get("runAsNonRoot"):
        run_as["runAsNonRoot"] = True
    groups = set(pod_context.get("supplementalGroups") or ())
    if actual := _runtime_user(pod, container.get("name", "")):
        run_as["runAsUser"], run_as["runAsGroup"] = actual["uid"], actual["gid"]
        groups.update(actual.get("supplementalGroups") or ())
    groups -= {run_as.get("runAsGroup"), pod_context.get("fsGroup")}
    if groups:
        run_as["supplementalGroups"] = sorted(groups)
    if pod_context.get("fsGroup") is not None:
        run_as["fsGroup"] = pod_context["fsGroup"]
    if "runAsUser" in run_as:
        run_as.pop("runAsNonRoot", None)
    return run_as


def _runtime_user(pod: Object, container: str) -> Object | None:
    status = pod.get("status", {})
    for state in [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]:
        if state.get("name") == container:
            user: Object | None = (state.get("user") or {}).get("linux")
            return user
    return None


def security_contexts(run_as: RunAs, *, filling: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """A mover pod's and its container's ``securityContext``.

    For any user but root they fulfil the Pod Security level restricted; for root, all but a few file capabilities are
    dropped. Reading sets no fsGroup, since the kubelet would change modes and owners of the source; the group is a
    supplemental one instead. Filling keeps it: the volume is new and empty, and is to look as it does to its pods.
    """
    user = run_as.get("runAsUser", UNPRIVILEGED)
    pod: dict[str, Any] = {"runAsUser": user, "runAsNonRoot": user != 0, "seccompProfile": {"type": "RuntimeDefault"}}
    if "runAsGroup" in run_as:
        pod["runAsGroup"] = run_as["runAsGroup"]
    groups = list(run_as.get("supplementalGroups") or ())
    if (fs_group := run_as.get("fsGroup")) is not None:
        if filling:
            pod["fsGroup"] = fs_group
            pod["fsGroupChangePolicy"] = "OnRootMismatch"
        else:
            groups.append(fs_group)
    if groups:
        pod["supplementalGroups"] = sorted(set(groups))
    if run_as.get("seLinuxOptions"):
        pod["seLinuxOptions"] = dict(run_as["seLinuxOptions"])
    capabilities: dict[str, list[str]] = {"drop": ["ALL"]}
    if user == 0:
        capabilities["add"] = list(_FILLING if filling else _READING)
    container = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": capabilities,
    }
    return pod, container
