"""The kinds as the API server takes them: samples apply, mistakes are refused in words, status comes back whole.

Needs the kinds (`kubectl apply --server-side -f crds/`); the operator may run or not.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from backstay.api import backup, policy, restore, storage
from backstay.api.meta import parse, to_json
from tests.e2e.tenants import Object, kubectl, read, refusal, temporary_namespace
from tests.e2e.tenants import backup as a_backup
from tests.e2e.tenants import policy as a_policy
from tests.e2e.tenants import restore as a_restore
from tests.e2e.tenants import storage as a_storage

SAMPLES = sorted((Path(__file__).parents[2] / "deploy" / "samples").glob("*.yaml"))
BAD_SAMPLES = sorted((Path(__file__).parent / "bad_samples").glob("*.yaml"))
KINDS = {
    "backupstorage": (storage.BackupStorage, "bst", a_storage()),
    "backuppolicy": (policy.BackupPolicy, "bp", a_policy()),
    "backup": (backup.Backup, "bk", a_backup()),
    # Not rs: that is ReplicaSet's.
    "restore": (restore.Restore, "rst", a_restore()),
}


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """A namespace that is not enrolled, so that an operator does no work in it."""
    with temporary_namespace("kinds", enrolled=False) as name:
        yield name


def test_there_are_samples() -> None:
    kinds = {d["kind"].lower() for s in SAMPLES for d in yaml.safe_load_all(s.read_text())}

    assert kinds >= KINDS.keys()
    assert len(BAD_SAMPLES) > 20


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_accepted(namespace: str, sample: Path) -> None:
    answer = kubectl("create", "--dry-run=server", f"--namespace={namespace}", f"--filename={sample}")

    assert "Warning" not in answer, "the API server warns of something in the sample"


@pytest.mark.parametrize("sample", BAD_SAMPLES, ids=lambda path: path.stem)
def test_a_mistake_is_refused_with_words_that_help(namespace: str, sample: Path) -> None:
    expected = re.match(r"# expect: (.*)\n", sample.read_text())
    assert expected, "the first line says what is expected"

    said = refusal("create", f"--namespace={namespace}", f"--filename={sample}")

    assert expected[1] in said


def example(kind: Any, name: str = "") -> Any:
    """A value of a type, with every field set to something other than its default."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return example(next(a for a in arguments if a is not type(None)), name)
    if origin is tuple:
        return (example(arguments[0], name),)
    if origin is dict:
        return {"some": example(arguments[1])}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind(**{f.name: example(f.type, f.name) for f in msgspec.structs.fields(kind)})
    if kind is str:
        # The condition's status is one of three words.
        return "Unknown" if name == "status" else f"some {name}"
    return {bool: True, int: 2**40, datetime: datetime(2026, 11, 24, 2, 0, 0, tzinfo=UTC)}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_the_operator_writes_into_status_is_lost(namespace: str, kind: str) -> None:
    typed, _, document = KINDS[kind]
    (field,) = (f for f in msgspec.structs.fields(typed) if f.name == "status")
    status = example(field.type)
    wanted = json.loads(json.dumps(to_json(status)))
    create(namespace, document, f"{kind}-status")
    path = f"/apis/backstay.dev/v1alpha1/namespaces/{namespace}/{plural(kind)}/{kind}-status/status"

    # The answer to the write is judged, and a conflict tried again: an operator that runs writes a status of its own.
    for _ in range(5):
        body = {**read(kind, f"{kind}-status", f"--namespace={namespace}"), "status": wanted}
        answer = kubectl("replace", f"--raw={path}", "--filename=-", document=body, check=False)
        if "the object has been modified" not in answer:
            break

    assert json.loads(answer)["status"] == wanted
    assert parse(typed, json.loads(answer)).status == status


def plural(kind: str) -> str:
    return kind.removesuffix("y") + "ies" if kind.endswith("y") else f"{kind}s"


def create(namespace: str, document: Object, name: str) -> Object:
    made: Object = json.loads(
        kubectl(
            "create",
            f"--namespace={namespace}",
            "--filename=-",
            "--output=json",
            document={**document, "metadata": {"name": name}},
        )
    )
    return made


def test_defaults_are_filled_in_where_users_see_them(namespace: str) -> None:
    made_storage = create(namespace, a_storage(), "defaults")
    made_policy = create(namespace, a_policy(schedule={"cron": "@daily"}, volumes=[{}]), "defaults")
    made_restore = create(namespace, a_restore(), "defaults")

    assert made_storage["spec"]["accessMode"] == "ReadWrite"
    assert made_storage["spec"]["catalogue"] == "Own"
    assert made_storage["spec"]["s3"]["forcePathStyle"] is False
    assert made_storage["spec"]["passwordSecretRef"]["key"] == "password"
    assert made_policy["spec"]["schedule"]["timeZone"] == "UTC"
    assert made_policy["spec"]["volumes"] == [{"method": "Auto"}]
    assert made_policy["spec"]["suspend"] is False
    assert made_policy["spec"]["serviceAccountName"] == "backstay"
    assert made_restore["spec"]["approve"] == ""
    assert made_restore["spec"]["serviceAccountName"] == "backstay"


