"""`init`: a new repository."""

from __future__ import annotations

import socket

from backstay.cli.repo import environment
from backstay.cli.repo.environment import Settings
from backstay.cli.repo.output import Output
from backstay.cli.repo.verb import verb


@verb("init")
def init(settings: Settings, output: Output) -> None:
    """Create a repository.

    Keep its password in a second place: without it nobody can read what is stored.
    """
    password = environment.password(settings, confirm=True)
    from backstay.repository.repository import Repository

    repository = Repository.init(
        environment.open_store(settings), password, username=environment.username(), hostname=socket.gethostname()
    )
    where = environment.url(settings)
    output.record({"message_type": "initialized", "id": repository.id, "repository": where})
    output.note(f"created repository {repository.id[:10]} at {where}")
    output.note("")
    output.note("Keep the password elsewhere too: without it, nobody can read what is stored.")
