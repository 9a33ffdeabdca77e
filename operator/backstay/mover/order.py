"""What a mover is told to do: one JSON document in its environment, checked strictly.

The operator writes it and this module reads it, so an unknown field means that the two are of different versions; then
nothing is done rather than something half understood.
"""

from __future__ import annotations

import msgspec


class OrderError(Exception):
    """The order cannot be understood; the message says where."""


class RepositoryPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Where the repository lies. An empty endpoint means AWS."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    force_path_style: bool = False


class SourceVolume(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A volume to be backed up: the claim's name and UID, and where it is mounted."""

    claim: str
    path: str
    claim_uid: str


class TargetVolume(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A volume to be filled. `tree`: as a backup reported it. `snapshot`: where to look for totals, may be gone."""

    claim: str
    path: str
    tree: str
    snapshot: str = ""


class BackupOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="action", tag="backup"):
    """Store each volume as a snapshot of its own. `host`: `<cluster>/<namespace>`; `tags` go on every snapshot."""

    repository: RepositoryPlace
    host: str
    volumes: tuple[SourceVolume, ...]
    tags: tuple[str, ...] = ()


class RestoreOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="action", tag="restore"):
    """Fill each volume from a tree."""

    repository: RepositoryPlace
    volumes: tuple[TargetVolume, ...]
    host: str = ""
    tags: tuple[str, ...] = ()


Order = BackupOrder | RestoreOrder


def parse(text: str) -> Order:
    """The order in a JSON document. Raises OrderError."""
    try:
        return msgspec.json.decode(text.encode(), type=BackupOrder | RestoreOrder)
    except (msgspec.MsgspecError, ValueError) as error:
        raise OrderError(
            f"the mover's order cannot be understood: {error}; operator and mover must be of one version"
        ) from error
