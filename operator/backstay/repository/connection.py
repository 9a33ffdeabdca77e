"""How the S3 server is reached: pooled connections, time limits, certificates and proxies."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import urllib3

CONNECT_TIMEOUT = 5.0  # seconds
READ_TIMEOUT = 30.0  # seconds without a byte


def pool(scheme: str, host: str, ca_file: str | None) -> urllib3.PoolManager:
    """Connections that several threads may use. `ca_file`: certificates to trust, in PEM, not the system's."""
    import urllib3

    options: dict[str, Any] = {
        "maxsize": 16,
        "retries": False,
        "timeout": urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
    }
    if scheme == "https":
        options["cert_reqs"] = "CERT_REQUIRED"
        options["ca_certs"] = ca_file or _fallback_certificates()
    proxy = _proxy_for(scheme, host)
    return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)


def fits_host(bucket: str, host: str) -> bool:
    """Whether the bucket can be the first label of the host: no dots (TLS wildcards), and the host is no address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", bucket) is not None and host != "localhost"
    return False


def _fallback_certificates() -> str | None:
    """certifi's bundle where the system has none of its own, as in a small image; None: the system's."""
    import ssl

    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and os.path.isdir(paths.capath) and os.listdir(paths.capath)):
        return None
    try:
        import certifi
    except ImportError:
        return None
    return certifi.where()


def _proxy_for(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for this host, if any."""
    names = (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    proxy = next((os.environ[name] for name in names if os.environ.get(name)), None)
    if proxy is None or not proxy.startswith("http"):
        return None
    import urllib.request

    return None if urllib.request.proxy_bypass(host) else proxy


def plain(error: BaseException) -> str:
    """The innermost cause, without the layers and object addresses that urllib3 wraps around it."""
    reason = getattr(error, "reason", None)
    while isinstance(reason, BaseException):
        error = reason
        reason = getattr(error, "reason", None)
    text = re.sub(r"<[^>]*>|\w+\(host=[^)]*\):?\s*", "", str(error)).strip(" :")
    return text or type(error).__name__
