"""The application that the tests protect: a database that writes its volume once, a web server, and what they need.

The database makes its data only where it finds none. So after a Restore its log tells whether it found the data there
before it started.
"""

from __future__ import annotations

from typing import Any

from tests.cluster.images import BUSYBOX_REFERENCE

Object = dict[str, Any]

LABELS = {"app": "shop"}
USER = 1000

#: 300 files in directories, 3 MiB that do not compress, a symlink, a hard link, a sparse file, odd names and modes.
_SEED = r"""
set -e
if [ -e /data/seeded ]; then echo "found data"; else
  echo "making data"
  mkdir -p /data/tree && for d in 1 2 3; do
    mkdir -p /data/tree/$d && for f in $(seq 1 100); do echo "$d $f" > /data/tree/$d/$f; done
  done
  dd if=/dev/urandom of=/data/random bs=64k count=48 2>/dev/null
  echo x > "/data/tree/ein Name mit Leerzeichen und ü"
  ln -s tree/1/1 /data/link; ln /data/tree/2/2 /data/hard; chmod 0640 /data/tree/3/3; chmod 0700 /data/tree/3
  dd if=/dev/zero of=/data/sparse bs=1 count=1 seek=9999999 2>/dev/null
  sync; touch /data/seeded
fi
trap exit TERM; while :; do sleep 1; done
"""

#: Content, names, modes, owners and link targets of the volume as one text.
FINGERPRINT = r"""
cd /data && find . ! -path './lost+found*' -type f -exec md5sum {} + | sort
find . ! -path './lost+found*' -type l -exec sh -c 'echo "$1 -> $(readlink "$1")"' - {} \;
find . ! -path './lost+found*' ! -path . -exec stat -c '%n %a %u %h %Y' {} \; | grep -v ' -> ' | sort
"""


def settings() -> Object:
    """What the pods refer to, but carries no label: it is only found by reference."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings"},
        "data": {"greeting": "hello"},
    }


def credentials() -> Object:
    """A Secret that the pods refer to."""
    data = {"password": "c2VjcmV0"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials"}, "data": data}


def account() -> list[Object]:
    """The pods' ServiceAccount, with a Role of its own."""
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop", "labels": LABELS}},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "shop", "labels": LABELS}, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "shop", "labels": LABELS},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "shop"},
            "subjects": [{"kind": "ServiceAccount", "name": "shop"}],
        },
    ]


def service(name: str, **spec: Any) -> Object:
    """A Service."""
    wish = {"selector": {"tier": name}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": LABELS}, "spec": wish}


def database(storage_class: str = "standard", *, size: str = "64Mi", script: str = _SEED) -> Object:
    """A StatefulSet of one pod with one volume, under the Pod Security level restricted."""
    claim = {
        "metadata": {"name": "data", "labels": LABELS},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": size}},
        },
    }
    pod = _pod("database", script, volumes=[], mounts=[{"name": "data", "mountPath": "/data"}])
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "database", "labels": LABELS},
        "spec": {
            "serviceName": "database",
            "replicas": 1,
            "selector": {"matchLabels": {"tier": "database"}},
            "template": pod,
            "volumeClaimTemplates": [claim],
        },
    }


def web() -> Object:
    """A Deployment that serves its ConfigMap."""
    volumes = [{"name": "pages", "configMap": {"name": "settings"}}]
    pod = _pod("web", "exec httpd -f -p 8080 -h /pages", volumes, [{"name": "pages", "mountPath": "/pages"}])
    pod["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "credentials"}}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": LABELS},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"tier": "web"}}, "template": pod},
    }


def shop(storage_class: str = "standard") -> list[Object]:
    """All of it."""
    return [
        *account(),
        settings(),
        credentials(),
        service("database", clusterIP="None"),
        service("web"),
        database(storage_class),
        web(),
    ]


def _pod(tier: str, script: str, volumes: list[Object], mounts: list[Object]) -> Object:
    container = {
        "name": "main",
        "image": BUSYBOX_REFERENCE,
        "command": ["sh", "-c", script],
        "volumeMounts": mounts,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    context = {
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        # Otherwise the kubelet lets the group write every file each time that a pod starts.
        "fsGroupChangePolicy": "OnRootMismatch",
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spec = {
        "serviceAccountName": "shop",
        "terminationGracePeriodSeconds": 0,
        "securityContext": context,
        "containers": [container],
        "volumes": volumes,
    }
    return {"metadata": {"labels": {**LABELS, "tier": tier}}, "spec": spec}
