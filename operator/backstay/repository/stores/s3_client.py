"""How botocore is set up: what it may read, how it signs, and what it must leave to us.

A client costs 60 ms of CPU as botocore makes it, most of it for lists of 400 services, JSON and garbage collection.
Ours reads the descriptions of S3 alone, with a faster parser, and keeps them for the next client.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import gzip
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from backstay.repository.stores.s3 import S3Credentials, S3Location

CONNECT_TIMEOUT = 5.0  # seconds
READ_TIMEOUT = 30.0  # seconds without a byte
_SIGNER = "backstay-s3v4"
_SERVICES = ("s3", "sts", "sso", "sso-oidc", "signin")  # objects, and what identities are obtained from
_LARGE = 1 << 20  # bytes from which a body waits for the server's consent

_session_lock = threading.Lock()


def make_client(
    location: S3Location, credentials: S3Credentials | None, ca_file: str | None, *, connections: int
) -> Any:
    """An S3 client of botocore. `credentials` None: the process's own identity, found and refreshed by botocore."""
    keys: dict[str, str | None] = {}
    if credentials is not None:
        keys = {
            "aws_access_key_id": credentials.access_key_id,
            "aws_secret_access_key": credentials.secret_access_key,
            "aws_session_token": credentials.session_token or None,
        }
    with _session_lock, _uncollected():  # making a client is not thread-safe
        client = _session().create_client(
            "s3",
            region_name=location.region or "us-east-1",
            endpoint_url=location.endpoint or None,
            verify=ca_file,
            config=_config(location, connections),
            **keys,
        )
    _sign_with_known_digest(client)
    _wait_for_consent_when_large(client)
    return client


def _config(location: S3Location, connections: int) -> Any:
    from botocore.config import Config

    return Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": 1},
        # Of what goes up, the digest is known already, and `_sign_with_known_digest` signs it: hashing again would
        # only cost.
        s3={
            "addressing_style": "path" if location.force_path_style else "auto",
            "payload_signing_enabled": False,
        },
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent="backstay",  # botocore's own takes it a tenth of a millisecond for each request
    )


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """A while without garbage collection: what is made stays, and looking through it again and again costs the half."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


@functools.cache
def _session() -> Any:
    """Shared, since each session reads the service's description, a megabyte of JSON, anew."""
    import botocore.session
    from botocore.loaders import Loader

    class FewServices(Loader):  # type: ignore[misc]
        """Descriptions of the services that are used, without a look at each of the 400 that there are."""

        def list_available_services(self, type_name: str) -> list[str]:
            return list(_SERVICES)

    session = botocore.session.get_session()
    session.register_component("data_loader", FewServices(file_loader=_Files()))
    # Times in answers are not looked at, but for listings of versions, which parse their own.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=lambda told: told)
    return session


class _Files:
    """Reads botocore's data files; the interface is that of botocore's own file loader."""

    def exists(self, path: str) -> bool:
        return Path(f"{path}.json").is_file() or Path(f"{path}.json.gz").is_file()

    def load_file(self, path: str) -> Any:
        for name, opener in ((f"{path}.json", open), (f"{path}.json.gz", gzip.open)):
            if Path(name).is_file():
                with opener(name, "rb") as file:
                    return msgspec.json.decode(file.read())
        return None


def _sign_with_known_digest(client: Any) -> None:
    """Let uploads be signed with the digest that their body carries.

    A server that verifies signatures then refuses a damaged body, whether or not it knows the checksums of objects.
    """
    from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth

    if _SIGNER not in AUTH_TYPE_MAPS:

        class KnownDigest(S3SigV4Auth):  # type: ignore[misc]
            """S3's signature, with the payload's hash taken from the body."""

            def payload(self, request: Any) -> str:
                known = getattr(request.body, "sha256", None)
                return str(known.hex() if known is not None else super().payload(request))

        AUTH_TYPE_MAPS[_SIGNER] = KnownDigest
    client.meta.events.register(
        "choose-signer.s3.PutObject",
        lambda signature_version, **_: _SIGNER if signature_version in ("v4", "s3v4") else None,
    )


def _wait_for_consent_when_large(client: Any) -> None:
    """Send a small body at once, and a large one after the server's 100 Continue, not to send it for a refusal."""
    from botocore.handlers import add_expect_header

    def consent(params: dict[str, Any], **_: Any) -> None:
        if len(params["body"]) >= _LARGE:
            params["headers"]["Expect"] = "100-continue"

    client.meta.events.unregister("before-call.s3", add_expect_header)
    client.meta.events.register("before-call.s3.PutObject", consent)
