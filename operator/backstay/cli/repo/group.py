"""The commands of `backstay repo`, and in which file each is."""

from __future__ import annotations

import click

from backstay.cli.repo.verb import VerbGroup, with_global_options

_HERE = "backstay.cli.repo"


@click.group(
    cls=VerbGroup,
    lazy={
        "backup": f"{_HERE}.backup:backup",
        "cat": f"{_HERE}.content:cat",
        "check": f"{_HERE}.maintenance:check",
        "copy": f"{_HERE}.copy:copy",
        "diff": f"{_HERE}.compare:diff",
        "dump": f"{_HERE}.content:dump",
        "find": f"{_HERE}.search:find",
        "forget": f"{_HERE}.forget:forget",
        "init": f"{_HERE}.create:init",
        "key": f"{_HERE}.keys:key",
        "list": f"{_HERE}.content:list_",
        "ls": f"{_HERE}.content:ls",
        "prune": f"{_HERE}.maintenance:prune",
        "repair": f"{_HERE}.repair:repair",
        "restore": f"{_HERE}.restore:restore",
        "snapshots": f"{_HERE}.snapshots:snapshots",
        "stats": f"{_HERE}.compare:stats",
        "unlock": f"{_HERE}.maintenance:unlock",
    },
)
def repo() -> None:
    """Work on a repository without any cluster: back up, restore, look, check and tidy.

    The repository is named by --repo or RESTIC_REPOSITORY, as with restic: s3:https://host/bucket/prefix, or a
    directory. The options for all commands may stand before or after the command.
    """


with_global_options(repo)
