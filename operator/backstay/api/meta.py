"""What every object of ours has: metadata, conditions, references, and one way to parse it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from backstay.api.names import API_VERSION


class Struct(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Base of the kinds: immutable, camelCase in JSON, unknown fields ignored (the API server has refused them)."""


class InvalidObjectError(ValueError):
    """An object does not have the form that its schema promises; the text names the field."""


class Reference(Struct, frozen=True):
    """An object in the same namespace."""

    name: str


class KeyReference(Struct, frozen=True):
    """One key of a Secret in the same namespace."""

    name: str
    key: str


class Meta(Struct, frozen=True):
    """The part of ``metadata`` that we read."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Condition(Struct, frozen=True):
    """A condition as in the Kubernetes API conventions; ``status`` is True, False or Unknown."""

    type: str
    status: str
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: datetime | None = None


class LabelSelector(Struct, frozen=True):
    """A label selector with the meaning that it has everywhere in Kubernetes: all requirements must hold."""

    class Requirement(Struct, frozen=True):
        """One expression; ``operator`` is In, NotIn, Exists or DoesNotExist."""

        key: str
        operator: str
        values: tuple[str, ...] = ()

        def matches(self, labels: Mapping[str, str]) -> bool:
            """Whether the labels fulfil this requirement."""
            match self.operator:
                case "In":
                    return labels.get(self.key) in self.values
                case "NotIn":
                    return labels.get(self.key) not in self.values
                case "Exists":
                    return self.key in labels
                case "DoesNotExist":
                    return self.key not in labels
                case unknown:
                    raise InvalidObjectError(
                        f"selector operator {unknown!r} is none of In, NotIn, Exists, DoesNotExist"
                    )

    match_labels: dict[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether an object with these labels is selected; the empty selector selects everything."""
        labels = labels or {}
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


Kind = TypeVar("Kind")


def parse(kind: type[Kind], source: Mapping[str, Any]) -> Kind:
    """An API object (or any part of one) as its typed form.

    Raises InvalidObjectError with the path of the offending field.
    """
    try:
        return msgspec.convert(source, kind, strict=False)
    except msgspec.ValidationError as error:
        name = source.get("metadata", {}).get("name", "")
        raise InvalidObjectError(f"{kind.__name__} {name}: {error}".replace("  ", " ")) from error


def to_json(value: Any) -> Any:
    """The typed form as plain dicts and lists, as the API server takes it."""
    return msgspec.to_builtins(value)


def set_condition(conditions: Sequence[Condition], new: Condition, now: datetime) -> tuple[Condition, ...]:
    """The conditions with ``new`` in place of its type's old one; the time moves only when the status changes."""
    old = find_condition(conditions, new.type)
    since = old.last_transition_time if old and old.status == new.status else None
    new = msgspec.structs.replace(new, last_transition_time=since or now.astimezone(UTC).replace(microsecond=0))
    return (*(c for c in conditions if c.type != new.type), new)


def find_condition(conditions: Sequence[Condition], type_: str) -> Condition | None:
    """The condition of this type, if there is one."""
    return next((c for c in conditions if c.type == type_), None)


def object_reference(kind: str, meta: Meta) -> dict[str, Any]:
    """An ownerReference to one of our objects, so that what we make for it goes when it goes."""
    return {"apiVersion": API_VERSION, "kind": kind, "name": meta.name, "uid": meta.uid, "controller": True}
