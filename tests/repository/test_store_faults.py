"""S3 as it really is: what passes is waited for, what does not is told in seconds, and no byte goes wrong."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate

import pytest

from backstay.repository import AccessDenied, Repository, S3Credentials, S3Location, S3Store, Unreachable
from backstay.repository.errors import StoreFull, StoreRefused
from backstay.repository.format.blob import BlobType
from backstay.repository.stores import s3, s3_client
from backstay.repository.stores.s3 import Integrity
from tests.repository.conftest import PASSWORD
from tests.repository.faulty_proxy import Fault, FaultyProxy, right
from tests.repository.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

CONTENT = os.urandom(3 << 20)  # more than a connection's buffers hold


@pytest.fixture
def proxy(seaweed: Seaweed) -> Iterator[FaultyProxy]:
    with FaultyProxy(seaweed.endpoint) as running:
        yield running


@pytest.fixture
def far(location: S3Location, credentials: S3Credentials, proxy: FaultyProxy) -> S3Store:
    """The store, seen through the proxy."""
    return S3Store(replace(location, endpoint=proxy.endpoint), credentials, patience=20)


@pytest.mark.parametrize(
    "fault",
    [
        Fault.answer(503, "SlowDown", times=3),
        Fault.answer(500, "InternalError"),
        Fault.answer(429, "TooManyRequests", headers={"Retry-After": "1"}),
        Fault("reset", times=2),
        Fault("corrupt", times=2),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.code}",
)
def test_an_upload_survives_what_passes_and_arrives_as_it_was(far: S3Store, proxy: FaultyProxy, fault: Fault) -> None:
    proxy.faults.append(replace(fault))

    far.put("data/00/pack", memoryview(bytearray(CONTENT)), sha256=hashlib.sha256(CONTENT).digest())

    assert far.get("data/00/pack") == CONTENT
    assert proxy.faults[0].times == 0
    assert len([told for told in proxy.requests if told.startswith("PUT")]) == fault.times + 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault.answer(503, "SlowDown", times=3),
        Fault("reset"),
        Fault("cut", times=2),
        Fault("trickle", seconds=1.0),
    ],
    ids=lambda fault: fault.kind,
)
@pytest.mark.parametrize("into", [False, True])
def test_a_download_survives_what_passes(far: S3Store, proxy: FaultyProxy, fault: Fault, into: bool) -> None:
    far.put("data/00/pack", CONTENT)
    proxy.faults.append(replace(fault))
    room = bytearray(len(CONTENT) - 2000)

    if into:
        far.get_into("data/00/pack", 1000, memoryview(room))
    else:
        room[:] = far.get("data/00/pack", 1000, len(room))

    assert room == CONTENT[1000:-1000]
    assert proxy.faults[0].times == 0


def test_an_upload_on_a_slow_link_may_take_longer_than_any_time_limit(
    far: S3Store, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "CONNECT_TIMEOUT", 1.0)
    proxy.faults.append(Fault("crawl", seconds=4.0))
    content = CONTENT * 3  # more than the sender's own buffers hold

    far.put("data/00/pack", content)

    assert far.get("data/00/pack") == content
    assert [told.split()[0] for told in proxy.requests] == ["PUT", "GET"]


def test_a_listing_that_broke_off_is_asked_for_again(far: S3Store, proxy: FaultyProxy) -> None:
    for number in range(20):
        far.put(f"index/{number:02}", b"content")
    proxy.faults.append(Fault("cut", method="GET"))

    assert [name for name, _ in far.list("index/")] == [f"index/{number:02}" for number in range(20)]


@pytest.mark.parametrize(
    ("status", "code", "error", "told"),
    [
        (403, "AccessDenied", AccessDenied, "lack the right"),
        (403, "InvalidAccessKeyId", AccessDenied, "does not know this access key"),
        (400, "ExpiredToken", AccessDenied, "expired"),
        (501, "NotImplemented", StoreRefused, "refuses"),
        (507, "XMinioStorageFull", StoreFull, "make room"),
    ],
)
def test_what_does_not_pass_is_told_at_once(
    far: S3Store, proxy: FaultyProxy, status: int, code: str, error: type[Exception], told: str
) -> None:
    far.put("index/known", b"")
    proxy.faults.append(Fault.answer(status, code, times=99))
    before = len(proxy.requests)

    with pytest.raises(error, match=told):
        far.get("index/known")

    assert len(proxy.requests) - before == 1


def test_a_server_that_stays_overloaded_is_given_up(
    location: S3Location, credentials: S3Credentials, proxy: FaultyProxy
) -> None:
    impatient = S3Store(replace(location, endpoint=proxy.endpoint), credentials, patience=0.5)
    proxy.faults.append(Fault.answer(503, "SlowDown", times=99))

    with pytest.raises(Unreachable, match="503 SlowDown; the server is overloaded"):
        impatient.put("index/some", b"content")


def test_a_web_site_is_told_from_an_s3_server(far: S3Store, proxy: FaultyProxy) -> None:
    far.put("index/known", b"")
    proxy.faults.append(Fault.answer(200, "<html", times=99))

    with pytest.raises((Unreachable, StoreRefused), match="S3 server"):
        list(far.list("index/"))


def test_a_clock_that_is_wrong_is_told_with_how_much(far: S3Store, proxy: FaultyProxy) -> None:
    proxy.faults.append(Fault.answer(403, "RequestTimeTooSkewed", headers={"Date": formatdate(0, usegmt=True)}))

    with pytest.raises(AccessDenied, match=r"clock is \d+ minutes ahead of the server's"):
        far.get("config")


def test_keys_that_expired_are_asked_for_again(location: S3Location) -> None:
    given = iter([S3Credentials("old", "expired"), S3Credentials(ACCESS_KEY, SECRET_KEY)])
    store = S3Store(location, lambda: next(given))

    store.put("index/some", b"content")

    assert store.get("index/some") == b"content"


def test_keys_that_are_refused_and_stay_the_same_are_told(location: S3Location) -> None:
    asked = []

    def keys() -> S3Credentials:
        asked.append(1)
        return S3Credentials(ACCESS_KEY, "w7r0n9")

    with pytest.raises(AccessDenied, match="SignatureDoesNotMatch"):
        S3Store(location, keys).put("index/some", b"content")

    assert len(asked) == 2


def test_no_more_requests_run_at_a_time_than_allowed(
    location: S3Location, credentials: S3Credentials, proxy: FaultyProxy
) -> None:
    store = S3Store(replace(location, endpoint=proxy.endpoint), credentials, connections=3)
    proxy.faults.append(Fault("hang", seconds=0.05, times=30))

    with ThreadPoolExecutor(12) as executor:
        list(executor.map(lambda number: store.put(f"data/00/{number}", b"content"), range(30)))

    assert proxy.most_at_once == 3


def test_a_refusal_comes_before_a_large_upload_was_sent(far: S3Store, proxy: FaultyProxy) -> None:
    far.put("index/known", b"")
    sent = []
    proxy.look = lambda headers: sent.append(headers.get("Content-Length"))
    proxy.faults.append(Fault.answer(403, "AccessDenied"))

    with pytest.raises(AccessDenied):
        far.put("data/00/pack", CONTENT)

    assert sent == []


def test_a_repository_is_written_through_a_bad_network(far: S3Store, store: S3Store, proxy: FaultyProxy) -> None:
    for fault in ("corrupt", "reset"):
        proxy.faults.append(Fault(fault, times=2, method="PUT"))
    proxy.faults.append(Fault("cut", times=2, method="GET", path="keys"))

    created = Repository.init(far, PASSWORD)

    assert Repository.open(store, PASSWORD).id == created.id
    assert all(fault.times == 0 for fault in proxy.faults)


# --- what proves an upload --------------------------------------------------------------------------------------------


def test_the_server_that_verifies_checksums_is_known_for_it(far: S3Store, proxy: FaultyProxy) -> None:
    assert far.integrity() is Integrity.CHECKSUM

    before = len(proxy.requests)
    assert far.integrity() is Integrity.CHECKSUM
    assert len(proxy.requests) == before


def test_a_probe_finds_out_and_leaves_nothing_behind(store: S3Store) -> None:
    store.probe()

    assert store.integrity() is Integrity.CHECKSUM
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("x-amz-checksum-sha256", Integrity.CHECKSUM),
        ("x-amz-content-sha256", Integrity.SIGNATURE),
        ("content-md5", Integrity.MD5),
    ],
)
def test_what_a_server_verifies_is_found_out_and_sent(
    far: S3Store, proxy: FaultyProxy, header: str, found: Integrity
) -> None:
    proxy.verifies = (header,)

    assert far.integrity() is found

    seen: list[str | None] = []
    proxy.look = lambda headers: seen.append(headers.get(header))
    far.put("index/some", b"content")
    assert seen[0] == right(header, b"content")
    assert far.get("index/some") == b"content"


def test_what_no_server_verifies_is_read_back(far: S3Store, proxy: FaultyProxy) -> None:
    proxy.verifies = ()
    assert far.integrity() is Integrity.READ_BACK

    far.put("index/some", b"content")

    assert [told.split()[0] for told in proxy.requests[-2:]] == ["PUT", "GET"]


def test_a_writer_finds_out_before_it_stores_anything(
    far: S3Store, store: S3Store, proxy: FaultyProxy, location: S3Location, credentials: S3Credentials
) -> None:
    Repository.init(store, PASSWORD)
    proxy.verifies = ()
    repository = Repository.open(far, PASSWORD)
    assert far.integrity_found is None

    with repository.writer() as writer:
        assert far.integrity_found is Integrity.READ_BACK
        writer.save_blob(BlobType.DATA, b"content")
        before = len(proxy.requests)

    packs = [told.split()[0] for told in proxy.requests[before:] if "/data/" in told]
    assert packs == ["PUT", "GET"]
    assert not [name for name, _ in store.list("backstay-probe-")]


def test_a_writer_goes_on_where_it_may_not_probe(far: S3Store, store: S3Store, proxy: FaultyProxy) -> None:
    Repository.init(store, PASSWORD)
    repository = Repository.open(far, PASSWORD)
    proxy.faults.append(Fault.answer(403, "AccessDenied", path="backstay-probe-"))

    with repository.writer() as writer:
        writer.save_blob(BlobType.DATA, b"content")

    assert far.integrity_found is None
    assert len(list(store.list("data/"))) == 1


def test_a_server_that_does_not_implement_checksums_gets_none(far: S3Store, proxy: FaultyProxy) -> None:
    seen = []
    proxy.look = lambda headers: seen.append(headers.get("x-amz-checksum-sha256"))
    proxy.faults.append(Fault.answer(501, "NotImplemented", path="index"))

    far.put("index/some", b"content")
    far.put("index/other", b"content")

    assert seen == [None, None]


# --- limits -----------------------------------------------------------------------------------------------------------


def test_limited_transfers_carry_the_same_bytes(location: S3Location, credentials: S3Credentials) -> None:
    limited = S3Store(location, credentials, upload_limit=20 << 20, download_limit=20 << 20)

    limited.put("data/00/pack", CONTENT)

    assert limited.get("data/00/pack") == CONTENT
    assert limited.get("data/00/pack", 5, 1 << 20) == CONTENT[5 : 5 + (1 << 20)]


def test_names_come_in_order_over_pages(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PAGE", 7)
    for number in range(30):
        store.put(f"data/00/{number:02}", b"content")

    assert list(store.list("data/")) == [(f"data/00/{number:02}", 7) for number in range(30)]


def test_processes_that_fork_do_not_share_connections(store: S3Store) -> None:
    for name in ("parent", "child"):
        store.put(f"index/{name}", name.encode())  # over a connection that stays open

    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if all(store.get("index/child") == b"child" for _ in range(200)) else 1)
        finally:
            os._exit(2)
    read = {store.get("index/parent") for _ in range(200)}

    assert os.waitpid(child, 0)[1] == 0
    assert read == {b"parent"}
