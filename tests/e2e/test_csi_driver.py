"""The test CSI driver behaves as the specification asks, so that a failure elsewhere is the operator's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.commands import run, until
from tests.cluster.errors import CommandError
from tests.cluster.places import MACHINE
from tests.cluster.programs import Programs, build
from tests.cluster.versions import KUBERNETES


@pytest.fixture
def programs() -> Programs:
    return build(KUBERNETES, MACHINE)


@pytest.fixture
def endpoint(programs: Programs, tmp_path: Path) -> Iterator[Path]:
    """Socket of a driver that runs alone, without a cluster."""
    socket = tmp_path / "csi.sock"
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(
            [programs["csi-driver"], f"-data={tmp_path / 'data'}", f"-endpoint={socket}"], stderr=log
        )
    until("the driver's socket", socket.exists, seconds=10)
    yield socket
    driver.terminate()
    driver.wait(timeout=10)


@pytest.mark.skipif(os.geteuid() != 0, reason="the driver mounts, which only root may")
def test_the_driver_passes_the_conformance_test_of_csi(programs: Programs, endpoint: Path, tmp_path: Path) -> None:
    folders = [f"-csi.mountdir={tmp_path / 'mount'}", f"-csi.stagingdir={tmp_path / 'staging'}"]
    try:
        printed = run(
            [programs["csi-sanity"], f"-csi.endpoint=unix://{endpoint}", *folders, "-ginkgo.no-color"], timeout=120
        )
    except CommandError as error:
        pytest.fail(error.output)
    assert "0 Failed" in printed
