"""The chart, rendered by helm with other values than the defaults, and judged by the API server, not installed."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.e2e.tenants import OPERATOR_NAMESPACE, Object

CHART = Path(__file__).parents[2] / "deploy" / "chart"
EVERYTHING: Object = {
    "image": {
        "repository": "registry.example.com/backstay",
        "digest": f"sha256:{'0' * 64}",
        "pullPolicy": "Always",
        "pullSecrets": ["one", "two"],
    },
    "enrollAll": True,
    "serviceAccountNames": ["shop-restorer", "backstay"],
    "podIdentity": True,
    "admission": {"namespaceAdminsMayRestore": True},
    "moverResources": {"limits": {"memory": "2Gi"}},
    "workers": 3,
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "serviceAccount": {"annotations": {"example.com/role": "backup"}},
    "podLabels": {"team": "platform"},
    "podAnnotations": {"example.com/scrape": "no"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "infra", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-cluster-critical",
}


def helm(*words: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
    """helm, with values on its standard input."""
    given = [] if values is None else ["--values=-"]
    return subprocess.run(
        ["helm", *words, *given], input=json.dumps(values), capture_output=True, text=True, timeout=60, check=False
    )


def rendered(values: Object) -> dict[tuple[str, str], Object]:
    """The chart's objects by kind and name."""
    done = helm("template", "backstay", str(CHART), f"--namespace={OPERATOR_NAMESPACE}", values=values)
    assert done.returncode == 0, done.stderr
    return {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(done.stdout) if d}


def test_helm_finds_nothing_wrong() -> None:
    done = helm("lint", "--strict", str(CHART))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "values",
    [{"enrolAll": True}, {"image": {"pullPolicy": "Sometimes"}}, {"workers": 0}, {"admission": {"restore": "all"}}],
    ids=lambda values: next(iter(values)),
)
def test_a_misspelt_value_is_refused(values: Object) -> None:
    done = helm("template", "backstay", str(CHART), values=values)

    assert done.returncode != 0
    assert "schema" in done.stderr


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_api_server_takes_every_object_without_a_warning(values: Object) -> None:
    objects = {"apiVersion": "v1", "kind": "List", "items": list(rendered(values).values())}
    words = ["kubectl", "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename=-"]

    done = subprocess.run(words, input=json.dumps(objects), capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_values_reach_the_operator() -> None:
    objects = rendered(EVERYTHING)
    pod = objects["Deployment", "backstay-operator"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {v["name"]: v.get("value") for v in container["env"]}
    image = f"registry.example.com/backstay@sha256:{'0' * 64}"

    assert container["image"] == env["BACKSTAY_IMAGE"] == image
    assert env["BACKSTAY_IMAGE_PULL_POLICY"] == container["imagePullPolicy"] == "Always"
    assert env["BACKSTAY_IMAGE_PULL_SECRETS"] == "one,two"
    assert pod["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]
    assert env["BACKSTAY_ENROLL_ALL"] == env["BACKSTAY_POD_IDENTITY"] == "true"
    assert json.loads(env["BACKSTAY_MOVER_RESOURCES"])["limits"] == {"memory": "2Gi"}
    assert env["BACKSTAY_WORKERS"] == "3"
    assert env["HTTPS_PROXY"] == "http://proxy:3128"


def test_the_operator_may_impersonate_the_named_accounts_and_no_others() -> None:
    role = rendered(EVERYTHING)["ClusterRole", "backstay-operator"]
    accounts = [r for r in role["rules"] if "impersonate" in r["verbs"] and r["resources"] == ["serviceaccounts"]]

    assert [set(rule["resourceNames"]) for rule in accounts] == [{"backstay", "shop-restorer"}]


def test_the_package_carries_the_kinds(tmp_path: Path) -> None:
    done = helm("package", str(CHART), f"--destination={tmp_path}")
    assert done.returncode == 0, done.stderr

    (archive,) = tmp_path.glob("*.tgz")
    with tarfile.open(archive) as packed:
        kinds = {Path(name).name for name in packed.getnames() if "/crds/" in name}
    assert kinds == {path.name for path in (CHART.parents[1] / "crds").glob("*.yaml")}
