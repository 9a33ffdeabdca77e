"""The command line: what it understands, and which part of Backstay does it."""

from __future__ import annotations

import sys

import click

from backstay import __version__
from backstay.cli.lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    lazy={"repo": "backstay.cli.repo.group:repo"},
    context_settings={"help_option_names": ["-h", "--help"]},
)
def main() -> None:
    """Backstay: application-centric backup and restore for Kubernetes."""


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


@main.command()
@click.option(
    "--log-level",
    envvar="BACKSTAY_LOG_LEVEL",
    default="INFO",
    show_default=True,
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
)
def operator(log_level: str) -> None:
    """Run the operator, as its Deployment does.

    It is configured by environment variables BACKSTAY_*, and connects with its service account or with KUBECONFIG.
    """
    # Imported here: the other commands need not wait for the operator's libraries.
    from backstay.kube.runtime import InvalidSettingError, Settings
    from backstay.kube.transport import NoClusterError
    from backstay.logs import configure
    from backstay.main import run

    configure(log_level.upper())
    try:
        sys.exit(run(Settings.from_environment()))
    except (InvalidSettingError, NoClusterError) as error:
        raise click.ClickException(str(error)) from error
