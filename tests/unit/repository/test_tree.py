"""Trees are written in the exact bytes that restic would write, and read back as they were."""

from __future__ import annotations

import json
import stat
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.repository import Corrupted, Node
from backstay.repository.format import tree

ID = "ab" * 32

names = st.binary(min_size=1, max_size=60).filter(lambda raw: b"/" not in raw and b"\0" not in raw).map(tree.name_text)
times = st.integers(min_value=-62135596800 * 10**9, max_value=253402300799 * 10**9)
numbers = st.integers(min_value=0, max_value=2**32 - 1)
nodes = st.builds(
    Node,
    name=names,
    type=st.sampled_from(["file", "dir", "symlink", "dev", "chardev", "fifo"]),
    mode=numbers,
    mtime=times,
    atime=times,
    ctime=times,
    uid=numbers,
    gid=numbers,
    user=st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    inode=st.integers(min_value=0, max_value=2**64 - 1),
    device_id=numbers,
    size=st.integers(min_value=0, max_value=2**63 - 1),
    links=numbers,
    linktarget=st.binary(max_size=40).map(tree.name_text),
    xattrs=st.lists(st.tuples(st.sampled_from(["user.a", "user.<b>"]), st.binary(max_size=10)), max_size=2).map(tuple),
    device=numbers,
    content=st.none() | st.lists(st.just(ID), max_size=3).map(tuple),
    subtree=st.sampled_from(["", ID]),
)


@given(nodes)
def test_a_node_comes_back_as_it_was(node: Node) -> None:
    assert tree.decode(tree.join([tree.encode_node(node)]), ID) == [node]


@given(names)
def test_a_name_comes_back_as_it_was_through_valid_utf8(name: str) -> None:
    quoted = tree.quote(name)

    assert tree.unquote(quoted) == name
    quoted.encode("utf-8")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_json_string_is_json(text: str) -> None:
    encoded = tree.json_string(text)

    assert json.loads(encoded) == text
    assert not {"<", ">", "&", "\u2028", "\u2029"} & set(encoded)


@given(st.text())
def test_unquoting_fails_clearly_or_gives_a_name(text: str) -> None:
    with suppress(ValueError):
        tree.name_bytes(tree.unquote(text))


@given(st.binary())
def test_bytes_that_are_no_tree_are_corruption_and_nothing_else(data: bytes) -> None:
    with suppress(Corrupted):
        tree.decode(data, ID)


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        (b"plain name.txt", "plain name.txt"),
        (b'q"b\\', 'q\\"b\\\\'),
        (b"\a\b\t\n\v\f\r", "\\a\\b\\t\\n\\v\\f\\r"),
        (b"\x01\x7f", "\\x01\\x7f"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("ü".encode(), "ü"),
        ("\u2028".encode(), "\\u2028"),
        ("\u00a0\ufeff".encode(), "\\u00a0\\ufeff"),
        ("\U000e0001".encode(), "\\U000e0001"),
        ("\ufffd".encode(), "\ufffd"),
    ],
)
def test_names_are_quoted_as_go_quotes_them(name: bytes, quoted: str) -> None:
    assert tree.quote(tree.name_text(name)) == quoted


def test_nodes_are_in_the_order_of_their_names_bytes() -> None:
    raw = [b"a", b"a b", b"a-b", b"A", b"\xff", "ü".encode(), b"ab"]
    encoded = tree.encode(Node(name=tree.name_text(name), type="fifo") for name in raw)

    assert [tree.name_bytes(node.name) for node in tree.decode(encoded, ID)] == sorted(raw)


def test_two_nodes_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="'x'"):
        tree.encode([Node(name="x", type="fifo"), Node(name="x", type="dir")])


def test_the_encoding_is_gos_for_restics_node() -> None:
    node = Node(
        name="f", type="file", mode=0o644, mtime=1_500_000_000, atime=0, ctime=10**9, uid=1, gid=2, inode=3, size=4,
        links=1, content=(ID,),
    )  # fmt: skip

    assert tree.encode([node]).decode() == (
        '{"nodes":[{"name":"f","type":"file","mode":420,"mtime":"1970-01-01T00:00:01.5Z",'
        '"atime":"1970-01-01T00:00:00Z","ctime":"1970-01-01T00:00:01Z","uid":1,"gid":2,"inode":3,"size":4,"links":1,'
        f'"content":["{ID}"]}}]}}\n'
    )


@pytest.mark.parametrize(
    ("mode", "go"),
    [
        (stat.S_IFREG | 0o640, 0o640),
        (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
        (stat.S_IFREG | 0o6755, 1 << 23 | 1 << 22 | 0o755),
        (stat.S_IFLNK | 0o777, 1 << 27 | 0o777),
        (stat.S_IFCHR | 0o600, 1 << 26 | 1 << 21 | 0o600),
        (stat.S_IFBLK | 0o600, 1 << 26 | 0o600),
        (stat.S_IFIFO | 0o600, 1 << 25 | 0o600),
    ],
)
def test_modes_are_gos(mode: int, go: int) -> None:
    assert tree.go_mode(mode) == go
    assert tree.unix_mode(go) == stat.S_IMODE(mode)


def test_a_huge_tree_is_read_in_pieces_that_end_anywhere() -> None:
    xattrs = (("user.a", b"1"), ('user."},{', b"2"))
    nodes = [
        Node(name=f'{number:04d}"\\é\udc80', type="file", content=(f"{number:064x}",), size=1, xattrs=xattrs)
        for number in range(300)
    ]
    whole = tree.encode(nodes)

    for size in (1, 7, 1000, len(whole)):
        pieces = iter([whole[at : at + size] for at in range(0, len(whole), size)])
        assert list(tree.stream(pieces, "t")) == nodes


@pytest.mark.parametrize("damage", [b'{"nodes":[}', b'{"nodes":[{"name":1}]}', b'{"nodes":[{"name":"a"', b"[]", b""])
def test_what_is_no_tree_is_told_also_when_it_comes_in_pieces(damage: bytes) -> None:
    with pytest.raises(Corrupted, match="tree t "):
        list(tree.stream(iter([damage[:5], damage[5:]]), "t"))
