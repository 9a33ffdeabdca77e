"""What the demo proves: the orders that were confirmed before the cut are back, and the shop answers as it did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from subprocess import Popen
from sys import executable
from typing import Any

from tests.demo import bucket, ledger, shop
from tests.demo.bucket import Bucket
from tests.demo.errors import DemoError
from tests.demo.story import Story
from tests.demo.terminal import wait

FIRST_RECORDED = 100
"""Orders that are confirmed before anything else happens: two seconds and more."""


@dataclass(frozen=True)
class Protected:
    """A finished Backup, and what must come back out of it."""

    backup: dict[str, Any]
    verdict: ledger.Verdict
    answer: shop.Answer
    objects: dict[str, tuple[int, str]]


@contextmanager
def customers(namespace: str, record: Path) -> Iterator[None]:
    """Orders are placed, and recorded outside of the cluster, while the body runs; it begins after some dozens.

    Raises:
        DemoError: none could be placed, or they stopped before the body did.
    """
    record.touch()
    log = record.with_suffix(".log")
    with log.open("w") as errors:
        writer = Popen([executable, "-m", "tests.demo.writer", shop.address(namespace), str(record)], stderr=errors)
        try:
            # So many that some precede the cut by the ledger's margin, however soon that comes.
            wait("the first confirmed orders", lambda: len(ledger.load(record)) >= FIRST_RECORDED, seconds=60)
            yield
            if writer.poll() is not None:
                raise DemoError("the customers stopped ordering", log.read_text())
        finally:
            writer.terminate()
            writer.wait(timeout=10)


def judged(backup: dict[str, Any], record: Path) -> ledger.Verdict:
    """The customers' record, held against the moment of the Backup's cut."""
    return ledger.judge(ledger.load(record), cut_of(backup).timestamp())


def cut_of(backup: dict[str, Any]) -> datetime:
    """The moment that the Backup says its volumes were cut at, in whole seconds."""
    return datetime.fromisoformat(backup["status"]["cutTime"])


def testimony(story: Story, namespace: str, backup: dict[str, Any], record: Path) -> Protected:
    """Compare the customers' record with the Backup's cut, and keep what the shop itself says about those orders.

    Raises:
        DemoError: the record proves nothing, or contradicts the shop.
    """
    cut, verdict = cut_of(backup), judged(backup, record)
    if not verdict.must_be_there or not verdict.cannot_be_there:
        raise DemoError(f"no order was placed on one side of the cut at {cut}: nothing would be proven")
    answer = shop.ask(namespace, verdict.last)
    read = ", ".join(f"{v['claim']}: {v.get('method')}, {v.get('consistency')}" for v in backup["status"]["volumes"])
    story.say(f"the volume was cut at {cut:%H:%M:%S} UTC ({read})")
    story.say(f"orders confirmed before: {len(verdict.must_be_there)}, the last is number {verdict.last}")
    story.say(f"orders placed after:     {len(verdict.cannot_be_there)}, the first is {verdict.cannot_be_there[0]}")
    story.say(f"the shop now:            {shop.ask(namespace).headline}")
    story.say(f"the shop as of {verdict.last}:   {answer.headline}, md5 {answer.md5}")
    if answer.count < shop.FIRST_ORDERS + len(verdict.must_be_there):
        raise DemoError(f"the shop itself has only {answer.count} orders up to {verdict.last}")
    objects = Bucket().settled()
    story.say(f"the bucket {bucket.NAME}, fingerprint {bucket.fingerprint(objects)}:")
    story.say(bucket.table(objects))
    return Protected(backup, verdict, answer, objects)


def prove_bucket(story: Story, protected: Protected) -> None:
    """Nothing was added to, removed from or changed in the bucket.

    Raises:
        DemoError: something was.
    """
    left = Bucket().objects()
    if left != protected.objects:
        raise DemoError(f"the bucket changed: {sorted(left.items() ^ protected.objects.items())}")
    story.say(f"the bucket is as it was: {len(left)} objects, fingerprint {bucket.fingerprint(left)}")


def prove_shop(story: Story, namespace: str, protected: Protected) -> None:
    """The restored shop has every order from before the cut, none from after it, and answers as it did.

    Raises:
        DemoError: it does not.
    """
    verdict, before = protected.verdict, protected.answer
    after, everything = shop.ask(namespace, verdict.last), shop.ask(namespace)
    story.say(f"the restored shop:       {everything.headline}")
    story.say(f"the shop as of {verdict.last}:   {after.headline}, md5 {after.md5}")
    if (after.count, after.md5) != (before.count, before.md5):
        raise DemoError(f"orders differ: {before.count} with md5 {before.md5}, restored {after.count} with {after.md5}")
    if after.page != before.page:
        raise DemoError(f"the web answers otherwise: {before.page!r}, restored: {after.page!r}")
    if everything.last >= verdict.cannot_be_there[0]:
        raise DemoError(f"order {everything.last} is from after the cut: the volume was not cut at one moment")
    story.say("every order confirmed before the cut is there; page and checksum are the same")
