"""The names that Backstay puts on things: API group, labels, annotations, snapshot tags.

They are promises: objects in clusters and snapshots in buckets outlive any release, so a name here is never reused
for another meaning.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

GROUP = "backstay.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

#: The service account in an enrolled namespace with whose rights everything there is done.
ACCOUNT = "backstay"
#: The group that this account is in when the operator acts as it, and only then. The rights are bound to the group:
#: bound to the account, they would be had by all who may impersonate the service accounts of a namespace (as its
#: editors may), run pods as them or ask for their tokens. Nobody but the operator may impersonate the group.
ACCOUNT_GROUP = f"{GROUP}:account"
#: The ClusterRole that this account is bound to, in its own namespace only.
ACCOUNT_ROLE = "backstay-application"

#: On a namespace: the cluster's admin opens it to Backstay with the value ``"true"``.
ENROLLED_LABEL = f"{GROUP}/enrolled"
#: On everything that Backstay makes: ``mover``, ``temporary``, ``account``, ``network``; such things are not captured.
COMPONENT_LABEL = f"{GROUP}/component"
#: On Jobs, temporary claims and VolumeSnapshots: UID of the Backup or Restore that they serve.
OWNER_LABEL = f"{GROUP}/owner-uid"
#: On a mover's pod: name of the BackupStorage that it talks to.
STORAGE_LABEL = f"{GROUP}/storage"
#: On a Backup that was ordered by a policy's schedule or found for it: the policy's name.
POLICY_LABEL = f"{GROUP}/policy"
#: On each object that a Restore created: the Restore's UID. A resumed Restore knows its own work by it.
RESTORED_LABEL = f"{GROUP}/restored-by"

#: Snapshot tags, each followed by ``=`` and a value.
TAG_BACKUP = f"{GROUP}/backup"  # UID of the Backup: on every snapshot of one restore point
TAG_RESTORE_POINT = f"{GROUP}/restore-point"  # UID of the Backup: only on the committing snapshot
TAG_POLICY = f"{GROUP}/policy"
TAG_CLAIM = f"{GROUP}/claim"  # UID of the claim, on a volume's snapshot

#: Where a restore point's own description stands in its snapshot.
RESTORE_POINT_FILE = "backstay/restore-point.json"
RESOURCES_DIRECTORY = "resources"


def tag(key: str, value: str) -> str:
    """A snapshot tag as stored in the repository."""
    return f"{key}={value}"


def short_hash(*parts: str, length: int = 8) -> str:
    """A hash of the parts in lower-case hex, for names that must be the same on every try."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]


def slot_text(slot: datetime) -> str:
    """A schedule's slot as part of an object's name, in UTC: ``20261124t020000z``."""
    return slot.astimezone(UTC).strftime("%Y%m%dt%H%M%Sz")


def backup_name(cluster: str, namespace: str, policy: str, slot: datetime) -> str:
    """The name of the Backup for a policy's slot: the same slot can never run twice."""
    return f"{policy}-{short_hash(cluster, namespace, policy, length=4)}-{slot_text(slot)}"
