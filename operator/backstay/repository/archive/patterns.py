"""Which paths a person means: restic's pattern language, for what a backup leaves out and what a restore takes.

A pattern is a path of components, each with `*`, `?` and `[a-z]` or `[^a-z]` as in Go's filepath.Match; `\\` takes the
next character as it stands. `**` as a component stands for any number of components, none too. With a leading `/` it
begins at the root, without one anywhere. A pattern that matches a path matches all that lies below it. `!` before a
pattern takes back what earlier ones matched; a directory that is matched is not entered, so nothing below it comes
back. See "Excluding Files" in restic's manual.

One difference: in `a/**/b/**/c` restic lets the second `**` stand for nothing only above a longer path, so it matches
what is in `a/b/c` but not `a/b/c` itself. Here both match, which is what its manual says.

A walk asks for one path after another, and whether a directory is matched holds for all in it. So that is remembered
for the directories asked for last, and of each path only its end is looked at.
"""

from __future__ import annotations

import codecs
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from backstay.repository.errors import InvalidPattern

_DIRECTORIES = 4096  # whose answers are remembered
_SPECIAL = frozenset("\\[]*?")
_ANY_DEPTH = "**"


class Patterns:
    """Patterns, compiled once and in order. Paths are bytes, absolute and clean. Safe to use from several threads."""

    def __init__(self, groups: tuple[_Group, ...], ignore_case: bool) -> None:
        """Use `parse`."""
        self._groups = groups
        self._ends = tuple((1 << at, group.ends) for at, group in enumerate(groups))
        self._all = (1 << len(groups)) - 1
        self._ignore_case = ignore_case
        self._directories: dict[bytes, int] = {}

    @classmethod
    def parse(cls, lines: Iterable[str], *, ignore_case: bool = False) -> Patterns:
        """Compile patterns; empty ones mean nothing. Raises InvalidPattern, which names all that are malformed."""
        groups: list[tuple[bool, list[_Parts]]] = []
        malformed = []
        for line in lines:
            if not line:
                continue
            negated = line.startswith("!")
            text = line[1:] if negated else line
            try:
                parts = _split(_lower(text) if ignore_case else text)
            except ValueError:
                malformed.append(line)
                continue
            if not groups or groups[-1][0] != negated:
                groups.append((negated, []))
            groups[-1][1].append(parts)
        if malformed:
            shown = ", ".join(map(repr, malformed))
            raise InvalidPattern(
                f"reading patterns: {shown} cannot be understood; close each [ with a ], and write \\\\ for a backslash"
            )
        return cls(tuple(_compile(negated, parts) for negated, parts in groups), ignore_case)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._groups)

    def excludes(self, path: bytes, is_dir: bool) -> bool:
        """Whether a backup leaves `path` out."""
        return self._matches(path)

    def includes(self, path: bytes, is_dir: bool) -> bool:
        """Whether a restore takes `path`."""
        return self._matches(path)

    def may_contain(self, path: bytes) -> bool:
        """Whether something below the directory `path` could be included."""
        if self._ignore_case:
            path = _lower_path(path)
        if path in (b"", b"/"):
            return bool(self._groups)
        matched = self._state(path)
        text = path.decode("utf-8", "surrogateescape")
        found = False
        for at, group in enumerate(self._groups):
            if group.negated:
                found = found and not matched & 1 << at
            elif not found:
                found = group.above.fullmatch(text) is not None
        return found

    def _matches(self, path: bytes) -> bool:
        state = self._state(_lower_path(path) if self._ignore_case else path)
        # Groups alternate between plain and negated patterns; the last one that matches has the say.
        return bool(state) and not self._groups[state.bit_length() - 1].negated

    def _state(self, path: bytes) -> int:
        """The groups that match a path or a directory above it, a bit each."""
        cut = path.rfind(b"/")
        state = 0
        if cut > 0:
            directory = path[:cut]
            known = self._directories.get(directory)
            state = self._climb(directory) if known is None else known
        if state != self._all:
            name = path[cut + 1 :]
            for bit, ends in self._ends:
                if not state & bit and ends(path, name):
                    state |= bit
        return state

    def _climb(self, directory: bytes) -> int:
        unknown = [directory]
        state: int | None = 0
        while (cut := unknown[-1].rfind(b"/")) > 0:
            above = unknown[-1][:cut]
            state = self._directories.get(above)
            if state is not None:
                break
            unknown.append(above)
        state = state or 0
        if len(self._directories) > _DIRECTORIES:
            self._directories.clear()
        for path in reversed(unknown):
            name = path[path.rfind(b"/") + 1 :]
            for bit, ends in self._ends:
                if not state & bit and ends(path, name):
                    state |= bit
            self._directories[path] = state
        return state


def from_file(data: bytes, environment: Mapping[str, str]) -> list[str]:
    """The patterns in a file, one a line. Blank lines and lines that begin with # mean nothing.

    `$NAME` and `${NAME}` stand for what `environment` says, nothing when it says nothing; `$$` is a dollar. UTF-8 with
    or without a byte order mark, or UTF-16 with one.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", "replace")
    else:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    lines = (line.strip() for line in text.split("\n"))
    return [_expand(line, environment) for line in lines if line and not line.startswith("#")]


_VARIABLE = re.compile(r"\$(?:\$|\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*)|[0-9*#@!?-])")


def _expand(line: str, environment: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        name = found[1] if found[1] is not None else found[2]
        if name is not None:
            return environment.get(name, "")
        return "$" if found[0] == "$$" else ""  # the shell's own, $1 or $?, are empty here

    return _VARIABLE.sub(value, line)


# --- from text to components -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Parts:
    """A pattern's components. `literals`: None where the component has wildcards; `sources`: regular expressions."""

    absolute: bool
    literals: tuple[str | None, ...]
    sources: tuple[str | None, ...]  # None: any number of components


