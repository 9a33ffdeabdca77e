"""Which repository, which password, which credentials: from options first, then from restic's environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from backstay.repository.errors import RepositoryError, WrongPassword

if TYPE_CHECKING:
    from backstay.repository.stores.object_lock import Retention
    from backstay.repository.stores.s3 import S3Credentials
    from backstay.repository.stores.store import Store


class InvalidSetting(RepositoryError):  # noqa: N818  (named as the engine's errors are)
    """An option or environment variable that cannot be used; the message says which and what it should be."""

    reason = "InvalidSetting"
    permanent = True


@dataclass(frozen=True)
class Settings:
    """The options that all commands have, as they were given.

    `retry_lock`: seconds. `limit_upload`, `limit_download`: KiB/s. `as_of`: UTC. `prefix` stands before the names of
    environment variables: FROM for the repository that is copied from.
    """

    repo: str = ""
    repository_file: str = ""
    password_file: str = ""
    password_command: str = ""
    insecure_no_password: bool = False
    json: bool = False
    quiet: bool = False
    verbose: int = 0
    no_lock: bool = False
    retry_lock: float = 0.0
    limit_upload: int = 0
    limit_download: int = 0
    cacert: str = ""
    as_of: datetime | None = None
    object_lock: str = ""
    extended: tuple[str, ...] = ()
    prefix: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def lockless(self) -> bool:
        """Whether reading is to leave no lock: nobody can write into the past, nor does it change."""
        return self.no_lock or self.as_of is not None

    def variable(self, name: str) -> str:
        """One of restic's variables, without `RESTIC_`."""
        middle = f"{self.prefix}_" if self.prefix else ""
        return self.environment.get(f"RESTIC_{middle}{name}", "")

    def option(self, name: str) -> str:
        """How an option is written, to be named in an error."""
        return f"--{self.prefix.lower()}-{name}" if self.prefix else f"--{name}"


def refuse(message: str) -> NoReturn:
    """End with an error about how the command was called."""
    raise InvalidSetting(message)


def url(settings: Settings) -> str:
    """Where the repository is. Raises InvalidSetting when nothing says so."""
    given = settings.repo or settings.variable("REPOSITORY")
    if given:
        return given
    file = settings.repository_file or settings.variable("REPOSITORY_FILE")
    if file:
        return _line(file, "the repository's address")
    middle = f"{settings.prefix}_" if settings.prefix else ""
    raise InvalidSetting(
        f"no repository is named; give {settings.option('repo')}, or set RESTIC_{middle}REPOSITORY to"
        " s3:https://host/bucket/prefix or a directory"
    )


def password(settings: Settings, *, confirm: bool = False) -> str:
    """The repository's password; asked for on a terminal when nothing gives it. Raises WrongPassword."""
    if settings.insecure_no_password:
        return ""
    if settings.password_file:
        return _line(settings.password_file, "the password")
    if settings.password_command:
        return from_command(settings.password_command)
    if given := settings.variable("PASSWORD"):
        return given
    if file := settings.variable("PASSWORD_FILE"):
        return _line(file, "the password")
    if command := settings.variable("PASSWORD_COMMAND"):
        return from_command(command)
    which = "source repository" if settings.prefix else "repository"
    found = ask(f"password of the {which}", confirm=confirm)
    if not found:
        middle = f"{settings.prefix}_" if settings.prefix else ""
        raise WrongPassword(
            f"there is no password for the {which}; set RESTIC_{middle}PASSWORD, or give"
            f" {settings.option('password-file')}"
        )
    return found


def new_password(settings: Settings, file: str, *, empty: bool = False) -> str:
    """The password of a new key: out of a file, or asked for twice. Raises WrongPassword."""
    if empty:
        return ""
    if file:
        return _line(file, "the new password")
    if given := settings.environment.get("RESTIC_NEW_PASSWORD", ""):
        return given
    found = ask("new password", confirm=True)
    if not found:
        raise WrongPassword("adding a key: there is no password for it; give --new-password-file")
    return found


def ask(what: str, *, confirm: bool = False) -> str:
    """Ask for a secret on a terminal; empty when there is none."""
    import sys

    if not sys.stdin.isatty():
        return ""
    import click

    asked = click.prompt(f"Enter {what}", hide_input=True, confirmation_prompt=confirm, err=True)
    return str(asked)


