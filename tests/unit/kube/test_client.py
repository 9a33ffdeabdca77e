"""The client against a small HTTP server that answers as the API server does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes.client import Configuration

from backstay.kube.client import Client
from backstay.kube.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from backstay.kube.resource import CONFIG_MAPS, EVENTS, JOBS, NAMESPACES, PODS, STORAGES
from backstay.kube.transport import Transport


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


@dataclass
class Server:
    """Answers with the next of `answers`; the last one is repeated."""

    url: str = ""
    answers: list[Answer] = field(default_factory=lambda: [(200, {})])
    requests: list[Request] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            state.requests.append(
                Request(self.command, parts.path, query, dict(self.headers), json.loads(data) if data else None)
            )
            status, body, *headers = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            if status == 0:
                self.close_connection = True
                return
            payload = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in (headers[0] if headers else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield state
    http.shutdown()
    http.server_close()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def client(server: Server, pauses: list[float]) -> Client:
    configuration = Configuration(host=server.url, api_key={"BearerToken": "Bearer abc"})
    ready = Transport.configured(configuration)
    return Client(Transport(ready.configuration, ready.pool, sleep=pauses.append))


def status(code: int, reason: str, message: str = "the server's words") -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "reason": reason, "message": message, "code": code}


def page(names: list[str], token: str = "") -> tuple[int, dict[str, Any]]:
    return 200, {"metadata": {"continue": token}, "items": [{"metadata": {"name": name}} for name in names]}


def test_a_list_is_read_page_by_page_and_its_items_say_what_they_are(client: Client, server: Server) -> None:
    server.answers = [page(["a", "b"], token="more"), page(["c"])]

    found = client.list(JOBS, "shop", labels="app=web")

    assert [item["metadata"]["name"] for item in found] == ["a", "b", "c"]
    assert {(item["apiVersion"], item["kind"]) for item in found} == {("batch/v1", "Job")}
    assert [request.path for request in server.requests] == ["/apis/batch/v1/namespaces/shop/jobs"] * 2
    assert server.requests[1].query == {"limit": "500", "continue": "more", "labelSelector": "app=web"}


def test_a_list_whose_continuation_expired_is_started_anew_and_never_partial(client: Client, server: Server) -> None:
    server.answers = [page(["a"], token="old"), status(410, "Expired"), page(["a"], token="new"), page(["b"])]

    found = client.list(PODS)

    assert [item["metadata"]["name"] for item in found] == ["a", "b"]
    assert server.requests[0].path == "/api/v1/pods"


def test_an_overloaded_server_is_given_the_time_it_asks_for(
    client: Client, server: Server, pauses: list[float]
) -> None:
    server.answers = [(429, "slow down", {"Retry-After": "3"}), (201, {"metadata": {"name": "x"}})]

    client.create(CONFIG_MAPS, {"metadata": {"name": "x", "namespace": "shop"}})

    assert pauses == [3.0]


@pytest.mark.parametrize("trouble", [(503, "no leader"), (500, "etcdserver: timeout"), (0, "")])
def test_reads_are_tried_again_through_passing_trouble(client: Client, server: Server, trouble: Answer) -> None:
    server.answers = [trouble, trouble, (200, {"metadata": {"name": "x"}})]

    assert client.get(NAMESPACES, "x")["metadata"]["name"] == "x"


@pytest.mark.parametrize("trouble", [(503, "no leader"), (0, "")])
def test_a_creation_is_not_sent_twice(client: Client, server: Server, trouble: Answer) -> None:
    server.answers = [trouble]

    with pytest.raises(UnavailableError):
        client.create(CONFIG_MAPS, {"metadata": {"name": "x", "namespace": "shop"}})

    assert len(server.requests) == 1


def test_a_server_that_stays_away_is_unavailable_and_the_error_says_what_was_being_done(
    client: Client, server: Server
) -> None:
    server.answers = [(503, "apiserver is shutting down")]

    with pytest.raises(UnavailableError, match=r"get Pod shop/web-0: apiserver is shutting down"):
        client.get(PODS, "web-0", "shop")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(404, "NotFound"), NotFoundError),
        (status(409, "AlreadyExists"), AlreadyExistsError),
        (status(409, "Conflict"), ConflictError),
        (status(403, "Forbidden"), ForbiddenError),
        (status(422, "Invalid"), InvalidError),
        (status(400, "BadRequest"), InvalidError),
        (status(401, "Unauthorized"), ApiError),
        ((404, "404 page not found"), NotFoundError),
    ],
)
def test_every_refusal_has_its_own_error(client: Client, server: Server, answer: Answer, error: type[ApiError]) -> None:
    server.answers = [answer]

    with pytest.raises(ApiError) as caught:
        client.replace(CONFIG_MAPS, {"metadata": {"name": "x", "namespace": "shop"}})

    assert type(caught.value) is error
    assert caught.value.status == answer[0]


def test_an_account_is_impersonated_without_naming_groups_which_would_need_further_rights(
    client: Client, server: Server
) -> None:
    client.as_account("shop").get(CONFIG_MAPS, "x", "shop")
    client.get(NAMESPACES, "shop")

    as_account, as_operator = (request.headers for request in server.requests)
    assert as_account["Impersonate-User"] == "system:serviceaccount:shop:backstay"
    assert as_account["Impersonate-Group"] == "backstay.dev:account"
    assert as_account["Authorization"] == "Bearer abc"
    assert "Impersonate-User" not in as_operator


def test_what_exists_already_is_as_good_as_created(client: Client, server: Server) -> None:
    server.answers = [status(409, "AlreadyExists"), (200, {"metadata": {"name": "x", "uid": "1"}})]

    found = client.ensure(CONFIG_MAPS, {"metadata": {"name": "x", "namespace": "shop"}})

    assert found["metadata"]["uid"] == "1"


def test_status_is_written_whole_and_only_over_the_version_that_was_read(client: Client, server: Server) -> None:
    obj = {"metadata": {"name": "main", "namespace": "shop", "resourceVersion": "7"}, "status": {"old": 1}}

    client.replace_status(STORAGES, obj, {"new": 2})

    (request,) = server.requests
    assert (request.method, request.path) == (
        "PUT",
        "/apis/backstay.dev/v1alpha1/namespaces/shop/backupstorages/main/status",
    )
    assert request.body["metadata"]["resourceVersion"] == "7"
    assert request.body["status"] == {"new": 2}
    assert request.body["kind"] == "BackupStorage"


@pytest.mark.parametrize(
    ("answer", "deleted"), [((200, {}), True), (status(404, "NotFound"), False), (status(409, "Conflict"), False)]
)
def test_deleting_tells_whether_there_was_something_to_delete(
    client: Client, server: Server, answer: Answer, deleted: bool
) -> None:
    server.answers = [answer]

    assert client.delete(JOBS, "x", "shop", uid="1") is deleted
    assert server.requests[0].body == {"propagationPolicy": "Background", "preconditions": {"uid": "1"}}


def test_discovery_gives_each_listable_kind_once_in_its_preferred_version(client: Client, server: Server) -> None:
    def kind(plural: str, name: str, verbs: list[str]) -> dict[str, Any]:
        return {"resource": plural, "responseKind": {"kind": name}, "scope": "Namespaced", "verbs": verbs}

    group = {
        "metadata": {"name": "autoscaling"},
        "versions": [
            {
                "version": "v2",
                "resources": [kind("horizontalpodautoscalers", "HorizontalPodAutoscaler", ["list", "get"])],
            },
            {
                "version": "v1",
                "resources": [
                    kind("horizontalpodautoscalers", "HorizontalPodAutoscaler", ["list", "get"]),
                    kind("reviews", "Review", ["create"]),
                    kind("olds", "Old", ["list"]),
                ],
            },
        ],
    }
    server.answers = [(200, {"items": []}), (200, {"items": [group]})]

    assert [(r.version, r.plural) for r in client.discover()] == [("v2", "horizontalpodautoscalers"), ("v1", "olds")]


def test_an_event_that_happens_again_is_counted(client: Client, server: Server) -> None:
    server.answers = [status(409, "AlreadyExists"), (200, {"metadata": {}, "series": {"count": 2}}), (200, {})]
    about = {"apiVersion": "v1", "kind": "Pod", "name": "web", "namespace": "shop", "uid": "1"}

    client.event(about, "Warning", "Broken", "it broke", "Look")

    created, _, counted = server.requests
    assert created.path == EVENTS.path("shop")
    assert created.body["regarding"] == about
    assert counted.method == "PATCH"
    assert counted.body["series"]["count"] == 3


def test_an_event_that_cannot_be_written_stops_nothing(client: Client, server: Server) -> None:
    server.answers = [status(403, "Forbidden")]

    client.event({"apiVersion": "v1", "kind": "Pod", "name": "web", "namespace": "shop"}, "Normal", "R", "m", "a")


def test_a_rotated_token_is_read_before_each_call(server: Server) -> None:
    tokens = iter(["Bearer one", "Bearer two"])
    configuration = Configuration(host=server.url)

    def renew(target: Any) -> None:
        target.api_key["BearerToken"] = next(tokens)

    hook: Callable[[Any], None] = renew
    configuration.refresh_api_key_hook = hook
    client = Client(Transport.configured(configuration))

    client.get(NAMESPACES, "a")
    client.get(NAMESPACES, "a")

    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer one", "Bearer two"]


def test_names_are_escaped_in_urls() -> None:
    assert PODS.path("shop", "a/../b") == "/api/v1/namespaces/shop/pods/a%2F..%2Fb"
    with pytest.raises(ValueError, match="in a namespace"):
        PODS.path("", "web")
