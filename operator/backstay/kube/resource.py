"""Kinds as the API server serves them: where their objects are found, and what may be done with them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from backstay.api.names import GROUP, VERSION

_ALL_VERBS = frozenset({"create", "delete", "get", "list", "patch", "update", "watch"})


@dataclass(frozen=True)
class Resource:
    """One kind. ``group`` is empty for the core API; ``plural`` is the name in URLs; ``verbs`` is what is served."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    verbs: frozenset[str] = _ALL_VERBS

    @property
    def api_version(self) -> str:
        """As in an object's ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str | None = None, subresource: str | None = None) -> str:
        """The URL's path. Without a namespace it is that of the whole cluster; every part is escaped."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            if self.namespaced and not namespace:
                raise ValueError(f"{self.kind} {name} is in a namespace, but none was named")
            parts.append(name)
        if subresource is not None:
            parts.append(subresource)
        return "/" + "/".join(quote(part, safe="") for part in parts)

    def title(self, namespace: str = "", name: str = "") -> str:
        """Words for messages, as in ``Job shop/x`` or ``Namespace shop``."""
        place = "/".join(part for part in (namespace if self.namespaced else "", name) if part)
        return f"{self.kind} {place}".rstrip()


PODS = Resource("", "v1", "Pod", "pods")
SECRETS = Resource("", "v1", "Secret", "secrets")
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps")
SERVICES = Resource("", "v1", "Service", "services")
SERVICE_ACCOUNTS = Resource("", "v1", "ServiceAccount", "serviceaccounts")
CLAIMS = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
VOLUMES = Resource("", "v1", "PersistentVolume", "persistentvolumes", namespaced=False)
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
NODES = Resource("", "v1", "Node", "nodes", namespaced=False)
JOBS = Resource("batch", "v1", "Job", "jobs")
CRON_JOBS = Resource("batch", "v1", "CronJob", "cronjobs")
DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments")
REPLICA_SETS = Resource("apps", "v1", "ReplicaSet", "replicasets")
STATEFUL_SETS = Resource("apps", "v1", "StatefulSet", "statefulsets")
DAEMON_SETS = Resource("apps", "v1", "DaemonSet", "daemonsets")
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "StorageClass", "storageclasses", namespaced=False)
CSI_DRIVERS = Resource("storage.k8s.io", "v1", "CSIDriver", "csidrivers", namespaced=False)
VOLUME_SNAPSHOTS = Resource("snapshot.storage.k8s.io", "v1", "VolumeSnapshot", "volumesnapshots")
VOLUME_SNAPSHOT_CLASSES = Resource(
    "snapshot.storage.k8s.io", "v1", "VolumeSnapshotClass", "volumesnapshotclasses", namespaced=False
)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases")
EVENTS = Resource("events.k8s.io", "v1", "Event", "events")
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)

STORAGES = Resource(GROUP, VERSION, "BackupStorage", "backupstorages")
POLICIES = Resource(GROUP, VERSION, "BackupPolicy", "backuppolicies")
BACKUPS = Resource(GROUP, VERSION, "Backup", "backups")
RESTORES = Resource(GROUP, VERSION, "Restore", "restores")