def change(namespace: str, kind: str, name: str, spec: Object) -> tuple[str, ...]:
    """kubectl's words for a change of an object's spec."""
    patch = f"--patch={json.dumps({'spec': spec})}"
    return ("patch", kind, name, f"--namespace={namespace}", "--type=merge", patch)


def test_a_backup_cannot_be_changed_but_labelled(namespace: str) -> None:
    create(namespace, a_backup(), "fixed")

    said = refusal(*change(namespace, "backup", "fixed", {"capture": {"policy": "other"}}))
    assert "a Backup's spec cannot be changed; create another Backup" in said
    kubectl("label", "backup", "fixed", "some=label", f"--namespace={namespace}")


def test_of_a_restore_only_the_approval_can_be_changed_and_only_given(namespace: str) -> None:
    create(namespace, a_restore(storageClasses={"gp2": "gp3"}), "fixed")

    for spec in (
        {"source": {"backup": "other"}},
        {"serviceAccountName": "other"},
        {"storageClasses": {"gp2": "gp4"}},
        {"storageClasses": None},
    ):
        said = refusal(*change(namespace, "restore", "fixed", spec))
        assert "only approve can be changed in a Restore; create another Restore for the rest" in said
    kubectl("label", "restore", "fixed", "some=label", f"--namespace={namespace}")
    kubectl(*change(namespace, "restore", "fixed", {"approve": "Create"}))
    said = refusal(*change(namespace, "restore", "fixed", {"approve": ""}))
    assert "what was approved cannot be taken back" in said


@pytest.mark.parametrize("kind", KINDS)
def test_kubectl_explains_every_field(kind: str) -> None:
    told = kubectl("explain", "--recursive", kind)
    assert "spec" in told

    for path in (
        kind,
        f"{kind}.spec",
        f"{kind}.status",
        f"{kind}.status.conditions",
        f"{kind}.status.conditions.reason",
    ):
        described = kubectl("explain", path).partition("DESCRIPTION:")[2].strip()
        assert len(described) > 20, path
        assert "<empty>" not in described, path


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("backupstorage.spec.s3.prefix", "Folder in the bucket"),
        ("backupstorage.spec.accessMode", "Default: ReadWrite"),
        ("backuppolicy.spec.schedule.timeZone", "Default: UTC"),
        ("backuppolicy.spec.volumes.method", "Default: Auto"),
        ("backup.status.volumes.addedBytes", "in bytes"),
        ("restore.spec.approve", "change nothing"),
    ],
)
def test_kubectl_explain_tells_meaning_default_and_unit(path: str, words: str) -> None:
    assert words in " ".join(kubectl("explain", path).split())


@pytest.mark.parametrize("kind", KINDS)
def test_short_names_and_the_category_find_the_kinds(namespace: str, kind: str) -> None:
    _, short, document = KINDS[kind]
    create(namespace, document, "short")

    answer = kubectl("get", short, "--output=name", f"--namespace={namespace}")
    assert f"{kind}.backstay.dev/short" in answer
    assert "Warning" not in answer, "the short name is another kind's too"
    assert f"{kind}.backstay.dev/short" in kubectl("get", "backstay", "--output=name", f"--namespace={namespace}")


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("backupstorage", "NAME READY REASON BUCKET PREFIX ACCESS POINTS AGE"),
        ("backuppolicy", "NAME READY REASON STORAGE SCHEDULE SUSPENDED NEXT RUN LAST SUCCESS LAST BACKUP AGE"),
        ("backup", "NAME PHASE APPLICATION STORAGE PROGRESS CUT AGE"),
        ("restore", "NAME PHASE BACKUP PROGRESS PLANNED CREATED KEPT FAILED AGE"),
    ],
)
def test_kubectl_get_shows_what_one_wants_to_know(namespace: str, kind: str, columns: str) -> None:
    create(namespace, KINDS[kind][2], "columns")

    header = kubectl("get", kind, f"--namespace={namespace}").splitlines()[0]
    wide = kubectl("get", kind, "--output=wide", f"--namespace={namespace}").splitlines()[0]

    assert " ".join(header.split()) == columns
    assert " ".join(wide.split()).startswith(columns)
    assert wide.split()[-1] == "MESSAGE"
