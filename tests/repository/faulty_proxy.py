"""A network that fails as told: a proxy that stands between a store and a real S3 server.

usage:
    with FaultyProxy(seaweed.endpoint) as proxy:
        store = S3Store(replace(location, endpoint=proxy.endpoint), credentials)
        proxy.faults.append(Fault.answer(503, "SlowDown", times=3))
        store.put(...)                  # meets the fault three times, then gets through
        proxy.requests                  # what was asked, in order: "PUT /backups/test/1/config"

Each request takes the first fault that fits its method and path, and uses it up. SeaweedFS accepts the signature, since
the proxy passes on the Host header that was signed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit


@dataclass
class Fault:
    """What happens to a request. `times`: how often; `method` and `path`: to which, by a part of the path.

    kind: "answer" (with `status`, S3 `code` and `headers`, without asking the server), "reset" (the connection, after
    half of the upload, or at once), "cut" (the connection, after half of the answer), "corrupt" (a byte of the upload),
    "hang" (for `seconds` before anything is answered), "trickle" (the answer in 16 pieces over `seconds`), "crawl" (the
    upload is taken in pieces over `seconds`).
    """

    kind: str
    times: int = 1
    method: str = ""
    path: str = ""
    status: int = 0
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def answer(
        cls, status: int, code: str, *, times: int = 1, headers: dict[str, str] | None = None, path: str = ""
    ) -> Fault:
        return cls("answer", times, path=path, status=status, code=code, headers=headers or {})

    def fits(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in ("", method) and self.path in path


class FaultyProxy:
    """Forwards to `upstream`. `faults` may be changed at any time. `requests`: what was asked, in order.

    `verifies`: when it is set, damaged probes do not reach the server, which would verify more: of uploads whose path
    holds "probe", those are refused in which one of these request headers is wrong, and others are taken for good.
    `look`: is shown the headers of each request that is passed on. `most_at_once`: requests under way at a time.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.most_at_once = 0
        self.look: Callable[[http.client.HTTPMessage], None] = lambda headers: None
        self.verifies: tuple[str, ...] | None = None
        self._now = 0
        self._mutex = threading.Lock()

    def __enter__(self) -> Self:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, method: str, path: str) -> Fault | None:
        with self._mutex:
            self.requests.append(f"{method} {path}")
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            found = next((fault for fault in self.faults if fault.fits(method, path)), None)
            if found is not None:
                found.times -= 1
            return found

    def done(self) -> None:
        with self._mutex:
            self._now -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)  # a slow reader must be felt
        super().server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that break are this server's trade."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultyProxy

    def handle_expect_100(self) -> bool:
        return True  # consent is given when it is known what becomes of the request

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_request(self) -> None:
        fault = self.owner.take(self.command, self.path)
        try:
            self._serve(fault)
        finally:
            self.owner.done()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_request  # noqa: N815

    def _serve(self, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        length = int(self.headers.get("Content-Length", 0))
        if fault is not None and kind == "hang":
            time.sleep(fault.seconds)
        if fault is not None and kind == "answer":
            return self._refuse(fault)
        if self.headers.get("Expect"):
            self.send_response_only(100)
            self.end_headers()
        if kind == "reset":
            self.rfile.read(length // 2)
            return self._reset()
        if fault is not None and kind == "crawl":
            body = bytearray()
            while len(body) < length:
                body += self.rfile.read(min(length - len(body), 64 << 10))
                time.sleep(fault.seconds * (64 << 10) / length)
        else:
            body = bytearray(self.rfile.read(length))
        if kind == "corrupt" and body:
            body[len(body) // 2] ^= 1
        if self.owner.verifies is not None and self.command == "PUT" and "probe" in self.path:
            wrong = [name for name in self.owner.verifies if self.headers.get(name) not in (None, right(name, body))]
            return self._refuse(Fault.answer(400, "BadDigest")) if wrong else self._send(200, [], b"")
        status, headers, content = self._ask(bytes(body))
        if fault is not None and kind == "trickle":
            return self._send(status, headers, content, pieces=16, seconds=fault.seconds)
        if kind == "cut":
            self._send(status, headers, content[: len(content) // 2], length=len(content))
            self.close_connection = True
            return None
        return self._send(status, headers, content)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        address = urlsplit(self.owner.upstream)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            self.owner.look(self.headers)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            headers = [item for item in answer.getheaders() if item[0].lower() not in _HOP]
            return answer.status, headers, answer.read()

    def _refuse(self, fault: Fault) -> None:
        content = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>as told</Message></Error>".encode()
        self.close_connection = True  # the body was not read
        self._send(fault.status, [*fault.headers.items(), ("Connection", "close")], content)

    def _send(
        self,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        *,
        length: int | None = None,
        pieces: int = 1,
        seconds: float = 0.0,
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        step = max(1, len(content) // pieces)
        for at in range(0, len(content), step):
            self.wfile.write(content[at : at + step])
            time.sleep(seconds / pieces)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def right(header: str, body: bytes | bytearray) -> str:
    """What a header that proves a body must say."""
    if header == "content-md5":
        return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    digest = hashlib.sha256(body)
    return digest.hexdigest() if header == "x-amz-content-sha256" else base64.b64encode(digest.digest()).decode()


_HOP = {"content-length", "transfer-encoding", "connection", "keep-alive"}
