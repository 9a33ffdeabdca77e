"""Keys, certificates, tokens and kubeconfigs of one cluster, made anew each time it is created."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path
from typing import Final

from tests.cluster.commands import run
from tests.cluster.network import KUBERNETES_SERVICE, NODE_ADDRESS
from tests.cluster.places import Places

NODE_NAME: Final = "node1"

_ACCOUNTS: Final = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE_NAME}", "system:nodes"),
    "proxy": ("system:kube-proxy", ""),
}
"""File name of each kubeconfig; user and group that its token stands for."""


class Credentials:
    """The files by which the cluster's programs know one another."""

    def __init__(self, places: Places) -> None:
        self._folder = places.state / "credentials"

    def file(self, name: str) -> Path:
        """Path of a key, a certificate or a token file."""
        return self._folder / name

    def kubeconfig(self, account: str) -> Path:
        """Path of an account's kubeconfig: admin, controller-manager, scheduler, kubelet or proxy."""
        return self._folder / f"{account}.conf"

    def create(self) -> None:
        """Make them all; a second cluster never shares a key with the first."""
        self._folder.mkdir(mode=0o700, parents=True)
        self._make_certificates()
        self._make_accounts()

    def _make_certificates(self) -> None:
        def openssl(*words: str | Path) -> None:
            run(["openssl", *words], cwd=self._folder)

        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        addresses = ["127.0.0.1", KUBERNETES_SERVICE, NODE_ADDRESS]
        san = ",".join([f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses])
        self.file("san.conf").write_text(f"subjectAltName={san}\n")
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=test-ca")
        openssl("req", *key, "-keyout", "apiserver.key", "-out", "apiserver.csr", "-subj", "/CN=kube-apiserver")
        openssl(
            *("x509", "-req", "-in", "apiserver.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", "apiserver.crt", "-days", "3650", "-extfile", "san.conf"),
        )
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "accounts.key")
        openssl("ec", "-in", "accounts.key", "-pubout", "-out", "accounts.pub")

    def _make_accounts(self) -> None:
        lines = []
        authority = base64.b64encode(self.file("ca.crt").read_bytes()).decode()
        for account, (user, group) in _ACCOUNTS.items():
            token = secrets.token_hex(16)
            lines.append(f'{token},{user},{account},"{group}"' if group else f"{token},{user},{account}")
            cluster = {"server": f"https://{NODE_ADDRESS}:6443", "certificate-authority-data": authority}
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "backstay", "cluster": cluster}],
                "users": [{"name": account, "user": {"token": token}}],
                "contexts": [{"name": "backstay", "context": {"cluster": "backstay", "user": account}}],
                "current-context": "backstay",
            }
            self.kubeconfig(account).write_text(json.dumps(config, indent=1))
            self.kubeconfig(account).chmod(0o600)
        self.file("tokens.csv").write_text("\n".join(lines) + "\n")
