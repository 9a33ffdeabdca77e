"""The schemas in crds/ and the typed kinds in backstay.api say the same, field by field.

A status field that the schema lacks would be pruned in silence; a spec field that the code lacks would be a lie.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from backstay.api import backup, names, policy, restore, storage

CRDS = Path(__file__).parents[3] / "crds"
KINDS = {
    "backupstorages": (storage.BackupStorage, "bst"),
    "backuppolicies": (policy.BackupPolicy, "bp"),
    "backups": (backup.Backup, "bk"),
    "restores": (restore.Restore, "rst"),
}
Schema = dict[str, Any]


@functools.cache
def definition(plural: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    return loaded


def schema_of(plural: str, part: str) -> Schema:
    (version,) = definition(plural)["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]["properties"][part]
    return found


def differences(kind: Any, schema: Schema, path: str) -> Iterator[str]:
    """Each disagreement between a Python type and its schema, as a line that names the field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        (kind,) = (a for a in arguments if a is not type(None))
        yield from differences(kind, schema, path)
    elif origin is tuple:
        if schema.get("type") != "array":
            yield f"{path}: should be an array"
        if "x-kubernetes-list-type" not in schema:
            yield f"{path}: does not say how lists are merged"
        yield from differences(arguments[0], schema.get("items", {}), f"{path}[]")
    elif origin is dict:
        if schema.get("type") != "object" or "additionalProperties" not in schema:
            yield f"{path}: should be a map"
        yield from differences(arguments[1], schema.get("additionalProperties", {}), f"{path}.*")
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield from struct_differences(kind, schema, path)
    else:
        yield from scalar_differences(kind, schema, path)


def struct_differences(kind: type[msgspec.Struct], schema: Schema, path: str) -> Iterator[str]:
    if schema.get("type") != "object":
        yield f"{path}: should be an object"
    fields = {f.encode_name: f for f in msgspec.structs.fields(kind)}
    properties = schema.get("properties", {})
    yield from (f"{path}.{name}: is in the code only" for name in fields.keys() - properties.keys())
    yield from (f"{path}.{name}: is in the schema only" for name in properties.keys() - fields.keys())
    required = {name for name, f in fields.items() if f.required}
    if required != set(schema.get("required", [])):
        yield f"{path}: requires {schema.get('required', [])}, the code {sorted(required)}"
    for name in fields.keys() & properties.keys():
        field, property_ = fields[name], properties[name]
        if path.startswith("spec") and isinstance(field.default, str | bool) and field.default not in ("", False):
            if property_.get("default") != field.default:
                yield f"{path}.{name}: defaults to {property_.get('default')!r}, in the code to {field.default!r}"
        elif property_.get("default", field.default) != field.default:
            yield f"{path}.{name}: has a default that the code does not have"
        yield from differences(field.type, property_, f"{path}.{name}")


def scalar_differences(kind: Any, schema: Schema, path: str) -> Iterator[str]:
    wanted = {
        str: {"type": "string"},
        bool: {"type": "boolean"},
        int: {"type": "integer", "format": "int64"},
        datetime: {"type": "string", "format": "date-time"},
    }[kind]
    if {key: schema.get(key) for key in wanted} != wanted:
        yield f"{path}: should be {wanted}"
    if kind is str and "format" in schema:
        yield f"{path}: has a format that the code does not know"


def undescribed(schema: Schema, path: str) -> Iterator[str]:
    if len(schema.get("description", "")) < 8:
        yield path
    for name, property_ in schema.get("properties", {}).items():
        yield from undescribed(property_, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from undescribed(schema[key], f"{path}.{key}")


@pytest.mark.parametrize("plural", KINDS)
@pytest.mark.parametrize("part", ["spec", "status"])
def test_schema_and_code_have_the_same_fields_types_and_defaults(plural: str, part: str) -> None:
    kind, _ = KINDS[plural]
    (field,) = (f for f in msgspec.structs.fields(kind) if f.name == part)

    assert list(differences(field.type, schema_of(plural, part), part)) == []


@pytest.mark.parametrize("plural", KINDS)
@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_field_is_described(plural: str, part: str) -> None:
    assert list(undescribed(schema_of(plural, part), part)) == []


@pytest.mark.parametrize("plural", KINDS)
def test_names_are_those_of_the_code(plural: str) -> None:
    kind, short = KINDS[plural]

    spec = definition(plural)["spec"]

    assert definition(plural)["metadata"]["name"] == f"{plural}.{names.GROUP}"
    assert spec["group"] == names.GROUP
    assert spec["versions"][0]["name"] == names.VERSION
    assert spec["names"]["kind"] == kind.__name__
    assert spec["names"]["shortNames"] == [short]
    assert spec["names"]["categories"] == ["backstay"]
    assert spec["scope"] == "Namespaced"


@pytest.mark.parametrize("plural", KINDS)
def test_conditions_are_merged_by_type_so_that_two_writers_do_not_lose_each_others(plural: str) -> None:
    conditions = schema_of(plural, "status")["properties"]["conditions"]

    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


@pytest.mark.parametrize("plural", KINDS)
def test_status_is_a_subresource_of_its_own(plural: str) -> None:
    assert definition(plural)["spec"]["versions"][0]["subresources"] == {"status": {}}


@pytest.mark.parametrize("plural", KINDS)
def test_printer_columns_name_fields_that_exist(plural: str) -> None:
    for column in definition(plural)["spec"]["versions"][0]["additionalPrinterColumns"]:
        part, *path = column["jsonPath"].lstrip(".").replace('[?(@.type=="Ready")]', "").split(".")
        if part == "metadata":
            continue
        schema = schema_of(plural, part)
        for name in path:
            schema = schema.get("items", schema)["properties"][name]
        assert schema["type"] == column["type"] or column["type"] == "date", column


def test_the_longest_policy_name_gives_a_backup_name_that_is_a_label_value() -> None:
    slot = datetime.fromisoformat("2026-11-24T02:00:00+00:00")

    assert len(names.backup_name("cluster", "shop", "p" * 40, slot)) <= 63
