"""The operator as a process: kopf's watches on one side, the work queue on the other, and the Lease over both.

kopf only names what has changed. No handler of a kind that makes it write is used, so that it sets no finalizer, no
annotation and no status on any object.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import kopf

from backstay.api.meta import Meta, parse
from backstay.capture.reconcile import reconcile as reconcile_backup
from backstay.kube.client import Client
from backstay.kube.errors import ApiError, NotFoundError
from backstay.kube.event import regarding
from backstay.kube.freshness import Freshness
from backstay.kube.lease import Lease, LostLeaseError
from backstay.kube.resource import BACKUPS, NAMESPACES, POLICIES, RESTORES, STORAGES, Resource
from backstay.kube.runtime import Runtime, Settings, read_cluster_id
from backstay.kube.transport import tolerate
from backstay.kube.workqueue import Key, WorkQueue
from backstay.policy.reconcile import reconcile as reconcile_policy
from backstay.restore.reconcile import reconcile as reconcile_restore
from backstay.storage.reconcile import reconcile as reconcile_storage

logger = logging.getLogger(__name__)

Reconcile = Callable[[Runtime, str, str], float | None]

KINDS: dict[Resource, Reconcile] = {
    STORAGES: reconcile_storage,
    POLICIES: reconcile_policy,
    BACKUPS: reconcile_backup,
    RESTORES: reconcile_restore,
}

#: Seconds between two lists of everything.
RESYNC_SECONDS = 60.0
#: Seconds that running reconciles get to end before the process does.
STOP_SECONDS = 15.0
#: A running Backup is written every second or two; its policy wants to know only now and then.
POLICY_PAUSE = 3.0


class Operator:
    """One operator process, from its start to the release of its Lease."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self._settings = settings
        self._client = client
        self._runtime: Runtime | None = None
        self._lease = Lease(client, settings.namespace, settings.identity)
        self._queue = WorkQueue(self._reconcile, settings.workers)
        # Workers of their own: an S3 server that does not answer holds one up for ten seconds, and whoever may write
        # storages could so stop the backups of others.
        self._storages = WorkQueue(self._reconcile, max(2, settings.workers // 2), name="storage")
        self._freshness = Freshness()
        self._stopped = threading.Event()
        self._resynced = time.monotonic()
        self._failure: str = ""

    def run(self) -> int:
        """Run until `stop` is called or nothing works any more, and give the exit status.

        kopf has a thread of its own, since its way of ending can take minutes; the end of this process must not.
        """
        leader = threading.Thread(target=self._lead, name="leader", daemon=True)
        watches = threading.Thread(target=self._watch, name="watches", daemon=True)
        leader.start()
        watches.start()
        self._stopped.wait()
        leader.join(STOP_SECONDS / 3)
        # A reconcile that still runs must not meet a successor at work: then the Lease has to run out by itself.
        deadline = time.monotonic() + STOP_SECONDS
        ended = [queue.stop(max(0.0, deadline - time.monotonic())) for queue in (self._queue, self._storages)]
        if all(ended) and self._runtime is not None:
            self._lease.release()
        if self._failure:
            logger.critical("the operator ends: %s", self._failure)
        return 1 if self._failure else 0

    def stop(self) -> None:
        """End soon; what is under way may end first."""
        self._stopped.set()

    def _watch(self) -> None:
        """Hear of changes for as long as the process runs, also while another one holds the Lease."""
        try:
            kopf.run(
                registry=self._registry(),
                settings=_kopf_settings(),
                # Without one, kopf asks who the user is, and in a container that user has no name.
                identity=cast("Any", self._settings.identity),
                standalone=True,
                clusterwide=True,
                liveness_endpoint=f"http://0.0.0.0:{self._settings.liveness_port}/healthz",
                stop_flag=self._stopped,
            )
            if not self._stopped.is_set():
                self._failure = self._failure or "the watches have ended"
        except Exception as error:
            logger.exception("the watches cannot go on")
            self._failure = self._failure or f"the watches cannot go on: {error}"
        self._stopped.set()

    def _lead(self) -> None:
        """Wait for the Lease, work as long as it is held, and list everything now and then."""
        try:
            if not self._lease.acquire(self._stopped):
                return
            self._lease.keep()
            self._runtime = Runtime(
                self._client, self._settings, read_cluster_id(self._client), leading=self._lease.leading
            )
            self._queue.start()
            self._storages.start()
            while not self._stopped.is_set():
                self._resync()
                self._stopped.wait(RESYNC_SECONDS)
        except Exception as error:
            logger.exception("the operator cannot go on")
            self._failure = str(error)
            self._stopped.set()

    def _resync(self) -> None:
        """Look at every object, whatever the watches said, and hold them against what they said."""
        for resource in KINDS:
            now = time.monotonic()
            try:
                objects = self._client.list(resource)
            except NotFoundError:
                logger.warning("kind %s is not installed in the cluster; apply Backstay's CRDs", resource.kind)
                continue
            except ApiError as error:
                logger.warning("resync of %s put off: %s", resource.kind, error)
                continue
            self._freshness.listed(resource.kind, objects, now)
            for obj in objects:
                self._add(Key(resource.kind, obj["metadata"]["namespace"], obj["metadata"]["name"]))
        self._resynced = time.monotonic()

    def _reconcile(self, key: Key) -> float | None:
        assert self._runtime is not None, "the queue is started after the runtime is made"
        self._runtime.leading()
        if key.kind == NAMESPACES.kind:
            self._enrol(key.name)
            return None
        resource, reconcile = next(item for item in KINDS.items() if item[0].kind == key.kind)
        try:
            return reconcile(self._runtime, key.namespace, key.name)
        except (ApiError, LostLeaseError):
            raise
        except Exception as error:
            tell_failure(self._client, resource, key, error)
            raise

    def _add(self, key: Key, *, after: float = 0.0) -> None:
        (self._storages if key.kind == STORAGES.kind else self._queue).add_after(key, after)

    def _enrol(self, namespace: str) -> None:
        """A namespace changed: its storages and policies may be enrolled now, or no longer."""
        for resource in (STORAGES, POLICIES):
            for obj in self._client.list(resource, namespace):
                self._add(Key(resource.kind, namespace, obj["metadata"]["name"]))

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        for resource in KINDS:
            kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(self._on_object)
        kopf.on.event(NAMESPACES.version, NAMESPACES.plural, registry=registry)(self._on_namespace)
        kopf.on.login(registry=registry)(_login)
        kopf.on.probe(id="watches", registry=registry)(self._on_probe)
        return registry

    async def _on_object(self, event: Any, **_: Any) -> None:
        obj = event["object"]
        metadata = obj["metadata"]
        self._freshness.delivered(obj, deleted=event["type"] == "DELETED")
        self._add(Key(obj["kind"], metadata["namespace"], metadata["name"]))
        policy = ((obj.get("spec") or {}).get("capture") or {}).get("policy")
        if obj["kind"] == BACKUPS.kind and policy:
            self._add(Key(POLICIES.kind, metadata["namespace"], policy), after=POLICY_PAUSE)

    async def _on_namespace(self, event: Any, **_: Any) -> None:
        # The namespaces that are there at the start need no look of their own: the first resync covers them.
        if event["type"] == "MODIFIED":
            self._add(Key(NAMESPACES.kind, "", event["object"]["metadata"]["name"]))

    async def _on_probe(self, **_: Any) -> str:
        """An error here makes the liveness endpoint answer with status 500, so that the kubelet starts us anew."""
        overdue = self._freshness.overdue(time.monotonic())
        if overdue:
            logger.error("the watches have stopped: not delivered are %s", ", ".join(overdue[:5]))
            raise kopf.PermanentError(f"the watches have stopped: not delivered are {', '.join(overdue[:5])}")
        if self._runtime is not None and time.monotonic() - self._resynced > 5 * RESYNC_SECONDS:
            raise kopf.PermanentError("the periodic list of all objects has stopped")
        return "ok"


def tell_failure(client: Client, resource: Resource, key: Key, error: Exception) -> None:
    """An error that no reconcile foresaw, as an event: its object would otherwise just stand still for its user.

    The queue tries again in any case, and the log has the whole story.
    """
    try:
        found = client.find(resource, key.name, key.namespace)
    except ApiError as unread:
        logger.warning("no event tells of the failure of %s: %s", key, unread)
        return
    if found is not None:
        message = f"cannot be handled: {type(error).__name__}: {error}; tried again; the operator's log has the details"
        client.event(regarding(resource, parse(Meta, found["metadata"])), "Warning", "InternalError", message, "Look")


class _Connection(kopf.ConnectionInfo):
    """kopf's connection, as tolerant of the cluster's certificates as our own."""

    def as_ssl_context(self) -> ssl.SSLContext:
        return tolerate(super().as_ssl_context())


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """The credentials that our own client uses; kopf asks again when the server does not take them any more."""
    found = kopf.login_via_client(**kwargs)
    return None if found is None else _Connection(**{f.name: getattr(found, f.name) for f in dataclasses.fields(found)})


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.process.ultimate_exiting_timeout = STOP_SECONDS
    # A watch that the server does not end by itself is renewed, in case the connection died without a word.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 60
    return settings


def run(settings: Settings) -> int:
    """Start the operator and give its exit status. Called in the main thread."""
    operator = Operator(settings, Client.connect())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: operator.stop())
    logger.info("operator %s starts", settings.identity)
    status = operator.run()
    logging.shutdown()
    # Not by way of the interpreter's end: a reconcile that did not stop in time must not go on meanwhile.
    os._exit(status)
