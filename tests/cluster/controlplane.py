"""etcd, the API server, the controllers and the scheduler.

Everything that a user's cluster has on by default is on here: all admission plugins (Pod Security
and ValidatingAdmissionPolicy among them), NodeRestriction, RBAC, and all controllers.
"""

from __future__ import annotations

from pathlib import Path

from tests.cluster.commands import run, until
from tests.cluster.credentials import Credentials
from tests.cluster.errors import CommandError
from tests.cluster.network import NODE_ADDRESS, SERVICE_RANGE, inside
from tests.cluster.places import Places
from tests.cluster.processes import Processes
from tests.cluster.programs import Programs


def start_apiserver(processes: Processes, programs: Programs, credentials: Credentials, places: Places) -> None:
    """Start etcd and the API server; both come up on their own, so nothing is awaited here."""
    processes.start(
        "etcd",
        [
            programs["etcd"],
            f"--data-dir={places.state / 'etcd'}",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",  # the cluster is thrown away; durability would only cost time
        ],
    )
    processes.start(
        "apiserver",
        [
            programs["kube-apiserver"],
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={NODE_ADDRESS}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            f"--tls-cert-file={credentials.file('apiserver.crt')}",
            f"--tls-private-key-file={credentials.file('apiserver.key')}",
            f"--client-ca-file={credentials.file('ca.crt')}",
            f"--token-auth-file={credentials.file('tokens.csv')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={credentials.file('accounts.pub')}",
            f"--service-account-signing-key-file={credentials.file('accounts.key')}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
        ],
    )


def start_controllers(processes: Processes, programs: Programs, credentials: Credentials) -> None:
    """Start the controller manager and the scheduler, once the API server answers."""
    processes.start(
        "controller-manager",
        [
            programs["kube-controller-manager"],
            f"--kubeconfig={credentials.kubeconfig('controller-manager')}",
            f"--service-account-private-key-file={credentials.file('accounts.key')}",
            f"--root-ca-file={credentials.file('ca.crt')}",
            f"--cluster-signing-cert-file={credentials.file('ca.crt')}",
            f"--cluster-signing-key-file={credentials.file('ca.key')}",
            "--use-service-account-credentials",
            "--allocate-node-cidrs=false",
            "--leader-elect=false",
        ],
    )
    processes.start(
        "scheduler",
        [
            programs["kube-scheduler"],
            f"--kubeconfig={credentials.kubeconfig('scheduler')}",
            "--leader-elect=false",
        ],
    )


def await_apiserver(processes: Processes, programs: Programs, places: Places) -> None:
    """Wait until the API server says that it is ready; a program that died meanwhile is reported at once."""

    def ready() -> bool:
        processes.require_alive()
        return is_ready(programs, places)

    until("the API server to be ready", ready, seconds=60)


def is_ready(programs: Programs, places: Places) -> bool:
    """Whether the API server answers and calls itself ready."""
    ask: list[str | Path] = [
        programs["kubectl"],
        f"--kubeconfig={places.kubeconfig}",
        "--request-timeout=5s",
        "get",
        "--raw=/readyz",
    ]
    try:
        return run(inside(ask), timeout=10) == "ok"
    except CommandError:
        return False
