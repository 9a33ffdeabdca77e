"""What all commands have in common: their options, how they end, and how they say what went wrong."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from backstay.cli.lazy import LazyGroup
from backstay.cli.repo import exit_codes
from backstay.cli.repo.environment import Settings, limits_nothing
from backstay.cli.repo.output import Output
from backstay.repository.errors import RepositoryError

AnyCommand = TypeVar("AnyCommand", bound=click.Command)


class Interrupted(BaseException):
    """Somebody asks the process to stop. No Exception, so that nothing on the way takes it for an ordinary one."""


class Incomplete(RepositoryError):  # noqa: N818  (named as the engine's errors are)
    """The work is done as far as it could be, and something is missing."""

    reason = "Incomplete"


class Verb(click.Command):
    """A command on a repository. Its function is called with a `Settings` and an `Output` first."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what goes wrong becomes one line and an exit code."""
        settings = Settings(**(ctx.obj or {}))
        output = Output(json=settings.json, quiet=settings.quiet, verbose=settings.verbose)
        assert self.callback is not None
        try:
            with _interruptible():
                if limits_nothing(settings):
                    output.note("--limit-upload and --limit-download have no effect on a repository in a directory")
                ctx.invoke(self.callback, settings, output, **ctx.params)
            output.close()
        except Incomplete as error:
            self._fail(output, exit_codes.INCOMPLETE, str(error), "Warning")
        except RepositoryError as error:
            self._fail(output, exit_codes.of(error), str(error))
        except (Interrupted, KeyboardInterrupt):
            self._fail(output, exit_codes.INTERRUPTED, "interrupted; run it again to go on where this one stopped")
        except click.exceptions.Exit:
            raise
        except BrokenPipeError:  # whoever reads our output has had enough
            output.abandon()
            ctx.exit(exit_codes.ERROR)
        except Exception as error:  # noqa: BLE001  (a person gets one line, and the rest on request)
            if settings.verbose:
                traceback.print_exc()
            told = (
                f"unexpected failure: {type(error).__name__}: {error}; run it with --verbose, and report what it says"
            )
            self._fail(output, exit_codes.ERROR, told)

    def _fail(self, output: Output, code: int, message: str, word: str = "Error") -> NoReturn:
        output.failure(code, message, word)
        raise click.exceptions.Exit(code)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options first, those of all commands in a section of their own."""
        records: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                records[isinstance(parameter, GlobalOption)].append(record)
        for shared, title in ((False, "Options"), (True, "Options for all commands")):
            if records[shared]:
                with formatter.section(title):
                    formatter.write_dl(records[shared])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """A wrong option ends with restic's code for any error, and not with 2."""
        with _misuse():
            return super().parse_args(ctx, args)


class VerbGroup(LazyGroup):
    """A group of commands, in which a wrong or missing one ends as a wrong option does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, but for the exit code."""
        with _misuse():
            return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but for the exit code."""
        with _misuse():
            return super().resolve_command(ctx, args)


@contextmanager
def _misuse() -> Iterator[None]:
    """Let a wrong call end with restic's code for any error, and not with the 2 of click."""
    try:
        yield
    except click.UsageError as error:
        error.exit_code = exit_codes.ERROR  # type: ignore[misc]
        raise


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM unwind the stack once, so that locks go and what was uploaded is found by the next run.

    A second SIGINT ends the process at once, for those who cannot wait.
    """

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise Interrupted

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- options ---------------------------------------------------------------------------------------------------------


def verb(name: str, **attributes: Any) -> Callable[[Callable[..., None]], Verb]:
    """Make a command of a function, with the options that all have."""

    def decorate(function: Callable[..., None]) -> Verb:
        return with_global_options(click.command(name, cls=Verb, **attributes)(function))

    return decorate


def with_global_options(command: AnyCommand) -> AnyCommand:
    """Give a command or group the options for all commands. What is given nearer to the verb counts."""
    command.params.extend(_global_options())
    return command


class GlobalOption(click.Option):
    """An option that all commands have."""


def _keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value in (None, False, 0, ()):
        return
    known = ctx.ensure_object(dict)
    assert parameter.name is not None
    known[parameter.name] = (*known.get("extended", ()), *value) if parameter.name == "extended" else value


def _global_options() -> list[click.Option]:
    def option(*names: str, **attributes: Any) -> click.Option:
        return GlobalOption(names, expose_value=False, callback=_keep, **attributes)

    return [
        option("-r", "--repo", metavar="URL", help="The repository [RESTIC_REPOSITORY]."),
        option("--repository-file", metavar="FILE", help="File that names it [RESTIC_REPOSITORY_FILE]."),
        option("-p", "--password-file", metavar="FILE", help="File with its password [RESTIC_PASSWORD_FILE]."),
        option("--password-command", metavar="COMMAND", help="Prints its password [RESTIC_PASSWORD_COMMAND]."),
        option("--insecure-no-password", is_flag=True, help="The password is empty."),
        option("--json", is_flag=True, help="Say everything as JSON, a line each."),
        option("-q", "--quiet", is_flag=True, help="Say only what was asked for, and what goes wrong."),
        option("-v", "--verbose", count=True, help="Say more."),
        option("--no-lock", is_flag=True, help="Read without a lock, where nobody may write."),
        option("--retry-lock", type=Duration(), metavar="DURATION", help="Wait so long for a lock, such as 5m."),
        option("--limit-upload", type=int, metavar="RATE", help="At most so many KiB/s to the repository."),
        option("--limit-download", type=int, metavar="RATE", help="At most so many KiB/s from it."),
        option("--cacert", metavar="FILE", help="Certificates to trust, in PEM [RESTIC_CACERT]."),
        option("--as-of", type=Moment(), metavar="TIME", help="Read the bucket's versions as they were then."),
        option(
            "--object-lock",
            metavar="MODE:DAYS",
            help="Write under S3 Object Lock: governance or compliance, and for how long.",
        ),
        option(
            "-o",
            "--option",
            "extended",
            multiple=True,
            metavar="KEY=VALUE",
            help="s3.region, s3.bucket-lookup, s3.connections.",
        ),
    ]


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A time span as Go writes it: 90s, 5m, 1h30m. Seconds as a float."""

    name = "duration"
    _UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse it."""
        import re

        text = str(value)
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            self.fail(f"{text!r} is no time span; write it as 30s, 5m or 1h30m", param, ctx)
        return sum(float(number) * self._UNITS[unit] for number, unit in parts)


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A point in time: `2026-11-24 10:00:00` in local time, or RFC 3339 with a zone. A datetime that knows its zone."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse it."""
        try:
            return datetime.fromisoformat(str(value)).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; write it as '2026-11-24 10:00:00' or 2026-11-24T10:00:00Z", param, ctx)


class Size(click.ParamType):  # type: ignore[type-arg]
    """An amount of data: a number with K, M, G or T after it, in powers of 1024. Bytes as an int."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it."""
        text = str(value).strip().upper().removesuffix("IB").removesuffix("B")
        factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}.get(text[-1:], 1)
        try:
            size = int(float(text[:-1] if factor > 1 else text) * factor)
        except (ValueError, OverflowError):
            size = -1
        if size < 0:
            self.fail(f"{value!r} is no size; write it as 500M or 2G", param, ctx)
        return size
