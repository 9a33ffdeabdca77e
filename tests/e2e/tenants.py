"""People of the tests: namespaces, and service accounts with just the rights that a test gives them.

Everyone speaks through kubectl, as users do; an account is played by impersonation, which the API server treats
like the account's own request.
"""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

OPERATOR_NAMESPACE = "backstay-system"
OPERATOR = f"system:serviceaccount:{OPERATOR_NAMESPACE}:backstay-operator"
KINDS = ("backupstorages", "backuppolicies", "backups", "restores")
Object = dict[str, Any]
Value = TypeVar("Value")


def kubectl(*words: str, document: Object | str | None = None, check: bool = True) -> str:
    """What kubectl prints, its errors included. Raises AssertionError with the same text when it fails."""
    done = _run(words, document)
    assert not check or done.returncode == 0, f"kubectl {' '.join(words)}: {done.stdout}"
    return done.stdout


def _run(words: tuple[str, ...], document: Object | str | None) -> subprocess.CompletedProcess[str]:
    given = json.dumps(document) if isinstance(document, dict) else document
    return subprocess.run(
        ["kubectl", *words],
        check=False,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


def read(*words: str) -> Object:
    """What kubectl gets, as JSON."""
    found: Object = json.loads(kubectl("get", *words, "--output=json"))
    return found


def refusal(*words: str, document: Object | str | None = None) -> str:
    """The API server's words for a request that it must not accept; fails when it does."""
    done = _run(words, document)
    assert done.returncode != 0, f"kubectl {' '.join(words)} was let through: {done.stdout}"
    return done.stdout


def can(who: str, verb: str, resource: str, namespace: str = "", group: str = "") -> bool:
    """Whether RBAC lets a user do something to ``pods``, to ``pods/NAME``, or to the subresource ``pods:exec``."""
    subresource = ""
    if "/" not in resource:
        resource, _, subresource = resource.partition(":")
    place = [f"--namespace={namespace}"] if namespace else ["--all-namespaces"]
    answer = kubectl(
        "auth",
        "can-i",
        verb,
        resource,
        f"--subresource={subresource}",
        f"--as={who}",
        *([f"--as-group={group}"] if group else []),
        *place,
        check=False,
    )
    return answer.strip().splitlines()[-1] == "yes"


def wait_for(ask: Callable[[], Value | None], seconds: float = 30) -> Value:
    """The first answer that is not None."""
    deadline = time.monotonic() + seconds
    while (answer := ask()) is None:
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.3)
    return answer


@contextmanager
def temporary_namespace(prefix: str, *, enrolled: bool) -> Iterator[str]:
    """A namespace of its own for a test, deleted afterwards without waiting."""
    name = f"{prefix}-{uuid.uuid4().hex[:6]}"
    kubectl("create", "namespace", name)
    try:
        if enrolled:
            kubectl("label", "namespace", name, "backstay.dev/enrolled=true")
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@dataclass(frozen=True)
class Tenant:
    """Somebody in one namespace, who begins with no rights at all."""

    namespace: str
    name: str

    @classmethod
    def come(cls, namespace: str) -> Tenant:
        """A new one."""
        tenant = cls(namespace, f"tenant-{uuid.uuid4().hex[:6]}")
        kubectl("--namespace", namespace, "create", "serviceaccount", tenant.name)
        return tenant

    @property
    def user(self) -> str:
        """As the API server names them."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    @property
    def act(self) -> tuple[str, ...]:
        """kubectl's words for a request by them, in their namespace."""
        return (f"--as={self.user}", f"--namespace={self.namespace}")

    def grant(self, group: str, resources: list[str], verbs: list[str], names: list[str] | None = None) -> None:
        """More rights for them."""
        name = f"{self.name}-{uuid.uuid4().hex[:6]}"
        rule: Object = {"apiGroups": [group], "resources": resources, "verbs": verbs}
        if names:
            rule["resourceNames"] = names
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": name, "namespace": self.namespace},
            "rules": [rule],
        }
        kubectl("apply", "--filename=-", document=role)
        kubectl("--namespace", self.namespace, "create", "rolebinding", name, f"--role={name}", self._subject)
        self._know(verbs[0], f"{resources[0]}{'.' + group if group else ''}", names)

    def grant_role(self, cluster_role: str) -> None:
        """The rights of a ClusterRole, in their namespace."""
        name = f"{self.name}-{cluster_role}"
        kubectl(
            "--namespace", self.namespace, "create", "rolebinding", name, f"--clusterrole={cluster_role}", self._subject
        )
        self._know("create", "pods", None)

    @property
    def _subject(self) -> str:
        return f"--serviceaccount={self.namespace}:{self.name}"

    def _know(self, verb: str, resource: str, names: list[str] | None) -> None:
        """Wait until the API server's authorizer has seen the new binding, which takes some milliseconds."""
        what = f"{resource}/{names[0]}" if names else resource.replace("/", ":")
        wait_for(lambda: can(self.user, verb, what, self.namespace) or None, seconds=10)


def storage(name: str = "main") -> Object:
    """A BackupStorage, in the namespace that kubectl is told."""
    spec = {"s3": {"bucket": "backups"}, "passwordSecretRef": {"name": "password"}}
    return {"apiVersion": "backstay.dev/v1alpha1", "kind": "BackupStorage", "metadata": {"name": name}, "spec": spec}


def policy(name: str = "shop", **spec: Any) -> Object:
    """A BackupPolicy on demand."""
    return {
        "apiVersion": "backstay.dev/v1alpha1",
        "kind": "BackupPolicy",
        "metadata": {"name": name},
        "spec": {"storage": {"name": "main"}, **spec},
    }


def backup(name: str = "now") -> Object:
    """A Backup that captures."""
    spec = {"capture": {"policy": "shop"}}
    return {"apiVersion": "backstay.dev/v1alpha1", "kind": "Backup", "metadata": {"name": name}, "spec": spec}


def found_backup(name: str = "found") -> Object:
    """A Backup that only names a restore point."""
    spec = {"restorePoint": {"storage": "main", "snapshot": "0" * 64}}
    return {"apiVersion": "backstay.dev/v1alpha1", "kind": "Backup", "metadata": {"name": name}, "spec": spec}


def restore(name: str = "shop", **spec: Any) -> Object:
    """A Restore that only counts."""
    return {
        "apiVersion": "backstay.dev/v1alpha1",
        "kind": "Restore",
        "metadata": {"name": name},
        "spec": {"source": {"backup": "found"}, **spec},
    }
