"""Storage: two instances of the test CSI driver, and the programs of kubernetes-csi that serve it.

The first offers all that the operator can use: snapshots, group snapshots, clones, block devices,
growing. The second is storage as many clusters have it: volumes, and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.cluster import versions
from tests.cluster.commands import until
from tests.cluster.credentials import NODE_NAME, Credentials
from tests.cluster.places import Places
from tests.cluster.processes import Processes
from tests.cluster.programs import Programs, module_folder

DRIVER: Final = "test.csi.backstay.dev"
PLAIN_DRIVER: Final = "plain.csi.backstay.dev"

_CLIENT: Final = ("--kube-api-qps=200", "--kube-api-burst=400")
"""The default of five requests a second makes snapshots twenty times slower."""
_RETRY: Final = ("--retry-interval-start=100ms", "--retry-interval-max=5s")
"""The default doubles up to five minutes, which a test would spend waiting."""


def snapshot_kinds(places: Places) -> list[Path]:
    """The snapshot CRDs, from the same release as the snapshot controller."""
    folder = module_folder(versions.SNAPSHOT_CRDS_MODULE, "csi-driver", places) / "config" / "crd"
    return sorted(file for file in folder.glob("*.yaml") if file.name != "kustomization.yaml")


def start(processes: Processes, programs: Programs, credentials: Credentials, places: Places) -> None:
    """Start drivers and sidecars; the snapshot CRDs must exist, or the controller ends by itself."""
    admin = f"--kubeconfig={credentials.kubeconfig('admin')}"
    for name, driver, extra in (("csi-driver", DRIVER, ()), ("csi-driver-plain", PLAIN_DRIVER, ("-snapshots=false",))):
        processes.start(
            name,
            [
                programs["csi-driver"],
                "-v=2",
                f"-name={driver}",
                f"-node={NODE_NAME}",
                f"-data={places.volumes / driver}",
                f"-endpoint={_socket(driver, places)}",
                f"-registration={places.kubelet / 'plugins_registry' / driver}-reg.sock",
                admin,
                *extra,
            ],
        )
    processes.start(
        "snapshot-controller", [programs["snapshot-controller"], admin, "--leader-election=false", *_CLIENT, *_RETRY]
    )
    until("the CSI socket", _socket(DRIVER, places).exists, seconds=20)
    for program in ("csi-snapshotter", "csi-resizer"):
        address = f"--csi-address={_socket(DRIVER, places)}"
        processes.start(program, [programs[program], admin, address, "--leader-election=false", *_CLIENT, *_RETRY])


def _socket(driver: str, places: Places) -> Path:
    return places.kubelet / "plugins" / driver / "csi.sock"
