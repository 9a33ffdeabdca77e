"""Which paths a person means by a pattern. What restic says to the same is compared in tests/repository."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.repository.archive.exclusion_tag import CACHEDIR, Tag, excluded_by_content, tag_of
from backstay.repository.archive.patterns import Patterns, from_file
from backstay.repository.errors import InvalidPattern

MATCHES = [
    ("foo", ["/foo", "/a/foo", "/a/foo/b"], ["/food", "/a/afoo", "/FOO"]),
    ("*.o", ["/x.o", "/a/.o", "/a.o/b"], ["/x.oo", "/xo"]),
    ("foo/bar", ["/foo/bar", "/a/foo/bar/b"], ["/foo/a/bar", "/foo", "/xfoo/bar"]),
    ("/foo", ["/foo", "/foo/a"], ["/a/foo", "/foobar"]),
    ("/a/*/c", ["/a/b/c", "/a/b/c/d"], ["/a/c", "/a/b/b/c", "/x/a/b/c"]),
    ("foo/", ["/a/foo", "/foo/b"], ["/food"]),
    ("./a//b/../c", ["/a/c"], ["/a/b/c"]),
    ("/a/**/c", ["/a/c", "/a/b/c", "/a/b/b/c/d"], ["/b/a/c", "/a", "/a/cc"]),
    ("a/**/b/**/c", ["/a/b/c", "/x/a/1/b/2/3/c"], ["/a/c", "/b/c"]),
    ("**/foo", ["/foo", "/a/b/foo"], ["/afoo"]),
    ("foo/**", ["/foo", "/foo/a/b", "/b/foo"], ["/a"]),
    ("a/**/**/b", ["/a/b", "/a/x/b"], ["/b"]),
    ("**", ["/a", "/a/b"], []),
    ("/", ["/a", "/a/b"], []),
    ("/**", ["/a", "/a/b"], []),
    ("*", ["/a"], []),
    ("?", ["/a", "/ü"], ["/ab"]),
    ("a?b", ["/axb", "/aüb"], ["/ab", "/axxb"]),
    ("[a-cx]", ["/a", "/c", "/x"], ["/d", "/ab"]),
    ("[^a-c]", ["/d", "/ü"], ["/a", "/dd"]),
    ("[!a]", ["/a", "/!"], ["/b"]),
    ("[b-a]", [], ["/a", "/b"]),
    ("[^b-a]", ["/a"], ["/aa"]),
    (r"[\]\-\\]", ["/]", "/-", "/\\"], ["/a"]),
    (r"\*", ["/*"], ["/a"]),
    ("a]", ["/a]"], ["/a"]),
    ("a.b+(c)", ["/a.b+(c)"], ["/aXb"]),
    ("[.-0]b", ["/.b", "/0b"], ["/a/b"]),
    ("a[.-0]b/c", ["/a.b/c"], ["/a/b/c"]),
    ("é*", ["/été"], ["/e"]),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "matched", "others"), MATCHES)
def test_a_pattern_matches_paths_and_what_lies_below_them(pattern: str, matched: list[str], others: list[str]) -> None:
    patterns = Patterns.parse([pattern])

    answers = {path: patterns.excludes(os.fsencode(path), False) for path in matched + others}

    assert answers == dict.fromkeys(matched, True) | dict.fromkeys(others, False)


@pytest.mark.parametrize("pattern", ["bad[", "[]a]", "[x-]", "[-x]", "[", "[^", "[a", "[a-", "\\", "a/b\\", "!x["])
def test_a_malformed_pattern_is_refused_by_its_text(pattern: str) -> None:
    with pytest.raises(InvalidPattern, match=re.escape(repr(pattern))):
        Patterns.parse(["good", pattern])


def test_no_patterns_match_nothing() -> None:
    assert not Patterns.parse(["", ""])
    assert not Patterns.parse([]).excludes(b"/a", False)
    assert not Patterns.parse([]).may_contain(b"/a")


def test_the_last_pattern_that_matches_has_the_say() -> None:
    patterns = Patterns.parse(["*.log", "!keep.log", "/secret", "!/secret/open/**", "/secret/open/closed"])

    left_out = [
        path
        for path in ("/a.log", "/keep.log", "/d/keep.log", "/secret/x", "/secret/open/x", "/secret/open/closed/x")
        if patterns.excludes(path.encode(), False)
    ]

    assert left_out == ["/a.log", "/secret/x", "/secret/open/closed/x"]


def test_case_is_ignored_when_asked_also_beyond_ascii() -> None:
    patterns = Patterns.parse(["FOO", "Ünter/[A-C].TXT"], ignore_case=True)

    assert patterns.excludes(b"/a/fOo", False)
    assert patterns.excludes("/ÜNTER/b.txt".encode(), False)
    assert not patterns.excludes("/ÜNTER/d.txt".encode(), False)
    assert not Patterns.parse(["FOO"]).excludes(b"/foo", False)


def test_names_that_are_no_utf8_are_matched_byte_for_byte() -> None:
    assert Patterns.parse([os.fsdecode(b"\xff\xfe")]).excludes(b"/a/\xff\xfe", False)
    assert Patterns.parse(["a??z"]).excludes(b"/a\xe2\x82z", False)
    assert not Patterns.parse(["a*"]).excludes(b"/\xff", False)


def test_a_name_with_a_newline_is_one_name() -> None:
    patterns = Patterns.parse(["a*b", "x/*/y"])

    assert patterns.excludes(b"/a\n\nb", False)
    assert patterns.excludes(b"/\n/x/\n/y", False)
    assert not patterns.excludes(b"/c\nab\nc", False)
    assert not patterns.excludes(b"/ab\n", False)


@pytest.mark.parametrize(
    ("patterns", "directory", "may"),
    [
        (["/a/b/c"], "/a", True),
        (["/a/b/c"], "/a/b", True),
        (["/a/b/c"], "/a/b/c/d", True),
        (["/a/b/c"], "/a/c", False),
        (["/a/b/c"], "/ab", False),
        (["/a/*/c"], "/a/x", True),
        (["/a/**/c"], "/a/x/y", True),
        (["/a/**/c"], "/b", False),
        (["/**/c"], "/b", True),
        (["c"], "/x/y", True),
        (["/a", "!/a/b"], "/a/b", False),
        (["/a", "!/a/b", "/a/b/c"], "/a/b", True),
        (["!/a"], "/b", False),
        (["/b"], "/", True),
    ],
)
def test_a_restore_enters_only_where_something_could_be_included(
    patterns: list[str], directory: str, may: bool
) -> None:
    assert Patterns.parse(patterns).may_contain(directory.encode()) is may


COMPONENTS = st.sampled_from(["a", "b", "ab", "a.o", "B"])
PATHS = st.lists(COMPONENTS, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
PATTERNS = st.builds(
    lambda negated, root, parts: "!" * negated + "/" * root + "/".join(parts),
    st.booleans(),
    st.booleans(),
    st.lists(COMPONENTS | st.sampled_from(["*", "**", "?", "[^b]", "*.o"]), min_size=1, max_size=4),
)


def plainly(patterns: list[str], path: str) -> bool:
    """The language, as slowly as it can be said: every run of a path's components against every pattern."""
    parts = path[1:].split("/")
    verdict = False
    for pattern in patterns:
        text = pattern.removeprefix("!")
        wanted = [part for part in posixpath.normpath(text).split("/") if part]
        starts = [0] if text.startswith("/") else range(len(parts) + 1)
        found = any(plainly_at(wanted, parts[start:end]) for start in starts for end in range(start, len(parts) + 1))
        if all(part == "**" for part in wanted):
            found = True
        if found:
            verdict = not pattern.startswith("!")
    return verdict


