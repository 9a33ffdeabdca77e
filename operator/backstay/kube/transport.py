"""HTTP to the API server: credentials, connections, time limits and second tries.

Configuration and credentials are the official client's, so that every kind of kubeconfig and in-cluster identity works.
Its models and deserialisers are left out: they cost most of a list's time, and know nothing of custom kinds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import config
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject

from backstay.kube.errors import UnavailableError, error_of

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
#: Pauses in seconds before the second and later tries of a call.
PAUSES = (0.2, 0.5, 1.0, 2.0)
#: The longest that a server's Retry-After is obeyed, in seconds; beyond it the work queue's backoff is better.
LONGEST_RETRY_AFTER = 10.0
#: Connections that are kept open. More than this many threads work too, but reconnect.
CONNECTIONS = 32

#: A repetition of these has the same effect as one call.
_IDEMPOTENT = frozenset({"GET", "PUT", "PATCH", "DELETE"})
#: Failures before a byte of the request was sent: even a POST may be tried again.
_NOT_SENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)


class NoClusterError(Exception):
    """Nothing says where the API server is; the text tells what to set."""


@dataclass(frozen=True)
class Transport:
    """Calls to one API server. Thread-safe; copies made by `limited_to` share the connections."""

    configuration: Any
    pool: Any
    read_seconds: float = READ_SECONDS
    pauses: tuple[float, ...] = PAUSES
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def connect(cls) -> Transport:
        """With the pod's service account, or outside of a cluster with KUBECONFIG or ``~/.kube/config``.

        Raises NoClusterError when there is neither.
        """
        configuration = Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            try:
                config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            except config.ConfigException as error:
                raise NoClusterError(
                    f"no way to the API server: no service account of a pod, and no usable kubeconfig ({error}); set "
                    "KUBECONFIG"
                ) from error
        return cls.configured(configuration)

    @classmethod
    def configured(cls, configuration: Any) -> Transport:
        """With a configuration of the official client."""
        configuration.connection_pool_maxsize = CONNECTIONS
        pool = RESTClientObject(configuration).pool_manager
        pool.connection_pool_kw["ssl_context"] = tolerate(urllib3.util.create_urllib3_context())
        return cls(configuration, pool)

    def limited_to(self, seconds: float) -> Transport:
        """The same connections, but calls give up after about so many seconds and are not tried again."""
        return replace(self, read_seconds=seconds, pauses=())

    def request(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """One call, and further tries where they are harmless. Raises ApiError; `operation` is for its message."""
        url = self.configuration.host.rstrip("/") + path + ("?" + urlencode(query) if query else "")
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        for pause in (*self.pauses, None):
            fields = {"Accept": "application/json", "User-Agent": "backstay", **self._credentials(), **(headers or {})}
            if data is not None:
                fields["Content-Type"] = content_type
            status, answer, retry_after, retriable = self._send(operation, method, url, data, fields)
            if 200 <= status < 300:
                return answer
            if pause is None or not retriable:
                raise error_of(operation, status, answer) if status else _unreachable(operation, answer)
            wait = max(pause, min(retry_after, LONGEST_RETRY_AFTER))
            logger.debug("%s: status %s, next try in %s s", operation, status, wait)
            self.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _send(
        self, operation: str, method: str, url: str, data: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, float, bool]:
        """Status (0: no answer), body, the server's Retry-After in seconds, and whether another try is harmless."""
        timeout = urllib3.Timeout(connect=min(CONNECT_SECONDS, self.read_seconds), read=self.read_seconds)
        try:
            response = self.pool.request(
                method, url, body=data, headers=headers, timeout=timeout, redirect=False, retries=False
            )
        except urllib3.exceptions.HTTPError as error:
            return 0, str(error).encode(), 0.0, method in _IDEMPOTENT or isinstance(error, _NOT_SENT)
        retry_after = 0.0
        with contextlib.suppress(ValueError):
            retry_after = float(response.headers.get("Retry-After", 0))
        # 429 says that the call was not carried out, so that every verb may be repeated.
        retriable = response.status == 429 or (response.status >= 500 and method in _IDEMPOTENT)
        return response.status, response.data, retry_after, retriable

    def _credentials(self) -> dict[str, str]:
        """Asked for before each call: the configuration reads a rotated token anew."""
        token = self.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            return {"Authorization": token}
        if self.configuration.username:
            return {"Authorization": self.configuration.get_basic_auth_token()}
        return {}


def tolerate(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same, but certificates need not have every extension of RFC 5280.

    Python insists on them since 3.13; Go does not, so that many clusters' own authorities lack one or another, and
    kubectl works with them all the same. Chain, name and dates are verified as ever.
    """
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _unreachable(operation: str, answer: bytes) -> UnavailableError:
    return UnavailableError(operation, 0, "Unreachable", f"no answer from the API server: {answer.decode()}")
