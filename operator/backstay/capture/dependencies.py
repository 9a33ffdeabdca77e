"""What objects need of one another: by reference, as their own fields tell.

Only references that this version of Backstay follows are here; each kind has its function, so that what is followed can
be read off from top to bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backstay.kube.resource import CLAIMS, CONFIG_MAPS, ROLES, SECRETS, SERVICE_ACCOUNTS, Resource
from backstay.volumes.claims import claim_pattern, claim_template_names, pod_template

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Need:
    """A reference to an object of the same namespace. ``optional``: its absence is no fault."""

    resource: Resource
    name: str
    optional: bool = False


def needs_of(obj: Object, claims: Iterable[str] = ()) -> list[Need]:
    """What an object refers to, each once; ``claims`` are the names of the namespace's claims.

    A need that is optional in one place and required in another is required.
    """
    found: dict[tuple[str, str], Need] = {}
    for need in _all_needs(obj, claims):
        key = need.resource.kind, need.name
        if need.name and (key not in found or found[key].optional):
            found[key] = need
    return list(found.values())


def account_of(obj: Object) -> str:
    """The name of the ServiceAccount that a pod or a workload's pods run with, empty for kinds without pods."""
    spec = _pod_spec(obj)
    return (spec.get("serviceAccountName") or "default") if spec is not None else ""


def binds(binding: Object, account: str, namespace: str) -> bool:
    """Whether a RoleBinding gives rights to this ServiceAccount of the namespace."""
    return any(
        subject.get("kind") == "ServiceAccount"
        and subject.get("name") == account
        and subject.get("namespace", namespace) == namespace
        for subject in binding.get("subjects") or ()
    )


def _all_needs(obj: Object, claims: Iterable[str]) -> Iterator[Need]:
    kind = obj.get("kind", "")
    spec = _pod_spec(obj)
    if spec is not None:
        yield from _pod_needs(spec)
    if kind == "StatefulSet":
        patterns = [claim_pattern(obj, template) for template in claim_template_names(obj)]
        for claim in claims:
            if any(pattern.fullmatch(claim) for pattern in patterns):
                yield Need(CLAIMS, claim)
    if other := _OTHERS.get(kind):
        yield from other(obj)


def _pod_spec(obj: Object) -> Object | None:
    holder = obj if obj.get("kind") == "Pod" else pod_template(obj)
    return (holder.get("spec") or {}) if holder is not None else None


def _pod_needs(spec: Object) -> Iterator[Need]:
    account = spec.get("serviceAccountName") or "default"
    yield Need(SERVICE_ACCOUNTS, account, optional=account == "default")
    for reference in spec.get("imagePullSecrets") or ():
        # The kubelet pulls without a pull secret that is missing, but nobody writes one down in vain.
        yield Need(SECRETS, reference.get("name", ""))
    for volume in spec.get("volumes") or ():
        yield from _volume_needs(volume)
    for key in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(key) or ():
            yield from _container_needs(container)


def _volume_needs(volume: Object) -> Iterator[Need]:
    for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
        if config_map := source.get("configMap"):
            yield Need(CONFIG_MAPS, config_map.get("name", ""), bool(config_map.get("optional")))
        if secret := source.get("secret"):
            # A volume calls it secretName, a projected source name.
            name = secret.get("secretName") or secret.get("name", "")
            yield Need(SECRETS, name, bool(secret.get("optional")))
    if claim := volume.get("persistentVolumeClaim"):
        yield Need(CLAIMS, claim["claimName"])
    for driver in ("csi", "flexVolume", "cephfs", "rbd", "iscsi", "scaleIO", "storageos"):
        source = volume.get(driver) or {}
        if reference := source.get("nodePublishSecretRef") or source.get("secretRef"):
            yield Need(SECRETS, reference.get("name", ""))


def _container_needs(container: Object) -> Iterator[Need]:
    references = [variable.get("valueFrom") or {} for variable in container.get("env") or ()]
    for reference in references:
        for key, resource in (("configMapKeyRef", CONFIG_MAPS), ("secretKeyRef", SECRETS)):
            if found := reference.get(key):
                yield Need(resource, found.get("name", ""), bool(found.get("optional")))
    for source in container.get("envFrom") or ():
        for key, resource in (("configMapRef", CONFIG_MAPS), ("secretRef", SECRETS)):
            if found := source.get(key):
                yield Need(resource, found.get("name", ""), bool(found.get("optional")))


def _account_needs(account: Object) -> Iterator[Need]:
    for reference in account.get("imagePullSecrets") or ():
        yield Need(SECRETS, reference.get("name", ""))
    for reference in account.get("secrets") or ():
        yield Need(SECRETS, reference.get("name", ""), optional=True)


def _binding_needs(binding: Object) -> Iterator[Need]:
    role = binding.get("roleRef") or {}
    if role.get("kind") == "Role":
        yield Need(ROLES, role.get("name", ""))


def _ingress_needs(ingress: Object) -> Iterator[Need]:
    for entry in ingress.get("spec", {}).get("tls") or ():
        yield Need(SECRETS, entry.get("secretName", ""))


_OTHERS: Mapping[str, Callable[[Object], Iterator[Need]]] = {
    "Ingress": _ingress_needs,
    "RoleBinding": _binding_needs,
    "ServiceAccount": _account_needs,
}