def plainly_at(wanted: list[str], parts: list[str]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(plainly_at(wanted[1:], parts[count:]) for count in range(len(parts) + 1))
    one = {"*": ".*", "?": ".", "[^b]": "[^b]", "*.o": r".*\.o"}.get(wanted[0], re.escape(wanted[0]))
    return bool(parts) and re.fullmatch(one, parts[0]) is not None and plainly_at(wanted[1:], parts[1:])


@given(st.lists(PATTERNS, min_size=1, max_size=4), st.lists(PATHS, min_size=1, max_size=12))
def test_answers_are_those_of_the_plain_reading_in_whatever_order_paths_are_asked(
    patterns: list[str], paths: list[str]
) -> None:
    compiled = Patterns.parse(patterns)

    assert [compiled.excludes(path.encode(), False) for path in paths] == [plainly(patterns, path) for path in paths]


@given(st.lists(PATTERNS, min_size=1, max_size=4), PATHS)
def test_what_is_included_and_not_taken_back_above_is_never_passed_by(patterns: list[str], path: str) -> None:
    positive = [pattern for pattern in patterns if not pattern.startswith("!")]
    compiled = Patterns.parse(positive)
    directories = [path[:at] for at in range(1, len(path)) if path[at] == "/"]

    if compiled.includes(path.encode(), False):
        assert all(compiled.may_contain(directory.encode()) for directory in directories)


def test_the_answers_that_are_remembered_stay_few() -> None:
    patterns = Patterns.parse(["*.o"])

    for number in range(20_000):
        assert patterns.excludes(b"/%d/x.o" % number, False)

    assert len(patterns._directories) <= 4097


def test_a_deep_path_is_no_deeper_than_the_stack() -> None:
    assert not Patterns.parse(["*.o", "a/**/b"]).excludes(b"/a" * 5000, False)


def test_a_file_of_patterns_has_comments_blank_lines_and_variables() -> None:
    data = b"\xef\xbb\xbf# comment\n\n  foo \r\n$HOME/cache\n${A}x$$y\n$1$NONE!\n100$\n#no\n \\#yes\n"

    lines = from_file(data, {"HOME": "/home/me", "A": "1"})

    assert lines == ["foo", "/home/me/cache", "1x$y", "!", "100$", "\\#yes"]


def test_a_file_of_patterns_may_be_utf16_and_may_hold_bytes_of_no_encoding() -> None:
    assert from_file("ü\r\nb".encode("utf-16"), {}) == ["ü", "b"]
    assert from_file(b"\xff", {}) == ["\udcff"]


def test_a_cache_directory_is_known_by_its_signature(tmp_path: Path) -> None:
    (tmp_path / "CACHEDIR.TAG").write_bytes(CACHEDIR.header + b"\n# made by a test\n")
    names = {b"CACHEDIR.TAG", b"x"}

    assert tag_of(os.fsencode(tmp_path), names, caches=True) == b"CACHEDIR.TAG"
    assert not excluded_by_content(os.fsencode(tmp_path), names, caches=False)
    (tmp_path / "CACHEDIR.TAG").write_bytes(CACHEDIR.header[:-1])
    assert not excluded_by_content(os.fsencode(tmp_path), names, caches=True)


def test_a_tag_of_ones_own_is_known_by_its_name_and_header(tmp_path: Path) -> None:
    (tmp_path / ".nobackup").write_bytes(b"please: yes")
    here, names = os.fsencode(tmp_path), {b".nobackup", b"x"}

    assert excluded_by_content(here, names, caches=False, if_present=[Tag.parse(".nobackup")])
    assert excluded_by_content(here, names, caches=False, if_present=[Tag.parse(".nobackup:please: ")])
    assert not excluded_by_content(here, names, caches=False, if_present=[Tag.parse(".nobackup:other")])
    assert not excluded_by_content(here, {b"x"}, caches=False, if_present=[Tag.parse(".nobackup")])


def test_of_two_tags_each_leaves_out_the_other(tmp_path: Path) -> None:
    tags = [Tag(b"a"), Tag(b"b")]

    assert tag_of(os.fsencode(tmp_path), {b"a", b"b"}, caches=True, if_present=tags) == b""
    assert tag_of(os.fsencode(tmp_path), {b"b"}, caches=True, if_present=tags) == b"b"


def test_a_tag_needs_a_name() -> None:
    for text in ("", ":header", "a/b"):
        with pytest.raises(InvalidPattern):
            Tag.parse(text)
