"""A command's way into the repository: its crew, the repository itself, and the lock under which it works.

The order matters. The engine's modules are imported first, so that a crew's processes share them; then the crew is
forked, while there is one thread and no S3 client; only then is the store opened.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from backstay.cli.repo import environment
from backstay.cli.repo.environment import Settings, refuse
from backstay.cli.repo.output import Output

if TYPE_CHECKING:
    from backstay.repository.archive.writer import Writer
    from backstay.repository.crew import Crew
    from backstay.repository.repository import Repository


def open_repository(settings: Settings) -> Repository:
    """The repository that the options name, for a command that needs no crew."""
    password = _password(settings)
    from backstay.repository.repository import Repository

    return Repository.open(environment.open_store(settings), password)


def _password(settings: Settings) -> str:
    environment.url(settings)  # nobody is asked for the password of nothing
    return environment.password(settings)


@contextmanager
def open_with_crew(settings: Settings, *, dry_run: bool = False) -> Iterator[tuple[Repository, Crew]]:
    """The repository and the processes that share the work on it. `dry_run`: nothing that is stored gets there."""
    password = _password(settings)
    gc.disable()  # what the start makes is there to stay, so looking for cycles in it is time lost
    from backstay.repository.crew import Crew
    from backstay.repository.repository import Repository

    with Crew() as crew:
        store = environment.open_store(settings)
        if dry_run:
            from backstay.cli.repo.dry_run import DryStore

            store = DryStore(store)
        repository = Repository.open(store, password)
        gc.freeze()
        gc.enable()
        yield repository, crew


@contextmanager
def reading(repository: Repository, settings: Settings, output: Output) -> Iterator[None]:
    """Hold a shared lock, so that nobody prunes what is being read; none with --no-lock, or in the past."""
    if settings.lockless:
        yield
        return
    with repository.lock(wait=settings.retry_lock, on_wait=output.note):
        yield


def writing(repository: Repository, settings: Settings, output: Output) -> Writer:
    """A block in which to write."""
    if settings.as_of is not None:
        refuse("writing with --as-of: the past can only be read; leave the option out")
    return repository.writer(wait=settings.retry_lock, on_wait=output.note)
