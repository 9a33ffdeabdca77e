"""What a mover's pod needs to reach a storage: Secrets as files, and where the repository lies.

Files, not environment: they are shown by no `kubectl describe`, and a mover reads them only when it starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backstay.api.storage import BackupStorage
from backstay.storage.secrets import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN

MOUNT_ROOT = "/etc/backstay"
#: Readable for whatever user the mover runs as; the volumes are the pod's alone.
_MODE = 0o444


@dataclass(frozen=True)
class MoverAccess:
    """Parts of a mover's pod and order: ``volumes`` of the pod, ``volume_mounts`` and ``env`` of its container,
    ``repository`` of the order.
    """

    volumes: tuple[dict[str, Any], ...]
    volume_mounts: tuple[dict[str, Any], ...]
    env: tuple[dict[str, Any], ...]
    repository: dict[str, Any]


def mover_access(storage: BackupStorage) -> MoverAccess:
    """The access that a mover gets to this storage."""
    s3 = storage.spec.s3
    password = storage.spec.password_secret_ref
    sources = {"password": [_secret(password.name, {password.key: "password"})]}
    if s3.credentials_secret_ref:
        name = s3.credentials_secret_ref.name
        keys = {ACCESS_KEY: ACCESS_KEY, SECRET_KEY: SECRET_KEY}
        sources["s3"] = [_secret(name, keys), _secret(name, {SESSION_TOKEN: SESSION_TOKEN}, optional=True)]
    if s3.ca_secret_ref:
        sources["ca"] = [_secret(s3.ca_secret_ref.name, {s3.ca_secret_ref.key: "ca.crt"})]
    return MoverAccess(
        volumes=tuple(
            {"name": f"backstay-{name}", "projected": {"defaultMode": _MODE, "sources": parts}}
            for name, parts in sources.items()
        ),
        volume_mounts=tuple(
            {"name": f"backstay-{name}", "mountPath": f"{MOUNT_ROOT}/{name}", "readOnly": True} for name in sources
        ),
        env=(),
        repository={
            "bucket": s3.bucket,
            "prefix": s3.prefix.strip("/"),
            "endpoint": s3.endpoint,
            "region": s3.region,
            "forcePathStyle": s3.force_path_style,
        },
    )


def _secret(name: str, paths: dict[str, str], *, optional: bool = False) -> dict[str, Any]:
    """One source of a projected volume: the keys of a Secret, each under its file name."""
    secret: dict[str, Any] = {"name": name, "items": [{"key": key, "path": path} for key, path in paths.items()]}
    return {"secret": {**secret, "optional": True} if optional else secret}