def from_command(command: str) -> str:
    """The first line that a command prints. Raises WrongPassword when it fails."""
    import shlex
    import subprocess

    try:
        done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, check=True, text=True)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise WrongPassword(f"asking for the password by {command!r}: {error}; correct the command") from error
    return done.stdout.rstrip("\r\n")


def _line(file: str, what: str) -> str:
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise InvalidSetting(f"reading {what} from {file}: {told}; check the path") from error
    return text.strip() if "address" in what else text.rstrip("\r\n")


def open_store(settings: Settings) -> Store:
    """The place where the repository's objects lie. Nothing is sent yet, but for what Object Lock asks first."""
    from backstay.repository.stores import location
    from backstay.repository.stores.local import LocalLocation

    variables = settings.environment
    extended = dict(_pair(text) for text in settings.extended)
    region = extended.pop("s3.region", "") or variables.get("AWS_REGION", "") or variables.get("AWS_DEFAULT_REGION", "")
    where = location.parse(url(settings), region=region)
    ca_file = settings.cacert or variables.get("RESTIC_CACERT") or None
    if isinstance(where, LocalLocation):
        if settings.as_of is not None:
            refuse("reading as of an earlier time: only buckets with versioning keep what was; leave --as-of out")
        if settings.object_lock:
            refuse("writing under Object Lock: only S3 has it, not a directory; leave --object-lock out")
        return location.open_store(where)
    lookup = extended.pop("s3.bucket-lookup", "auto")
    if lookup not in ("auto", "dns", "path"):
        refuse(f"option s3.bucket-lookup={lookup}: it is auto, dns or path")
    if lookup != "auto":
        where = replace(where, force_path_style=lookup == "path")
    options: dict[str, Any] = {}
    if connections := extended.pop("s3.connections", ""):
        if not connections.isdigit() or not 0 < int(connections) <= 256:
            refuse(f"option s3.connections={connections}: it is a number from 1 to 256")
        options["connections"] = int(connections)
    if extended:
        refuse(f"option {next(iter(extended))}: there are s3.region, s3.bucket-lookup and s3.connections")
    store = location.open_store(
        where,
        _credentials(variables),
        ca_file,
        retention=_retention(settings.object_lock),
        upload_limit=settings.limit_upload * 1024 or None,
        download_limit=settings.limit_download * 1024 or None,
        **options,
    )
    if settings.as_of is not None:
        from backstay.repository.stores.as_of import AsOfStore

        return AsOfStore(store, settings.as_of)  # type: ignore[arg-type]
    if settings.object_lock:
        from backstay.repository.stores.object_lock import require

        require(store)  # type: ignore[arg-type]
    return store


def _credentials(variables: Mapping[str, str]) -> S3Credentials | None:
    """Keys out of AWS's variables; None: botocore looks where AWS's own tools look."""
    from backstay.repository.stores.s3 import S3Credentials

    key, secret = variables.get("AWS_ACCESS_KEY_ID", ""), variables.get("AWS_SECRET_ACCESS_KEY", "")
    return S3Credentials(key, secret, variables.get("AWS_SESSION_TOKEN", "")) if key and secret else None


def _retention(text: str) -> Retention | None:
    if not text:
        return None
    from backstay.repository.stores.object_lock import Retention

    mode, _, days = text.partition(":")
    try:
        return Retention(mode.capitalize(), int(days.removesuffix("d")))  # type: ignore[arg-type]
    except ValueError:
        refuse(f"--object-lock {text}: write governance:30 or compliance:30, with the days")


def limits_nothing(settings: Settings) -> bool:
    """Whether a limit was given for a repository that no network leads to."""
    from backstay.repository.stores import location
    from backstay.repository.stores.local import LocalLocation

    if not settings.limit_upload and not settings.limit_download:
        return False
    return isinstance(location.parse(url(settings)), LocalLocation)


def username() -> str:
    """Of whoever runs this; the number where there is no name, as in a container."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        refuse(f"option {text!r}: write it as key=value")
    return key.lower(), value
