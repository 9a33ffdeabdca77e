"""`python -m tests.demo`: the story from an empty cluster to two restored shops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.demo import bucket, image, shop, stock_restic
from tests.demo.bucket import Bucket
from tests.demo.errors import DemoError
from tests.demo.proof import Protected, customers, judged, prove_bucket, prove_shop, testimony
from tests.demo.protection import (
    PASSWORD,
    make_secrets,
    make_storage,
    restore,
    wait_catalogued,
    wait_scheduled,
    watch_backup,
)
from tests.demo.story import Story
from tests.demo.terminal import condition, run, show, wait

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER = [sys.executable, "-m", "tests.cluster"]
SHOP, COPY = "shop", "shop-test"
IN_CLUSTER = "--in-cluster"
"""Followed by the durations so far as JSON: the second half runs in the cluster's network namespace."""


def main(arguments: list[str]) -> int:
    """Run the demo; 0 when everything was proven."""
    os.chdir(REPOSITORY)
    story = Story()
    try:
        if arguments[:1] == [IN_CLUSTER]:
            story.continue_after(json.loads(arguments[1]))
            tell(story)
            return 0
        prepare(story)
        demo = [sys.executable, "-m", "tests.demo", IN_CLUSTER, json.dumps(story.durations)]
        environment = {**os.environ, **reader_credentials()}
        return subprocess.run([*CLUSTER, "exec", "--", *demo], env=environment, check=False).returncode
    except DemoError as error:
        fail(story, error)
        return 1
    except KeyboardInterrupt:
        return 130


def prepare(story: Story) -> None:
    """Start the cluster, build the shop's image, install Backstay."""
    with story.step("A Kubernetes cluster with CSI volumes, snapshots and an S3 server"):
        on_host(story, "up")
    with story.step("The shop's image: PostgreSQL and a small web, from Debian packages"):
        on_host(story, "load", os.fspath(image.build()))
        stock_restic.binary()  # fetched here, because the cluster's network has no way out
    with story.step("Backstay is installed with its Helm chart"):
        on_host(story, "install")


def on_host(story: Story, *arguments: str) -> None:
    """Run one command of the test cluster; its own output tells the progress."""
    story.command(f"python3 -m tests.cluster {' '.join(arguments)}")
    if subprocess.run([*CLUSTER, *arguments], check=False).returncode:
        raise DemoError(f"`python3 -m tests.cluster {arguments[0]}` failed: its message is above")


def reader_credentials() -> dict[str, str]:
    """Of an identity that the S3 server lets read and nothing else, beside the usual ones of ``tests.cluster exec``."""
    keys = Cluster().s3.reader_keys
    return {"READER_ACCESS_KEY_ID": keys.access_key, "READER_SECRET_ACCESS_KEY": keys.secret_key}


def tell(story: Story) -> None:
    """Everything that happens in the cluster."""
    clean_up(story)
    deploy(story)
    protected = back_up(story)
    destroy(story, protected)
    bring_back(story, protected)
    copy_beside(story, protected)
    read_with_restic(story, protected)
    finish(story, protected)


def clean_up(story: Story) -> None:
    """Remove what an earlier demo left, so that this one proves itself and not its predecessor."""
    with story.step("A clean start: no shop, an empty bucket"):
        show(story, f"kubectl delete namespace {SHOP} {COPY} --ignore-not-found")
        deleted = Bucket().make_empty()
        story.say(f"bucket {bucket.NAME}: {deleted} objects of an earlier demo deleted")


def deploy(story: Story) -> None:
    """The application, as its owners would deploy it."""
    with story.step("A shop opens: PostgreSQL with 100,000 orders in a volume, two web pods, and what belongs to them"):
        shop.open_namespace(story, SHOP)
        show(story, f"kubectl -n {SHOP} apply -f tests/demo/shop")
        shop.wait_ready(SHOP, seconds=180)
        answer = shop.ask(SHOP)
        story.say(f"the shop's page says: {answer.headline}")
        if answer.count != shop.FIRST_ORDERS:
            raise DemoError(f"the shop should open with {shop.FIRST_ORDERS} orders and has {answer.count}")


def back_up(story: Story) -> Protected:
    """A policy is applied and its schedule comes due, all under a shop that sells; then what must be in the Backup."""
    with tempfile.TemporaryDirectory(prefix="backstay-demo-") as folder:
        record = Path(folder) / "orders"
        with customers(SHOP, record):
            protect(story)
            with story.step("Customers keep ordering until the schedule comes due"):
                name = wait_scheduled(story, SHOP, "shop")
                suspend = """'{"spec":{"suspend":true}}'"""
                show(
                    story, f"kubectl -n {SHOP} patch backuppolicy shop --type=merge -p {suspend}   # one is enough here"
                )
            with story.step(f"Backup {name}, while they go on ordering"):
                backup = watch_backup(story, SHOP, name)
                show(story, f"kubectl -n {SHOP} get backup {name} -o wide")
                wait("orders from after the cut", lambda: judged(backup, record).cannot_be_there, seconds=30)
        with story.step("What must be in it, by the record that the customers kept outside of the cluster"):
            return testimony(story, SHOP, backup, record)


