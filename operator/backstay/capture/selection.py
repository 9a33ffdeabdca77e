"""The objects that the policy's selector names, of every kind that the cluster serves."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from backstay.api.meta import LabelSelector
from backstay.capture.skipped import is_listed, skip_reason
from backstay.kube.client import Client
from backstay.kube.errors import ApiError, ForbiddenError, NotFoundError, UnavailableError
from backstay.kube.resource import Resource

Object = dict[str, Any]
_Found = tuple[Resource, Object]

#: Lists under way at a time.
_PARALLEL = 8
#: Their API server is the cluster's own: what it cannot list now, it can later. Others may be broken for weeks.
_OWN_GROUPS = frozenset({"", "apps", "batch", "networking.k8s.io", "rbac.authorization.k8s.io", "policy"})


@dataclass(frozen=True)
class Selection:
    """What was found. ``bystanders`` are selected too, but not captured: the pods of controllers, say. They count for
    what the application refers to.
    """

    objects: tuple[tuple[Resource, Object], ...]
    bystanders: tuple[tuple[Resource, Object], ...]
    warnings: tuple[str, ...]


def select(
    account: Client,
    resources: Iterable[Resource],
    namespace: str,
    selector: LabelSelector | None,
    *,
    patient: bool = True,
) -> Selection:
    """List everything that the selector names (None: everything in the namespace), with the account's rights.

    A kind that the account may not list is a warning, not a failure. Raises UnavailableError when a kind cannot be
    listed now; not being ``patient`` makes that a warning too, unless it is one of the API server's own kinds.
    """
    kinds = [resource for resource in resources if is_listed(resource) and "list" in resource.verbs]
    labels = selector_text(selector)
    with ThreadPoolExecutor(_PARALLEL) as threads:
        answers = list(threads.map(lambda resource: _list(account, resource, namespace, labels), kinds))
    refused = sorted(r.title() for r, a in zip(kinds, answers, strict=True) if isinstance(a, ForbiddenError))
    broken = [(r, a) for r, a in zip(kinds, answers, strict=True) if isinstance(a, UnavailableError)]
    for resource, error in broken:
        if patient or resource.group in _OWN_GROUPS:
            raise error
    warnings = [f"{resource.title()} objects were not captured: {error}" for resource, error in broken]
    if refused:
        warnings.append(
            f"the account may not list these kinds, so that none of them was captured: {', '.join(refused)}"
        )
    objects, bystanders = _sort(
        (resource, obj)
        for resource, answer in zip(kinds, answers, strict=True)
        if not isinstance(answer, ApiError)
        for obj in answer
    )
    return Selection(tuple(objects), tuple(bystanders), tuple(warnings))


def selector_text(selector: LabelSelector | None) -> str:
    """The selector as the API server takes it in a list's query."""
    if selector is None:
        return ""
    parts = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    for requirement in selector.match_expressions:
        match requirement.operator:
            case "Exists":
                parts.append(requirement.key)
            case "DoesNotExist":
                parts.append(f"!{requirement.key}")
            case "In" | "NotIn":
                parts.append(f"{requirement.key} {requirement.operator.lower()} ({','.join(requirement.values)})")
    return ",".join(parts)


def _sort(found: Iterable[tuple[Resource, Object]]) -> tuple[list[_Found], list[_Found]]:
    objects: list[_Found] = []
    bystanders: list[_Found] = []
    seen = set()
    for resource, obj in found:
        # One object may be served in several API groups.
        uid = obj["metadata"].get("uid") or (resource.group, resource.kind, obj["metadata"]["name"])
        if uid in seen:
            continue
        seen.add(uid)
        (bystanders if skip_reason(resource, obj) else objects).append((resource, obj))
    return objects, bystanders


def _list(account: Client, resource: Resource, namespace: str, labels: str) -> list[Object] | ApiError:
    try:
        return account.list(resource, namespace, labels)
    except NotFoundError:
        return []  # its definition was deleted a moment ago
    except (ForbiddenError, UnavailableError) as error:
        return error
    except ApiError as error:
        if error.status == 405:  # discovery promises a list that the server behind it does not have
            return []
        raise
