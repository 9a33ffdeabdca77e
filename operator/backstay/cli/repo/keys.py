"""`key`: the passwords that open a repository."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import click

from backstay.cli.repo.environment import Settings, new_password, refuse, username
from backstay.cli.repo.output import Output, table
from backstay.cli.repo.verb import VerbGroup, verb, with_global_options

if TYPE_CHECKING:
    from backstay.repository.repository import Repository


@click.group("key", cls=VerbGroup)
def key() -> None:
    """List, add, remove and change the passwords of a repository.

    Each password has a key file of its own, and opens everything. Removing one ends what it opens from now on; it takes
    nothing back from who has used it.
    """


with_global_options(key)


def _open(settings: Settings) -> Repository:
    from backstay.cli.repo.session import open_repository

    if settings.as_of is not None:
        refuse("changing keys with --as-of: the past can only be read; leave the option out")
    return open_repository(settings)


def _who(user: str | None, host: str | None) -> dict[str, str]:
    return {"username": user or username(), "hostname": host or socket.gethostname()}


@verb("list")
def list_(settings: Settings, output: Output) -> None:
    """List the keys; the one in use has a star."""
    from backstay.cli.repo.session import open_repository
    from backstay.repository import keys

    repository = open_repository(settings)
    found = sorted(keys.infos(repository.store), key=lambda info: info.created)
    output.record(
        [
            {
                "current": info.id == repository.key_id,
                "id": info.id,
                "userName": info.username,
                "hostName": info.hostname,
                "created": info.created.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            }
            for info in found
        ]
    )
    rows = [
        [
            ("*" if info.id == repository.key_id else " ") + info.id[:8],
            info.username,
            info.hostname,
            info.created.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        ]
        for info in found
    ]
    for line in table([" ID", "User", "Host", "Created"], rows):
        output.say(line)


_password_options = (
    click.option("--new-password-file", metavar="FILE", default="", help="File with the new password."),
    click.option("--new-insecure-no-password", is_flag=True, help="The new password is empty."),
    click.option("--user", help="Name to be shown in the list (default: this user)."),
    click.option("--host", help="Host to be shown in the list (default: this host)."),
)


@verb("add")
def add(
    settings: Settings,
    output: Output,
    new_password_file: str,
    new_insecure_no_password: bool,
    user: str | None,
    host: str | None,
) -> None:
    """Add a password. It is asked for on a terminal, or taken from a file or RESTIC_NEW_PASSWORD."""
    from backstay.repository import keys

    repository = _open(settings)
    password = new_password(settings, new_password_file, empty=new_insecure_no_password)
    key_id = keys.add(repository.store, password, repository.codec.key, **_who(user, host))
    keys.prove(repository.store, key_id, password)
    output.record({"message_type": "summary", "id": key_id})
    output.say(f"saved new key with ID {key_id}")


@verb("passwd")
def passwd(
    settings: Settings,
    output: Output,
    new_password_file: str,
    new_insecure_no_password: bool,
    user: str | None,
    host: str | None,
) -> None:
    """Change the password: the key in use is replaced by one for the new password."""
    from backstay.repository import keys

    repository = _open(settings)
    password = new_password(settings, new_password_file, empty=new_insecure_no_password)
    key_id = keys.change(
        repository.store, password, repository.codec.key, current=repository.key_id, **_who(user, host)
    )
    output.record({"message_type": "summary", "id": key_id, "removed": repository.key_id})
    output.say(f"saved new key with ID {key_id}, and removed {repository.key_id[:8]}")


@verb("remove")
@click.argument("name", metavar="ID")
def remove(settings: Settings, output: Output, name: str) -> None:
    """Remove a password by its key's ID. The key in use and the last one stay."""
    from backstay.repository import keys

    repository = _open(settings)
    key_id = keys.find(repository.store, name)
    keys.remove(repository.store, key_id, current=repository.key_id)
    output.record({"message_type": "summary", "removed": key_id})
    output.say(f"removed key {key_id}")


for _command in (add, passwd):
    for _option in _password_options:
        _option(_command)
for _command in (list_, add, remove, passwd):
    key.add_command(_command)
