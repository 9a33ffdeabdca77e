"""A namespace of a test, with everything that a test does in it: apply, look, wait, read and compare data.

A wait that is not fulfilled tells what a person would look at: the object described, and the operator's last words.
"""

from __future__ import annotations

import base64
import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.cluster.s3 import SERVICE_ENDPOINT
from tests.e2e.tenants import OPERATOR_NAMESPACE, kubectl

Object = dict[str, Any]

API_VERSION = "backstay.dev/v1alpha1"
PASSWORD = "correct horse battery staple"
#: Phases in which a Backup or Restore has ended.
ENDED = ("Completed", "CompletedWithWarnings", "Failed")


@dataclass(frozen=True)
class Place:
    """One namespace, enrolled."""

    name: str

    @classmethod
    def make(cls, prefix: str, *, labels: tuple[str, ...] = ()) -> Place:
        """A new one."""
        place = cls(f"{prefix}-{uuid.uuid4().hex[:6]}")
        kubectl("create", "namespace", place.name)
        kubectl("label", "namespace", place.name, "backstay.dev/enrolled=true", *labels)
        return place

    def destroy(self, *, wait: bool = False) -> None:
        """Delete it with all that is in it."""
        kubectl("delete", "namespace", self.name, f"--wait={'true' if wait else 'false'}", "--timeout=55s")

    def kubectl(self, *words: str, document: Any = None, check: bool = True) -> str:
        """kubectl in this namespace."""
        return kubectl("--namespace", self.name, *words, document=document, check=check)

    def apply(self, *documents: Object) -> None:
        """Apply objects."""
        self.kubectl("apply", "--filename=-", document={"apiVersion": "v1", "kind": "List", "items": list(documents)})

    def find(self, kind: str, name: str) -> Object | None:
        """An object, or None."""
        text = self.kubectl("get", kind, name, "--output=json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def get(self, kind: str, name: str) -> Object:
        """An object that must be there."""
        found = self.find(kind, name)
        assert found is not None, f"{kind} {self.name}/{name} is not there"
        return found

    def names(self, *kinds: str) -> list[str]:
        """Objects of some kinds, as ``kind/name``."""
        return self.kubectl("get", ",".join(kinds), "--output=name").split()

    def wait(
        self, kind: str, name: str, fulfilled: Callable[[Object], Any], *, seconds: float = 60, what: str = ""
    ) -> Object:
        """The object, once it fulfils what is asked for."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.find(kind, name)
            if found is not None and fulfilled(found):
                return found
            if time.monotonic() > deadline:
                told = f"{kind} {self.name}/{name} is not {what or 'as asked for'} after {seconds} s"
                raise AssertionError(f"{told}\n{self._story(kind, name)}")
            time.sleep(0.5)

    def ended(self, kind: str, name: str, *, seconds: float = 90) -> Object:
        """A Backup or Restore, once it has ended."""
        return self.wait(kind, name, lambda found: phase(found) in ENDED, seconds=seconds, what="at its end")

    def completed(self, kind: str, name: str, *, seconds: float = 90) -> Object:
        """A Backup or Restore that must end as Completed."""
        found = self.ended(kind, name, seconds=seconds)
        told = f"{phase(found)}: {message(found)}\n{json.dumps(found['status'], indent=1)}"
        assert phase(found) == "Completed", f"{told}\n{self._story(kind, name)}"
        return found

    def failed(self, kind: str, name: str, *, seconds: float = 90) -> str:
        """The message of a Backup or Restore that must end as Failed."""
        found = self.ended(kind, name, seconds=seconds)
        assert phase(found) == "Failed", f"{phase(found)}: {message(found)}\n{self._story(kind, name)}"
        return message(found)

    def run(self, pod: str, script: str) -> str:
        """What a shell script prints in a pod."""
        return self.kubectl("exec", pod, "--", "sh", "-c", script)

    def _story(self, kind: str, name: str) -> str:
        asked = (
            ("--namespace", self.name, "describe", kind, name),
            ("--namespace", self.name, "get", "all,pvc,volumesnapshots,backstay"),
            ("--namespace", self.name, "get", "events", "--sort-by=.lastTimestamp"),
            ("--namespace", self.name, "logs", "--tail=40", "--prefix", "--selector=backstay.dev/component=mover"),
            ("--namespace", OPERATOR_NAMESPACE, "logs", "--tail=60", "deployment/backstay-operator"),
        )
        return "\n".join(f"--- kubectl {' '.join(words)}\n{kubectl(*words, check=False)}" for words in asked)


def phase(found: Object) -> str:
    """The phase of one of our objects."""
    return str(found.get("status", {}).get("phase", ""))


def message(found: Object) -> str:
    """What one of our objects tells."""
    return str(found.get("status", {}).get("message", ""))


def condition(found: Object, type_: str) -> Object:
    """A condition, empty when there is none."""
    conditions = found.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == type_), {})


def secret(name: str, **values: str) -> Object:
    """A Secret."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def storage_with_secrets(bucket: str, prefix: str = "shop", *, password: str = PASSWORD, **spec: Any) -> list[Object]:
    """The BackupStorage ``main`` and its Secrets."""
    s3 = {
        "bucket": bucket,
        "prefix": prefix,
        "endpoint": SERVICE_ENDPOINT,
        "forcePathStyle": True,
        "credentialsSecretRef": {"name": "s3"},
    }
    keys = {key: os.environ[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    return [
        secret("s3", **keys),
        secret("repository-password", password=password),
        ours("BackupStorage", "main", s3=s3, passwordSecretRef={"name": "repository-password"}, **spec),
    ]


def ours(kind: str, name: str, **spec: Any) -> Object:
    """One of our objects."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def policy(name: str = "shop", **spec: Any) -> Object:
    """A BackupPolicy on demand, for the application ``shop``."""
    wish = {"storage": {"name": "main"}, "selector": {"matchLabels": {"app": "shop"}}, **spec}
    return ours("BackupPolicy", name, **wish)


def backup(name: str, of: str = "shop") -> Object:
    """A Backup of a policy, now."""
    return ours("Backup", name, capture={"policy": of})


def restore(name: str, backup_name: str, approve: str = "Create", **spec: Any) -> Object:
    """A Restore of a Backup."""
    return ours("Restore", name, source={"backup": backup_name}, approve=approve, **spec)


def temporaries(place: Place) -> list[str]:
    """What a Backup or Restore makes for itself and must not leave behind."""
    labels = "--selector=backstay.dev/component in (mover,temporary)"
    kinds = "jobs,pods,persistentvolumeclaims,volumesnapshots"
    return place.kubectl("get", kinds, labels, "--output=name").split()


def no_temporaries(place: Place, *, seconds: float = 30) -> None:
    """Wait until nothing temporary is left; deleted pods take a moment."""
    deadline = time.monotonic() + seconds
    while left := temporaries(place):
        assert time.monotonic() < deadline, f"left behind in {place.name}: {left}"
        time.sleep(0.5)