def protect(story: Story) -> None:
    """Backups are switched on: two Secrets, a storage, a policy."""
    with story.step("The shop is protected: a bucket, a password, and a policy that names the shop by its label"):
        make_secrets(story, SHOP)
        make_storage(story, SHOP, "tests/demo/backup/storage.yaml")
        show(story, "cat tests/demo/backup/policy.yaml")
        show(story, f"kubectl -n {SHOP} apply -f tests/demo/backup/policy.yaml")


def destroy(story: Story, protected: Protected) -> None:
    """The disaster, and that it does not reach the bucket."""
    with story.step("Disaster: the namespace is deleted, and the volume with it"):
        show(story, f"kubectl delete namespace {SHOP}")
        wait("the volume to be gone", lambda: SHOP not in namespaces_of_volumes(), seconds=60)
        prove_bucket(story, protected)


def namespaces_of_volumes() -> list[str]:
    """The namespaces whose claims hold a persistent volume."""
    return run(["kubectl", "get", "persistentvolumes", "-o", "jsonpath={.items[*].spec.claimRef.namespace}"]).split()


def bring_back(story: Story, protected: Protected) -> None:
    """The same namespace, from nothing but the storage and its Secrets."""
    with story.step(f"A new namespace {SHOP} with nothing but the bucket's Secrets and the BackupStorage"):
        shop.open_namespace(story, SHOP)
        make_secrets(story, SHOP)
        make_storage(story, SHOP, "tests/demo/backup/storage.yaml")
        backup = wait_catalogued(story, SHOP, protected.backup["status"]["snapshot"])
        show(story, f"kubectl -n {SHOP} get backups")
    with story.step(f"The shop is restored into {SHOP}"):
        show(story, "cat tests/demo/backup/restore.yaml")
        tell_counts(story, restore(story, SHOP, backup))
        shop.wait_ready(SHOP, seconds=120)
        prove_shop(story, SHOP, protected)


def copy_beside(story: Story, protected: Protected) -> None:
    """A copy for tests, in a namespace that only reads the bucket."""
    with story.step(f"A copy beside it in {COPY}, from the same bucket, with credentials that can only read it"):
        shop.open_namespace(story, COPY)
        make_secrets(story, COPY, credentials="READER")
        make_storage(story, COPY, "tests/demo/backup/storage-read-only.yaml")
        backup = wait_catalogued(story, COPY, protected.backup["status"]["snapshot"])
        tell_counts(story, restore(story, COPY, backup))
        shop.wait_ready(COPY, seconds=120)
        prove_shop(story, COPY, protected)


def tell_counts(story: Story, finished: dict[str, Any]) -> None:
    """How many objects a Restore created, kept and failed to create."""
    counts = finished["status"].get("resources", {})
    story.say(
        ", ".join(f"{counts[word]} {word}" for word in ("planned", "created", "kept", "failed") if word in counts)
    )


def read_with_restic(story: Story, protected: Protected) -> None:
    """The way out: no Backstay, only restic, the password and the bucket."""
    with story.step("No lock-in: stock restic reads the bucket with nothing but the password"):
        restore_point = stock_restic.read(story)
        if restore_point["backupUid"] != protected.backup["metadata"]["uid"]:
            raise DemoError(f"restic found another restore point: {restore_point['backup']}")
        story.say(f"restore-point.json: {restore_point['backup']}, {len(restore_point['objects'])} objects")


def finish(story: Story, protected: Protected) -> None:
    """The summary and where to go from here."""
    orders = f"{protected.answer.count:,}"
    story.summary(
        [
            ("orders from before the cut, in the restored shop and in its copy", f"{orders} of {orders}"),
            ("checksum over them, before the disaster and after each restore", protected.answer.md5),
            ("the shop's page, before the disaster and after each restore", "the same"),
            ("objects in the bucket, before and after the disaster", f"{len(protected.objects)}, unchanged"),
            ("the Backup's own words", condition(protected.backup, "Succeeded").get("message", "")),
        ]
    )
    print(
        f"""
Next
  python3 -m tests.cluster exec -- bash     a shell in the cluster's network, with kubectl; in it:
    kubectl get bp,bk,rst,bst -A            policies, Backups, Restores and storages
    kubectl -n {SHOP} describe restore shop   what was done, with events
    kubectl -n {SHOP} patch bp shop --type=merge -p '{{"spec":{{"suspend":false}}}}'   back up every minute again
    RESTIC_PASSWORD={PASSWORD} {stock_restic.binary()} -r {stock_restic.ADDRESS} snapshots
  make cluster-down                         stop everything and leave no trace
  docs/quickstart.md                        Backstay on a cluster of your own"""
    )


def fail(story: Story, error: DemoError) -> None:
    """Say what went wrong, and where to look."""
    sys.stdout.flush()
    print(f"\nFAILED in step {story.number} ({story.title}): {error}", file=sys.stderr)
    if error.details:
        print(f"\n{error.details}", file=sys.stderr)
    print(
        """
Where to look
  python3 -m tests.cluster exec -- kubectl -n backstay-system logs deployment/backstay-operator   the operator's log
  python3 -m tests.cluster status                                                        processes and their logs
The cluster is still up; `make demo` begins anew, `make cluster-down` removes it.""",
        file=sys.stderr,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
