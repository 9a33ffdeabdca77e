"""Where objects stand in a restore point."""

from __future__ import annotations

import pytest

from backstay.capture.tree import object_path, safe_name


@pytest.mark.parametrize(
    ("group", "kind", "name", "path"),
    [
        ("", "ConfigMap", "web", "resources/core/ConfigMap/web/object.json"),
        ("apps", "Deployment", "web", "resources/apps/Deployment/web/object.json"),
        ("rbac.authorization.k8s.io", "Role", "a:b", "resources/rbac.authorization.k8s.io/Role/a%3Ab/object.json"),
    ],
)
def test_a_path_is_group_kind_and_name(group, kind, name, path):
    assert object_path(group, kind, name) == path


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("web-1.x_y", "web-1.x_y"),
        ("a b", "a%20b"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("ü", "%C3%BC"),
        ("A*?", "A%2A%3F"),
    ],
)
def test_unsafe_characters_are_escaped_by_bytes(name, safe):
    assert safe_name(name) == safe


def test_long_names_are_cut_and_stay_different():
    first, second = safe_name("x" * 300), safe_name("x" * 301)

    assert first != second
    assert len(first) <= 200
