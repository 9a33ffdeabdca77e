"""The operator's settings from its environment."""

from __future__ import annotations

import pytest

from backstay.kube.runtime import InvalidSettingError, Settings


def test_settings_come_from_the_environment() -> None:
    settings = Settings.from_environment(
        {
            "BACKSTAY_NAMESPACE": "backup",
            "BACKSTAY_POD": "operator-1",
            "BACKSTAY_IMAGE_PULL_SECRETS": "a, b",
            "BACKSTAY_ENROLL_ALL": "true",
            "BACKSTAY_MOVER_RESOURCES": '{"limits": {"memory": "1Gi"}}',
            "BACKSTAY_WORKERS": "",
        }
    )

    assert settings.namespace == "backup"
    assert settings.identity.startswith("operator-1_")
    assert settings.image_pull_secrets == ("a", "b")
    assert settings.enroll_all
    assert settings.mover_resources == {"limits": {"memory": "1Gi"}}
    assert settings.workers == Settings().workers


def test_two_starts_of_one_pod_are_two_holders_of_the_lease() -> None:
    environment = {"BACKSTAY_POD": "operator-1"}

    assert Settings.from_environment(environment).identity != Settings.from_environment(environment).identity


@pytest.mark.parametrize(
    "environment",
    [
        {"BACKSTAY_ENROLL_ALL": "yes"},
        {"BACKSTAY_MOVER_RESOURCES": "[]"},
        {"BACKSTAY_MOVER_RESOURCES": "{"},
        {"BACKSTAY_WORKERS": "many"},
    ],
)
def test_a_setting_without_a_usable_value_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidSettingError, match="BACKSTAY_"):
        Settings.from_environment(environment)
