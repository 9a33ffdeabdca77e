"""A restore writes inside its target only, whatever the tree says and whatever stands there."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backstay.repository import Node, Repository, UnsafeName
from backstay.repository.format import blob, tree
from backstay.repository.format.blob import BlobType
from backstay.repository.format.tree import MODE_DIR, MODE_SYMLINK, json_string

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def store_tree(repository: Repository, *nodes: Node) -> str:
    """Store a tree with the nodes as they are, bad names and all."""
    with repository.writer() as writer:
        return writer.save_blob(BlobType.TREE, tree.join([tree.encode_node(node) for node in nodes])).hex()


def file(repository: Repository, name: str, content: bytes = b"evil") -> Node:
    with repository.writer() as writer:
        data = writer.save_blob(BlobType.DATA, content)
    return Node(name=name, type="file", mode=0o644, size=len(content), content=(data.hex(),), links=1)


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../escape", "/etc/escape", "a/b", "a/../../escape", "nul\0byte", "sub/"], ids=ascii
)
@pytest.mark.parametrize("kind", ["file", "dir", "symlink"])
def test_a_name_that_leads_elsewhere_is_refused(repository: Repository, tmp_path: Path, name: str, kind: str) -> None:
    inner = store_tree(repository, file(repository, "inside"))
    node = {
        "file": file(repository, name),
        "dir": Node(name=name, type="dir", mode=MODE_DIR | 0o755, subtree=inner),
        "symlink": Node(name=name, type="symlink", mode=MODE_SYMLINK | 0o777, linktarget="/etc"),
    }[kind]
    root = store_tree(repository, node)
    target = tmp_path / "in" / "target"

    with pytest.raises(UnsafeName, match="could lead elsewhere"):
        repository.restore(root, str(target))

    assert sorted(os.listdir(tmp_path / "in")) == ["target"]
    assert os.listdir(target) == []


def test_a_name_that_comes_twice_is_refused(repository: Repository, tmp_path: Path) -> None:
    inner = store_tree(repository, file(repository, "passwd"))
    root = store_tree(
        repository,
        Node(name="x", type="symlink", mode=MODE_SYMLINK | 0o777, linktarget=str(tmp_path / "outside")),
        Node(name="x", type="dir", mode=MODE_DIR | 0o755, subtree=inner),
    )
    (tmp_path / "outside").mkdir()

    with pytest.raises(UnsafeName, match="twice"):
        repository.restore(root, str(tmp_path / "target"))

    assert os.listdir(tmp_path / "outside") == []


@pytest.mark.parametrize(
    ("names", "fault"),
    [(["b", "a"], "order"), (["a", "c", "b"], "order"), (["a", "b", "a"], "order"), (["a", "b", "b"], "twice")],
)
@pytest.mark.parametrize("piece", [None, 1])
def test_names_out_of_order_are_refused_also_where_a_tree_is_read_in_pieces(
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    fault: str,
    piece: int | None,
) -> None:
    root = store_tree(repository, *[Node(name=name, type="fifo", mode=0o600) for name in names])
    if piece:
        monkeypatch.setattr(blob, "_PIECE", piece)

    with pytest.raises(UnsafeName, match=fault):
        repository.restore(root, str(tmp_path / "target"))


def test_a_link_that_stands_in_the_target_is_replaced_and_not_followed(repository: Repository, tmp_path: Path) -> None:
    inner = store_tree(repository, file(repository, "inside"))
    root = store_tree(
        repository,
        Node(name="directory", type="dir", mode=MODE_DIR | 0o755, subtree=inner),
        file(repository, "file", b"restored"),
    )
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    (outside / "file").write_bytes(b"precious")
    target.mkdir()
    (target / "directory").symlink_to(outside)
    (target / "file").symlink_to(outside / "file")

    repository.restore(root, str(target))

    assert (outside / "file").read_bytes() == b"precious"
    assert os.listdir(outside) == ["file"]
    assert (target / "file").read_bytes() == b"restored"
    assert not (target / "directory").is_symlink()


def test_a_hard_link_that_stands_in_the_target_is_not_written_through(repository: Repository, tmp_path: Path) -> None:
    root = store_tree(repository, file(repository, "file", b"restored"))
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    os.link(tmp_path / "precious", target / "file")

    repository.restore(root, str(target))

    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (target / "file").read_bytes() == b"restored"


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab", json_string("x")])
def test_ids_that_are_none_are_refused(repository: Repository, tmp_path: Path, text: str) -> None:
    root = store_tree(repository, Node(name="d", type="dir", mode=MODE_DIR, subtree=text.replace('"', "")))

    done = repository.restore(root, str(tmp_path / "target"))

    assert [(warning.path, warning.kind) for warning in done.warnings] == [("/d", "error")]
    assert "is no id" in done.warnings[0].message
