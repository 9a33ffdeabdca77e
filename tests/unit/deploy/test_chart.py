"""The chart as files: values and their schema agree, rights are few, and the operator's settings are all there.

That it renders and installs is shown on a cluster (tests/e2e/test_rights.py); these need no helm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from backstay.api import names
from backstay.kube.runtime import Settings

CHART = Path(__file__).parents[3] / "deploy" / "chart"
TEMPLATES = sorted((CHART / "templates").glob("*"))
Object = dict[str, Any]


def documents(template: str) -> list[Object]:
    """A template's objects, with what helm fills in left out: lines of actions alone, and `x` for others."""
    text = (CHART / "templates" / template).read_text()
    lines = [line for line in text.splitlines() if not re.fullmatch(r"\s*{{.*}}", line)]
    return [d for d in yaml.safe_load_all(re.sub(r"{{.*?}}", "x", "\n".join(lines))) if d]


def values() -> Object:
    loaded: Object = yaml.safe_load((CHART / "values.yaml").read_text())
    return loaded


def paths(tree: Mapping[str, Any], schema: Object, definitions: Object, path: str = "") -> Iterator[str]:
    """Disagreements between values and their schema: fields of one side only, and values of another type."""
    schema = definitions.get(schema.get("$ref", "").rpartition("/")[2], schema)
    if "properties" not in schema:
        return
    assert schema.get("additionalProperties") is False, (
        f"{path or 'the top'}: a misspelt value would be taken in silence"
    )
    for name in tree.keys() - schema["properties"].keys():
        yield f"{path}.{name}: not in the schema"
    for name in schema["properties"].keys() - tree.keys() - {"global", "requests", "limits", "claims"}:
        yield f"{path}.{name}: not among the values"
    for name in tree.keys() & schema["properties"].keys():
        inner = definitions.get(
            schema["properties"][name].get("$ref", "").rpartition("/")[2], schema["properties"][name]
        )
        if inner["type"] != json_type(tree[name]):
            yield f"{path}.{name}: is {json_type(tree[name])}, should be {inner['type']}"
        if isinstance(tree[name], dict):
            yield from paths(tree[name], inner, definitions, f"{path}.{name}")


def json_type(value: object) -> str:
    return {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}[type(value)]


def test_the_schema_knows_every_value_and_its_type() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    assert list(paths(values(), schema, schema["definitions"])) == []


def test_every_value_is_explained_by_a_comment_above_it() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    explained = {"nodeSelector", "tolerations", "affinity", "priorityClassName", "podAnnotations"}  # share one comment
    explained |= {"requests", "limits", "cpu", "memory", "admission", "serviceAccount"}

    for number, line in enumerate(lines):
        key = re.match(r" *([A-Za-z]+):", line)
        if key and key[1] not in explained:
            assert lines[number - 1].lstrip().startswith("#"), key[1]


def test_templates_use_each_value_and_no_other() -> None:
    used = {path for t in TEMPLATES for path in re.findall(r"\.Values\.([A-Za-z.]+)", t.read_text())}

    for path in used:
        found: Any = values()
        for name in path.split("."):
            assert name in found, f"{path} is used by a template but is not a value"
            found = found[name]
    unused = {name for name in values() if not any(path.split(".")[0] == name for path in used)}
    assert unused == set()


def test_the_operator_reads_every_setting_that_the_chart_sets() -> None:
    class Recorded(dict[str, str]):
        asked: set[str] = set()

        def get(self, key: str, default: Any = None) -> Any:
            self.asked.add(key)
            return super().get(key, default)

    environment = Recorded()
    Settings.from_environment(environment)
    (deployment,) = (d for d in documents("operator.yaml") if d["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]

    assert {v["name"] for v in container["env"]} <= environment.asked


def test_the_operators_pod_is_as_confined_as_pods_can_be() -> None:
    (deployment,) = (d for d in documents("operator.yaml") if d["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["command"] == ["backstay", "operator"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_only_the_accounts_role_has_wildcards_and_it_cannot_hand_rights_on() -> None:
    for role in documents("rights.yaml"):
        if not role["kind"].endswith("Role"):
            continue
        words = [w for rule in role["rules"] for key in ("apiGroups", "resources", "verbs") for w in rule[key]]
        if role["metadata"]["name"] == names.ACCOUNT_ROLE:
            assert not {"*", "escalate", "bind", "impersonate"} & {v for rule in role["rules"] for v in rule["verbs"]}
        else:
            assert "*" not in words, role["metadata"]["name"]


def test_the_operator_may_read_nothing_secret_and_start_nothing() -> None:
    roles = {d["metadata"]["name"]: d for d in documents("rights.yaml") if d["kind"] == "ClusterRole"}

    resources = {r for rule in roles["backstay-operator"]["rules"] for r in rule["resources"]}

    assert not resources & {"secrets", "configmaps", "pods", "pods/exec", "jobs", "roles", "users"}
    assert not resources & {"persistentvolumeclaims", "serviceaccounts/token", "clusterrolebindings"}


@pytest.mark.parametrize("verb", ["bind", "impersonate"])
def test_the_operators_strongest_verbs_are_limited_by_name(verb: str) -> None:
    roles = {d["metadata"]["name"]: d for d in documents("rights.yaml") if d["kind"] == "ClusterRole"}
    rules = [rule for rule in roles["backstay-operator"]["rules"] if verb in rule["verbs"]]

    assert rules
    assert all("resourceNames" in rule for rule in rules)


def test_the_accounts_role_is_bound_by_nothing_in_the_chart() -> None:
    bindings = [d for d in documents("rights.yaml") if d["kind"].endswith("Binding")]

    assert bindings
    assert all(b["roleRef"]["name"] == "backstay-operator" for b in bindings)


def test_each_admission_policy_refuses_and_fails_closed() -> None:
    found = [d for t in TEMPLATES if t.name.startswith("admission") for d in documents(t.name)]
    policies = {d["metadata"]["name"]: d for d in found if d["kind"] == "ValidatingAdmissionPolicy"}
    bindings = {d["spec"]["policyName"]: d for d in found if d["kind"] == "ValidatingAdmissionPolicyBinding"}

    assert policies.keys() == bindings.keys()
    for name, policy in policies.items():
        assert policy["spec"]["failurePolicy"] == "Fail", name
        assert bindings[name]["spec"]["validationActions"] == ["Deny"], name
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]:
            assert "DELETE" not in rule["operations"], f"{name}: a namespace could not be deleted any more"
        for validation in policy["spec"]["validations"]:
            assert "message" in validation or "messageExpression" in validation, name


def test_the_chart_carries_the_kinds_of_the_repository() -> None:
    assert (CHART / "crds").resolve() == CHART.parents[1] / "crds"
