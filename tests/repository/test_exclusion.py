"""restic leaves out, and takes, what we say that the same patterns mean."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from backstay.repository import Repository
from backstay.repository.archive.exclusion_tag import CACHEDIR, Tag, tag_of
from backstay.repository.archive.patterns import Patterns, from_file
from tests.repository.conftest import Restic

FILES = """a b foo/a foo/b/c foo/b/foo foo/bar/x.o foo/x.o foo/baz/qux/x.c bar/foo/b x/a/b/c/d x/y/a/b Foo/A.O
    \u00fcml\u00e4ut/\u00e9.txt we[i]rd/st*r/back\\slash/q?q -dash/!bang dollar$HOME/#hash
    deep/1/2/3/4/5/b.o t/a/x/b t/a/b"""
PATTERNS = [
    ["foo/bar", "*.c", "/ROOT/x/*/b", "deep/**/b.o", "we\\[i\\]rd", "[^a-z]foo", "-dash/"],
    ["foo/*", "!foo/b", "/ROOT/t/**/b", "?ml\u00e4ut/[\u00e9]*", "x/../y"],
    ["ROOT/*/*", "!/ROOT/deep/**", "\\!bang", "!*.o", "/ROOT/foo/bar/x.o"],
]
EXCLUDE_FILE = "# a comment\n\n  $PLACE/foo/b \n*.${LAST}\ndollar$$HOME\n$UNSET_BY_ALL/nothing\n"


@pytest.fixture
def source(tmp_path: Path, repository: Repository) -> Path:
    root = tmp_path / "ROOT"
    for name in FILES.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def taken(referee: Restic, verb: str, *arguments: str) -> set[str]:
    """The paths that restic says it would store or restore."""
    lines = referee(verb, "--dry-run", "--json", "-vv", *arguments).splitlines()
    messages = [json.loads(line) for line in lines]
    items = {message.get("item", "").rstrip("/") for message in messages if message["message_type"] == "verbose_status"}
    return items - {""}


def kept(root: Path, patterns: Patterns) -> set[str]:
    """The paths that a walk of ours would take."""
    found = {str(above) for above in [root, *root.parents] if str(above) != "/"}
    for directory, below, files in os.walk(os.fsencode(root)):
        for name in [*below, *files]:
            path = os.path.join(directory, name)
            if patterns.excludes(path, name in below):
                if name in below:
                    below.remove(name)
            else:
                found.add(os.fsdecode(path))
    return found


@pytest.mark.parametrize("number", range(len(PATTERNS)))
def test_a_backup_leaves_out_the_same(referee: Restic, source: Path, number: int) -> None:
    patterns = [text.replace("/ROOT", str(source)) for text in PATTERNS[number]]

    theirs = taken(referee, "backup", *(f"--exclude={text}" for text in patterns), str(source))

    assert kept(source, Patterns.parse(patterns)) == theirs
    assert len(theirs) > len(source.parts)


def test_a_backup_leaves_out_the_same_by_a_file_and_without_case(
    referee: Restic, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", str(source))
    monkeypatch.setenv("LAST", "O")
    (tmp_path / "excludes").write_text(EXCLUDE_FILE)
    patterns = from_file((tmp_path / "excludes").read_bytes(), os.environ)

    theirs = taken(referee, "backup", f"--iexclude-file={tmp_path / 'excludes'}", str(source))

    assert kept(source, Patterns.parse(patterns, ignore_case=True)) == theirs


@pytest.mark.parametrize(
    "texts", [["*.o", "/ROOT/x/**/b"], ["/ROOT/foo", "!/ROOT/foo/b", "/ROOT/foo/b/c"], ["/ROOT/f?o/[ab]", "d"]]
)
def test_a_restore_takes_the_same_and_passes_by_no_directory_with_some(
    referee: Restic, source: Path, texts: list[str], tmp_path: Path
) -> None:
    referee("backup", str(source))
    texts = [text.replace("/ROOT", str(source)) for text in texts]
    patterns = Patterns.parse(texts)

    theirs = taken(
        referee, "restore", "latest", "--target", str(tmp_path / "t"), *(f"--include={text}" for text in texts)
    )

    ours: set[str] = set()
    for path in sorted(kept(source, Patterns.parse([]))):
        above = [str(directory) for directory in Path(path).parents if str(directory) != "/"]
        if all(patterns.may_contain(os.fsencode(directory)) for directory in above) and patterns.includes(
            os.fsencode(path), os.path.isdir(path)
        ):
            ours |= {path, *above}
    assert ours == theirs
    assert ours


def test_tagged_directories_are_left_out_alike(referee: Restic, source: Path) -> None:
    for name, content in {
        "cache/CACHEDIR.TAG": CACHEDIR.header + b"\n", "cache/x": b"", "cache/sub/y": b"",
        "wrong/CACHEDIR.TAG": CACHEDIR.header[1:], "wrong/x": b"", "both/CACHEDIR.TAG": CACHEDIR.header,
        "both/.skip": b"please", "both/x": b"", "skip/.skip": b"please do", "skip/x": b"",
        "other/.skip": b"", "other/x": b"",
    }.items():  # fmt: skip
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(content)
    tags = [Tag.parse(".skip:please")]

    theirs = taken(referee, "backup", "--exclude-caches", "--exclude-if-present=.skip:please", str(source))

    ours = {str(above) for above in [source, *source.parents] if str(above) != "/"}
    for directory, below, files in os.walk(os.fsencode(source)):
        names = {*below, *files}
        tag = tag_of(directory, names, caches=True, if_present=tags)
        ours |= {os.fsdecode(os.path.join(directory, name)) for name in (names if tag is None else names & {tag})}
        if tag is not None:
            below.clear()
    assert ours == theirs
