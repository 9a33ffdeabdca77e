"""Backstay in the cluster: its chart, with an image of the checkout as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.cluster.backstay_image import backstay_image
from tests.cluster.commands import say
from tests.cluster.errors import ClusterError, CommandError
from tests.cluster.places import REPOSITORY

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster

NAMESPACE: Final = "backstay-system"
RELEASE: Final = "backstay"


def install(cluster: Cluster, *settings: str, seconds: int = 120) -> str:
    """Build the image, load it, apply the kinds and the chart, and wait until the operator is ready.

    Args:
        cluster: a cluster that is up.
        settings: chart values, `key=value` as after helm's --set.
        seconds: how long the operator may take.

    Returns:
        The image's reference.

    Raises:
        ClusterError: the operator did not become ready; its logs and events have been printed.
    """
    cluster.environment()  # says so when no cluster is up, before anything is built
    image = backstay_image(cluster.places)
    if not cluster.has_image(image.reference):
        say(f"loading {image.reference}")
        cluster.load(image)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", REPOSITORY / "crds")
    repository = image.reference.rpartition(":")[0]
    # A string, whatever it looks like: a hash such as 12e456 would be read as a number.
    image_values = ["--set-string", f"image.repository={repository}", "--set-string", f"image.tag={image.tag}"]
    say(f"installing the chart with {image.reference}")
    cluster.exec(
        [
            *("helm", "upgrade", "--install", RELEASE, REPOSITORY / "deploy" / "chart"),
            *("--namespace", NAMESPACE, "--create-namespace"),
            *image_values,
            *(word for setting in settings for word in ("--set", setting)),
        ],
        timeout=120,
    )
    try:
        cluster.kubectl(
            *("rollout", "status", "deployment", "--namespace", NAMESPACE, f"--timeout={seconds}s"),
            timeout=seconds + 10,
        )
    except CommandError as failure:
        say(_story(cluster))
        raise ClusterError(f"Backstay did not become ready within {seconds} s; see its logs above") from failure
    return image.reference


def _story(cluster: Cluster) -> str:
    """What a person looks at first when a Deployment does not become ready."""
    asked: tuple[tuple[str, ...], ...] = (
        ("get", "pods", "-o", "wide"),
        ("get", "events", "--sort-by=.lastTimestamp"),
        ("logs", "--all-containers", "--prefix", "--tail=60", "-l", f"app.kubernetes.io/instance={RELEASE}"),
    )
    parts = []
    for words in asked:
        try:
            parts.append(cluster.kubectl(*words, "--namespace", NAMESPACE))
        except CommandError as failure:
            parts.append(str(failure))
    return "\n".join(parts)
