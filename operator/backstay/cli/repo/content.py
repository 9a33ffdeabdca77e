"""`ls`, `dump`, `cat` and `list`: what is in snapshots and in the repository, on standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import click

from backstay.cli.repo.choose import Filter, filter_options, node_of, one, tree_of
from backstay.cli.repo.environment import Settings, refuse
from backstay.cli.repo.output import Output, size
from backstay.cli.repo.verb import verb

if TYPE_CHECKING:
    from backstay.repository.format.tree import Node
    from backstay.repository.queries.find import Found
    from backstay.repository.repository import Repository


@verb("ls")
@click.argument("snapshot", metavar="ID")
@click.argument("directories", nargs=-1, metavar="[DIR]...")
@filter_options
@click.option("-l", "--long", "long_", is_flag=True, help="With mode, owner, size and time.")
@click.option("--human-readable", is_flag=True, help="With --long: sizes in KiB and the like.")
@click.option("--recursive", is_flag=True, help="With DIR: what lies deeper, too.")
def ls(
    settings: Settings,
    output: Output,
    snapshot: str,
    directories: tuple[str, ...],
    only: Filter,
    long_: bool,
    human_readable: bool,
    recursive: bool,
) -> None:
    """List what is in a snapshot, which is named by an id or `latest`, with a folder after a colon if wanted."""
    from backstay.cli.repo.session import open_repository, reading
    from backstay.cli.repo.snapshots import document, headline
    from backstay.repository.queries.find import walk

    wanted = [directory.rstrip("/") or "/" for directory in directories]
    if any(not directory.startswith("/") for directory in wanted):
        refuse("listing directories: name them from the root of the snapshot, with a slash in front")
    repository = open_repository(settings)
    with reading(repository, settings, output):
        found, folder = one(repository, snapshot, only)
        tree_id = tree_of(repository, found, folder)
        output.record({**document(found), "message_type": "snapshot", "struct_type": "snapshot"})
        output.note(headline(found) + (f", of it {' '.join(wanted)}:" if wanted else ":"))
        for each in walk(repository, tree_id, enter=_enter(wanted, recursive)):
            if not wanted or _listed(each.path, wanted, recursive):
                output.record({**node_document(each), "message_type": "node", "struct_type": "node"})
                output.say(long_line(each, human_readable) if long_ else each.path)


def _enter(wanted: list[str], recursive: bool) -> Callable[[Found], bool] | None:
    if not wanted:
        return None

    def enter(found: Found) -> bool:
        above = any(each == "/" or each == found.path or each.startswith(f"{found.path}/") for each in wanted)
        if wanted == ["/"] and not recursive:
            return False
        return above or (recursive and _below(found.path, wanted))

    return enter


def _listed(path: str, wanted: list[str], recursive: bool) -> bool:
    if path in wanted or (path.rpartition("/")[0] or "/") in wanted:
        return True
    return recursive and _below(path, wanted)


def _below(path: str, wanted: list[str]) -> bool:
    return any(path.startswith(each.rstrip("/") + "/") for each in wanted)


def node_document(found: Found) -> dict[str, Any]:
    """A node as restic's `ls --json` has it."""
    from backstay.repository.format import rfc3339

    node = found.node
    document: dict[str, Any] = {
        "name": node.name,
        "type": node.type,
        "path": found.path,
        "uid": node.uid,
        "gid": node.gid,
    }
    if node.type == "file":
        document["size"] = node.size
    document.update(
        mode=node.mode,
        permissions=permissions(node),
        mtime=rfc3339.from_ns(node.mtime),
        atime=rfc3339.from_ns(node.atime),
        ctime=rfc3339.from_ns(node.ctime),
        inode=node.inode,
    )
    return document


def permissions(node: Node) -> str:
    """Type and mode as Go shows them, and so restic: a letter for each of the upper bits, then the permissions."""
    letters = "".join(letter for at, letter in enumerate("dalTLDpSugct?") if node.mode >> (31 - at) & 1)
    bits = "".join(letter if node.mode >> (8 - at) & 1 else "-" for at, letter in enumerate("rwxrwxrwx"))
    return (letters or "-") + bits


def long_line(found: Found, human_readable: bool = False) -> str:
    """A node in one line, with its metadata."""
    from datetime import datetime

    node = found.node
    moment = datetime.fromtimestamp(node.mtime // 1_000_000_000).strftime("%Y-%m-%d %H:%M:%S")
    amount = size(node.size) if human_readable else str(node.size)
    arrow = f" -> {node.linktarget}" if node.type == "symlink" else ""
    return f"{permissions(node)} {node.uid:5} {node.gid:5} {amount:>6} {moment} {found.path}{arrow}"


@verb("dump")
@click.argument("snapshot", metavar="ID")
@click.argument("path", metavar="PATH")
@filter_options
@click.option("-a", "--archive", type=click.Choice(["tar"]), default="tar", help="Form of a directory.")
@click.option("-t", "--target", metavar="FILE", help="Write to this file.")
def dump(
    settings: Settings, output: Output, snapshot: str, path: str, only: Filter, archive: str, target: str | None
) -> None:
    """Write a file of a snapshot to standard output, or a directory as a tar archive."""
    from backstay.cli.repo.session import open_repository, reading

    repository = open_repository(settings)
    with reading(repository, settings, output):
        found, folder = one(repository, snapshot, only)
        node = node_of(repository, found, folder, path) if path.strip("/") else None
        tree_id = tree_of(repository, found, folder) if node is None else node.subtree
        if target is None:
            _dump(repository, node, tree_id, path, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        try:
            with open(target, "wb") as file:
                _dump(repository, node, tree_id, path, file)
        except OSError as error:
            refuse(f"writing {target}: {error.strerror}; choose another file")


def _dump(repository: Repository, node: Node | None, tree_id: str, path: str, stream: IO[bytes]) -> None:
    """A file's content, or a tree as an archive; without a node the tree is the root."""
    from backstay.cli.repo.tar import write
    from backstay.repository.errors import NodeNotFound

    if node is None or node.type == "dir":
        write(repository, tree_id, path.strip("/"), stream)
    elif node.type == "file":
        for content in repository.read_file(node):
            stream.write(content)
    else:
        raise NodeNotFound(f"dumping {path!r}: it is a {node.type}, and has no content; dump a file or a directory")


@verb("cat")
@click.argument("kind", type=click.Choice(["config", "snapshot", "index", "key", "lock", "pack", "blob", "tree"]))
@click.argument("name", default="", metavar="[ID]")
def cat(settings: Settings, output: Output, kind: str, name: str) -> None:
    """Print one of the repository's files as it is when decrypted: what a person debugs with."""
    from backstay.cli.repo.raw import read
    from backstay.cli.repo.session import open_repository

    sys.stdout.buffer.write(read(open_repository(settings), kind, name))
    sys.stdout.buffer.flush()


@verb("list")
@click.argument("kind", type=click.Choice(["snapshots", "packs", "index", "keys", "locks", "blobs"]))
def list_(settings: Settings, output: Output, kind: str) -> None:
    """List the ids of the repository's files, or of all blobs."""
    from backstay.cli.repo.raw import identifiers
    from backstay.cli.repo.session import open_repository

    for line in identifiers(open_repository(settings), kind):
        output.say(line)
        output.record(line)
