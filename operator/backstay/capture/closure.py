"""The selected objects, completed by everything that they refer to in the namespace, and why each is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from backstay.capture.dependencies import Need, account_of, binds, needs_of
from backstay.capture.selection import Selection
from backstay.capture.skipped import skip_reason
from backstay.kube.errors import ForbiddenError
from backstay.kube.resource import CLAIMS, ROLE_BINDINGS, SECRETS, Resource

Object = dict[str, Any]
Objects = list[Object]

SELECTED = "selected by label"
IN_NAMESPACE = "in the namespace"

_PARALLEL = 8


class Reader(Protocol):
    """The part of `kube.client.Client` that is needed here."""

    def find(self, resource: Resource, name: str, namespace: str = "") -> Object | None: ...
    def list(self, resource: Resource, namespace: str = "", labels: str = "") -> Objects: ...


@dataclass(frozen=True)
class Captured:
    """One object, as read, and why it is part of the application."""

    resource: Resource
    object: Object
    reason: str


@dataclass(frozen=True)
class Closure:
    """All objects of the application, each once, and what could not be found."""

    objects: tuple[Captured, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Wanted:
    need: Need
    origin: str


def complete(
    selection: Selection,
    reader: Reader,
    namespace: str,
    *,
    reason: str = SELECTED,
    kept_back: Mapping[str, str] | None = None,
) -> Closure:
    """Follow the references of the selected objects, and of what they lead to, until nothing new is found.

    ``reason`` is given to the selected objects. ``kept_back`` are the Secrets that open BackupStorages, by name, with
    the storage's name. Raises ApiError, but for objects that the reader may not read: these are warnings.
    """
    search = _Search(reader, namespace, kept_back or {})
    search.begin(selection, reason)
    while search.frontier:
        search.advance()
    return Closure(tuple(search.found.values()), (*selection.warnings, *search.warnings))


class _Search:
    """One closure in the making: objects found, those whose references are to be followed next, and warnings."""

    def __init__(self, reader: Reader, namespace: str, kept_back: Mapping[str, str]) -> None:
        self._reader = reader
        self._namespace = namespace
        self._kept_back = kept_back
        self._asked: set[tuple[str, str]] = set()
        self._accounts: set[str] = set()
        self.found: dict[tuple[str, str, str], Captured] = {}
        self.frontier: list[Object] = []
        self.warnings: list[str] = []
        self._claims = [claim["metadata"]["name"] for claim in self._list(CLAIMS)]
        self._bindings = self._list(ROLE_BINDINGS)

    def begin(self, selection: Selection, reason: str) -> None:
        for resource, obj in selection.objects:
            # A storage's Secret is not worth a warning here: nobody asked for it by name.
            if not (resource == SECRETS and obj["metadata"]["name"] in self._kept_back):
                self._add(resource, obj, reason)
        # A workload's own words are a better reason than those of its pods.
        self.frontier.sort(key=lambda obj: obj.get("kind") == "Pod")
        self.frontier += [obj for _, obj in selection.bystanders]
        self._asked.update((resource.kind, obj["metadata"]["name"]) for resource, obj in selection.bystanders)

    def advance(self) -> None:
        origins, self.frontier = self.frontier, []
        wanted = self._wanted(origins)
        with ThreadPoolExecutor(_PARALLEL) as threads:
            answers = list(threads.map(self._find, wanted))
        for want, answer in zip(wanted, answers, strict=True):
            self._take(want, answer)
        for origin in origins:
            self._take_bindings(account_of(origin))

    def _wanted(self, origins: Iterable[Object]) -> list[_Wanted]:
        """The needs that nobody has had yet; of several, the first required one, so that its absence is told."""
        wanted: dict[tuple[str, str], _Wanted] = {}
        for obj in origins:
            origin = f"{obj.get('kind')} {obj['metadata']['name']}"
            for need in needs_of(obj, self._claims):
                key = need.resource.kind, need.name
                if key not in self._asked and (key not in wanted or wanted[key].need.optional > need.optional):
                    wanted[key] = _Wanted(need, origin)
        self._asked.update(wanted)
        return list(wanted.values())

    def _find(self, want: _Wanted) -> Object | ForbiddenError | None:
        try:
            return self._reader.find(want.need.resource, want.need.name, self._namespace)
        except ForbiddenError as error:
            return error

    def _take(self, want: _Wanted, answer: Object | ForbiddenError | None) -> None:
        resource, name = want.need.resource, want.need.name
        title = f"{resource.kind} {name}, referenced by {want.origin},"
        if isinstance(answer, ForbiddenError):
            self.warnings.append(f"{title} was not captured: {answer.message}")
        elif answer is None:
            if not want.need.optional:
                self.warnings.append(f"{title} does not exist")
        elif resource == SECRETS and name in self._kept_back:
            self.warnings.append(f"{title} was not captured: BackupStorage {self._kept_back[name]} keeps its own in it")
        elif not skip_reason(resource, answer):
            answer.setdefault("apiVersion", resource.api_version)
            answer.setdefault("kind", resource.kind)
            self._add(resource, answer, f"referenced by {want.origin}")

    def _take_bindings(self, account: str) -> None:
        if not account or account in self._accounts:
            return
        self._accounts.add(account)
        for binding in self._bindings:
            if binds(binding, account, self._namespace) and not skip_reason(ROLE_BINDINGS, binding):
                self._add(ROLE_BINDINGS, binding, f"gives rights to ServiceAccount {account}")

    def _add(self, resource: Resource, obj: Object, reason: str) -> None:
        name = obj["metadata"]["name"]
        key = resource.group, resource.kind, name
        if key in self.found:
            return
        obj["metadata"].pop("managedFields", None)
        self._asked.add((resource.kind, name))
        self.found[key] = Captured(resource, obj, reason)
        self.frontier.append(obj)

    def _list(self, resource: Resource) -> list[Object]:
        try:
            return self._reader.list(resource, self._namespace)
        except ForbiddenError as error:
            self.warnings.append(f"references to {resource.kind} objects could not be followed: {error.message}")
            return []