def _split(pattern: str) -> _Parts:
    clean = posixpath.normpath(pattern)
    absolute = clean.startswith("/")
    components = [part for part in clean.split("/") if part]
    components = [
        part for at, part in enumerate(components) if part != _ANY_DEPTH or components[at - 1 : at] != [_ANY_DEPTH]
    ]
    if components and components[-1] == _ANY_DEPTH:
        components.pop()  # what matches a directory matches what is in it anyway
    if components and components[0] == _ANY_DEPTH and not absolute:
        components.pop(0)
    return _Parts(
        absolute,
        tuple(None if part == _ANY_DEPTH or _SPECIAL & set(part) else part for part in components),
        tuple(None if part == _ANY_DEPTH else _source(part) for part in components),
    )


def _source(component: str) -> str:
    """A component as a regular expression. Raises ValueError when it is malformed."""
    out: list[str] = []
    at = 0
    while at < len(component):
        character = component[at]
        at += 1
        if character == "*":
            if not out or out[-1] != "[^/]*":
                out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "[":
            source, at = _class(component, at)
            out.append(source)
        else:
            if character == "\\":
                if at == len(component):
                    raise ValueError("nothing follows the backslash")
                character = component[at]
                at += 1
            out.append(re.escape(character))
    return "".join(out)


def _class(component: str, at: int) -> tuple[str, int]:
    negated = component[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    count = 0
    while not (count and component[at : at + 1] == "]"):
        low, at = _member(component, at)
        high = low
        if component[at : at + 1] == "-":
            high, at = _member(component, at + 1)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        count += 1
    if not ranges:
        return ("[^/]" if negated else "(?!)"), at + 1
    return f"(?!/)[{'^' if negated else ''}{''.join(ranges)}]", at + 1


def _member(component: str, at: int) -> tuple[str, int]:
    character = component[at : at + 1]
    if character == "\\":
        at += 1
        character = component[at : at + 1]
    elif character in ("-", "]"):
        character = ""
    if not character or at + 1 == len(component):
        raise ValueError("the class is not closed")
    return character, at + 1


def _lower(text: str) -> str:
    if text.isascii():
        return text.lower()
    return "".join([character.lower()[0] for character in text])  # each for itself, as Go does


def _lower_path(path: bytes) -> bytes:
    if path.isascii():
        return path.lower()
    return _lower(path.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


# --- from components to matching -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """Adjoining patterns of one kind. What is common, plain names and plain paths, is found without a search."""

    negated: bool
    ends: Callable[[bytes, bytes], bool]  # whether one matches a path (and its name) in its whole length
    above: re.Pattern[str]  # of the paths below which one could match


def _compile(negated: bool, patterns: list[_Parts]) -> _Group:
    names: set[bytes] = set()
    paths: set[bytes] = set()
    wild_names: list[str] = []
    last_names: list[str] = []
    wild_paths: list[str] = []
    above: list[str] = []
    everything = False
    for pattern in patterns:
        plain = [literal for literal in pattern.literals if literal is not None]
        above.append(_above(pattern))
        if not pattern.sources:
            everything = True
        elif len(plain) == len(pattern.literals) and pattern.absolute:
            paths.add(("/" + "/".join(plain)).encode("utf-8", "surrogateescape"))
        elif len(pattern.sources) > 1 or pattern.absolute:
            last_names.append(pattern.sources[-1] or "[^/]*")
            wild_paths.append(_whole(pattern))
        elif plain:
            names.add(plain[0].encode("utf-8", "surrogateescape"))
        else:
            wild_names.append(pattern.sources[0] or "[^/]*")
    by_name, by_last, by_path = _any(wild_names), _any(last_names), _any(wild_paths)

    def ends(path: bytes, name: bytes) -> bool:
        if name in names or path in paths:
            return True
        if by_name is None and by_last is None:
            return everything
        text = name.decode("utf-8", "surrogateescape")
        if by_name is not None and by_name.fullmatch(text):
            return True
        if by_last is not None and by_last.fullmatch(text):
            assert by_path is not None
            return everything or by_path.fullmatch(path.decode("utf-8", "surrogateescape")) is not None
        return everything

    return _Group(negated, ends, re.compile("|".join(above), re.DOTALL))


def _any(sources: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(sources), re.DOTALL) if sources else None


def _whole(pattern: _Parts) -> str:
    out = "/" if pattern.absolute else ".*/"
    for source in pattern.sources[:-1]:
        out += "(?:[^/]+/)*" if source is None else f"{source}/"
    return out + (pattern.sources[-1] or "")


def _above(pattern: _Parts) -> str:
    if not pattern.absolute:
        return ".*"
    out = ".*"  # below the whole pattern, or below what stands before `**`
    fixed = list(pattern.sources)
    if None in fixed:
        fixed = fixed[: fixed.index(None)]
    for source in reversed(fixed):
        out = f"/{source}(?:{out})?" if out != ".*" else f"/{source}(?:/.*)?"
    return out
