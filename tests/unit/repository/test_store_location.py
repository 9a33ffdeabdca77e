"""restic's words for where a repository lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.repository.errors import StoreRefused
from backstay.repository.stores.local import LocalLocation, LocalStore
from backstay.repository.stores.location import open_store, parse
from backstay.repository.stores.object_lock import Retention
from backstay.repository.stores.s3 import S3Location, S3Store


@pytest.mark.parametrize(
    ("url", "location"),
    [
        (
            "s3:https://s3.example.com/backups/prod/shop",
            S3Location("backups", "prod/shop", "https://s3.example.com", force_path_style=True),
        ),
        ("s3:http://127.0.0.1:9000/backups", S3Location("backups", "", "http://127.0.0.1:9000", force_path_style=True)),
        ("s3:http://[::1]:9000/backups/", S3Location("backups", "", "http://[::1]:9000", force_path_style=True)),
        ("s3:host.example/backups/a", S3Location("backups", "a", "https://host.example", force_path_style=True)),
        ("s3://host.example/backups//a/", S3Location("backups", "a", "https://host.example", force_path_style=True)),
        ("s3:s3.amazonaws.com/backups/a", S3Location("backups", "a")),
        ("s3:s3.eu-west-1.amazonaws.com/backups", S3Location("backups", "", "", "eu-west-1")),
        ("s3:https://s3-eu-west-1.amazonaws.com/backups", S3Location("backups", "", "", "eu-west-1")),
        ("local:/srv/backups", LocalLocation("/srv/backups")),
        ("local:with:colon", LocalLocation("with:colon")),
        ("/srv/backups", LocalLocation("/srv/backups")),
        ("/srv/with:colon", LocalLocation("/srv/with:colon")),
        ("relative/path", LocalLocation("relative/path")),
        ("./with:colon", LocalLocation("./with:colon")),
    ],
)
def test_a_place_is_found_where_restic_finds_it(url: str, location: S3Location | LocalLocation) -> None:
    assert parse(url) == location


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "no place is given"),
        ("local:", "no path"),
        ("s3:", "names no server and bucket"),
        ("s3:https://s3.example.com", "names no server and bucket"),
        ("s3:https://s3.example.com/", "names no server and bucket"),
        ("s3:https:///backups", "names no server and bucket"),
        ("s3:https://s3.example.com:port/backups", "no address"),
        ("sftp:user@host:/srv", "'sftp', which is not supported"),
        ("rest:https://host/", "'rest', which is not supported"),
        ("b2:bucket:path", "'b2', which is not supported"),
        ("rclone:remote:path", "'rclone', which is not supported"),
        ("azure:container:/", "'azure', which is not supported"),
        ("ftp://host/path", "of no known kind"),
    ],
)
def test_a_place_that_is_none_is_told_with_what_to_write(url: str, told: str) -> None:
    with pytest.raises(StoreRefused, match=told):
        parse(url)


def test_a_password_in_an_address_is_not_told_on() -> None:
    with pytest.raises(StoreRefused) as caught:
        parse("rest:https://user:hunter2@host/")

    assert "hunter2" not in str(caught.value)


def test_the_region_that_is_given_counts() -> None:
    assert parse("s3:s3.amazonaws.com/backups", region="eu-central-1") == S3Location("backups", "", "", "eu-central-1")


def test_each_place_has_its_store(tmp_path: Path) -> None:
    assert isinstance(open_store(parse("s3:http://127.0.0.1:9/b"), None), S3Store)
    assert isinstance(open_store(parse(str(tmp_path)), None), LocalStore)


def test_a_directory_retains_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="cannot retain"):
        open_store(parse(str(tmp_path)), None, retention=Retention("Governance", 3))
