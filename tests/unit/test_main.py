"""What the operator tells of errors that no reconcile foresaw."""

from __future__ import annotations

from typing import Any

import pytest

from backstay.kube.errors import UnavailableError
from backstay.kube.resource import BACKUPS
from backstay.kube.workqueue import Key
from backstay.main import tell_failure

KEY = Key("Backup", "shop", "b")


class Cluster:
    """Holds one object, or does not answer, and keeps the events."""

    def __init__(self, answer: dict[str, Any] | Exception | None) -> None:
        self.answer = answer
        self.events: list[tuple[Any, ...]] = []

    def find(self, *_: Any) -> dict[str, Any] | None:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def event(self, *words: Any) -> None:
        self.events.append(words)


def test_an_unforeseen_error_reaches_the_object_that_stands_still() -> None:
    cluster = Cluster({"metadata": {"name": "b", "namespace": "shop", "uid": "u1"}})

    tell_failure(cluster, BACKUPS, KEY, KeyError("spec"))  # type: ignore[arg-type]

    ((reference, kind, reason, message, _),) = cluster.events
    assert (reference["uid"], kind, reason) == ("u1", "Warning", "InternalError")
    assert "KeyError: 'spec'" in message


@pytest.mark.parametrize("answer", [None, UnavailableError("get", 503, "", "away")])
def test_nobody_is_told_where_there_is_nobody_to_tell(answer: Exception | None) -> None:
    cluster = Cluster(answer)

    tell_failure(cluster, BACKUPS, KEY, KeyError("spec"))  # type: ignore[arg-type]

    assert cluster.events == []
