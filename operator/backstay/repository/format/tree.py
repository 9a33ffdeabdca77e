"""Trees: directories as lists of nodes, in the exact bytes that restic would write.

The encoding is not free: a tree's id is the hash of its JSON, and restic's `rewrite`, `copy` and `repair` decode a tree
and expect to get the same bytes when they encode it again. So field order, empty fields, escapes and the form of times
are those of Go's encoding/json for restic's Node. See "Trees and Data" in restic's design document.

Names are bytes on disk. In a tree they are first quoted as Go quotes strings, which makes valid UTF-8 of any bytes, and
then written as JSON. In memory a name is a `str` with surrogate escapes, as `os.fsdecode` gives it.
"""

from __future__ import annotations

import base64
import itertools
import re
import stat
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from backstay.repository.format import rfc3339
from backstay.repository.format.malformed import MALFORMED, malformed

# Bits of Go's fs.FileMode; the low nine are the usual permissions.
MODE_DIR = 1 << 31
MODE_SYMLINK = 1 << 27
MODE_DEVICE = 1 << 26
MODE_FIFO = 1 << 25
MODE_SOCKET = 1 << 24
MODE_SETUID = 1 << 23
MODE_SETGID = 1 << 22
MODE_CHAR_DEVICE = 1 << 21
MODE_STICKY = 1 << 20

_TYPE_BITS = {
    stat.S_IFREG: 0,
    stat.S_IFDIR: MODE_DIR,
    stat.S_IFLNK: MODE_SYMLINK,
    stat.S_IFBLK: MODE_DEVICE,
    stat.S_IFCHR: MODE_DEVICE | MODE_CHAR_DEVICE,
    stat.S_IFIFO: MODE_FIFO,
    stat.S_IFSOCK: MODE_SOCKET,
}
_TYPE_NAMES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFBLK: "dev",
    stat.S_IFCHR: "chardev",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a directory.

    `type`: file, dir, symlink, dev, chardev, fifo or socket. `mode`: Go mode bits (`unix_mode` gives the usual ones).
    Times: nanoseconds since 1970, UTC. `size`: bytes, of files only. `content`: hexadecimal blob ids of a file, None
    for the rest. `subtree`: hexadecimal tree id of a directory. `device_id`: tells file systems apart, set for hard
    links only. `device`: device number of a device node. `xattrs`: names and values of extended attributes.
    """

    name: str
    type: str
    mode: int = 0
    mtime: int = 0
    atime: int = 0
    ctime: int = 0
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    inode: int = 0
    device_id: int = 0
    size: int = 0
    links: int = 0
    linktarget: str = ""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    device: int = 0
    content: tuple[str, ...] | None = None
    subtree: str = ""
    error: str = ""

    @property
    def unix_mode(self) -> int:
        """Permissions with set-uid, set-gid and sticky bit, as chmod takes them."""
        return unix_mode(self.mode)


def go_mode(mode: int) -> int:
    """Go's fs.FileMode of a `st_mode`."""
    bits = (mode & 0o777) | _TYPE_BITS[stat.S_IFMT(mode)]
    if mode & 0o7000:
        if mode & stat.S_ISUID:
            bits |= MODE_SETUID
        if mode & stat.S_ISGID:
            bits |= MODE_SETGID
        if mode & stat.S_ISVTX:
            bits |= MODE_STICKY
    return bits


def unix_mode(mode: int) -> int:
    """The permission bits that chmod takes, of Go's fs.FileMode."""
    bits = mode & 0o777
    if mode & MODE_SETUID:
        bits |= stat.S_ISUID
    if mode & MODE_SETGID:
        bits |= stat.S_ISGID
    if mode & MODE_STICKY:
        bits |= stat.S_ISVTX
    return bits


def type_name(mode: int) -> str:
    """restic's word for the file type in a `st_mode`."""
    return _TYPE_NAMES[stat.S_IFMT(mode)]


# --- names: Go's strconv.Quote and Unquote ---------------------------------------------------------------------------

_PLAIN = re.compile(r"[ !#-\[\]-~]*")  # what neither Go's quoting nor JSON changes, but for <, > and &
_GO_ESCAPES = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


def quote(name: str) -> str:
    """`name` (surrogate escapes for bytes that are no UTF-8) as Go's strconv.Quote writes it, without the quotes."""
    if _PLAIN.fullmatch(name):
        return name
    out = []
    for character in name:
        code = ord(character)
        if code in _GO_ESCAPES:
            out.append(_GO_ESCAPES[code])
        elif 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        elif character.isprintable():
            out.append(character)
        elif code < 0x20 or code == 0x7F:
            out.append(f"\\x{code:02x}")
        elif code < 0x10000:
            out.append(f"\\u{code:04x}")
        else:
            out.append(f"\\U{code:08x}")
    return "".join(out)


_GO_QUOTED = re.compile(rb'\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|([abfnrtv\\"]))')
_GO_UNESCAPES = {b"a": 7, b"b": 8, b"f": 12, b"n": 10, b"r": 13, b"t": 9, b"v": 11, b"\\": 92, b'"': 34}


def unquote(text: str) -> str:
    """The name that Go quoted as `text`. Raises ValueError when Go's strconv.Unquote would refuse it."""
    if "\\" not in text:
        if '"' in text or "\n" in text:
            raise ValueError(f"{text!r} is not a quoted name")
        return text
    raw = text.encode("utf-8")
    out = bytearray()
    position = 0
    while (found := raw.find(b"\\", position)) >= 0:
        out += raw[position:found]
        match = _GO_QUOTED.match(raw, found)
        if match is None:
            raise ValueError(f"{text!r} is not a quoted name")
        byte, short, long, octal, letter = match.groups()
        if byte:
            out.append(int(byte, 16))
        elif octal:
            if int(octal, 8) > 255:
                raise ValueError(f"{text!r} is not a quoted name")
            out.append(int(octal, 8))
        elif letter:
            out.append(_GO_UNESCAPES[letter])
        else:
            code = int(short or long, 16)
            if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
                raise ValueError(f"{text!r} is not a quoted name")
            out += chr(code).encode()
        position = match.end()
    out += raw[position:]
    return out.decode("utf-8", "surrogateescape")


# --- JSON as Go's encoder writes it ----------------------------------------------------------------------------------

_JSON_SPECIAL = re.compile('[\x00-\x1f"\\\\<>&\u2028\u2029]')
_JSON_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def json_string(text: str) -> str:
    """A JSON string, quotes included, with the characters escaped that Go's encoding/json escapes."""
    if _JSON_SPECIAL.search(text) is None:
        return f'"{text}"'
    escaped = _JSON_SPECIAL.sub(lambda m: _JSON_ESCAPES.get(m[0]) or f"\\u{ord(m[0]):04x}", text)
    return f'"{escaped}"'


def linktarget_fields(target: str) -> str:
    """The JSON members for a symlink's target (surrogate escapes for bytes that are no UTF-8), with a leading comma."""
    try:
        target.encode("utf-8")
    except UnicodeEncodeError:
        raw = target.encode("utf-8", "surrogateescape")
        shown = "".join("\\ufffd" if 0xDC80 <= ord(c) <= 0xDCFF else json_string(c)[1:-1] for c in target)
        return f',"linktarget":"{shown}","linktarget_raw":"{base64.b64encode(raw).decode()}"'
    return f',"linktarget":{json_string(target)}' if target else ""


_SURROGATE = re.compile("[\udc80-\udcff]")


def xattr_fields(xattrs: Iterable[tuple[str, bytes]]) -> str:
    """The JSON member for extended attributes, with a leading comma; empty when there are none."""
    members = []
    for name, value in xattrs:
        shown = json_string(_SURROGATE.sub("\ufffd", name))  # the format has no place for other bytes
        members.append(f'{{"name":{shown},"value":"{base64.b64encode(value).decode()}"}}')
    return f',"extended_attributes":[{",".join(members)}]' if members else ""


def encode_node(node: Node) -> str:
    """One node as JSON."""
    parts = [f'{{"name":{json_string(quote(node.name))},"type":{json_string(node.type)}']
    if node.mode:
        parts.append(f',"mode":{node.mode}')
    parts.append(
        f',"mtime":"{rfc3339.from_ns(node.mtime)}","atime":"{rfc3339.from_ns(node.atime)}"'
        f',"ctime":"{rfc3339.from_ns(node.ctime)}","uid":{node.uid},"gid":{node.gid}'
    )
    parts.extend(
        f',"{key}":{json_string(value)}' for key, value in (("user", node.user), ("group", node.group)) if value
    )
    numbers = (("inode", node.inode), ("device_id", node.device_id), ("size", node.size), ("links", node.links))
    parts.extend(f',"{key}":{value}' for key, value in numbers if value)
    parts.append(linktarget_fields(node.linktarget))
    parts.append(xattr_fields(node.xattrs))
    if node.device:
        parts.append(f',"device":{node.device}')
    if node.content is None:
        parts.append(',"content":null')
    else:
        parts.append(',"content":["' + '","'.join(node.content) + '"]' if node.content else ',"content":[]')
    if node.subtree:
        parts.append(f',"subtree":"{node.subtree}"')
    if node.error:
        parts.append(f',"error":{json_string(node.error)}')
    parts.append("}")
    return "".join(parts)


def name_bytes(name: str) -> bytes:
    """The bytes of a name on disk, by which nodes are ordered. Raises ValueError when no file could be named so."""
    return name.encode("utf-8", "surrogateescape")


def name_text(name: bytes) -> str:
    """A name on disk as it is held in memory; the reverse of `name_bytes`, whatever the locale."""
    return name.decode("utf-8", "surrogateescape")


def join(encoded: Sequence[str]) -> bytes:
    """The tree blob of nodes that are encoded and in order."""
    return ('{"nodes":[' + ",".join(encoded) + "]}\n").encode("utf-8")


def encode(nodes: Iterable[Node]) -> bytes:
    """A tree blob. The nodes may come in any order; raises ValueError when two share a name."""
    ordered = sorted(nodes, key=lambda node: name_bytes(node.name))
    for before, after in itertools.pairwise(ordered):
        if before.name == after.name:
            raise ValueError(f"two nodes of one tree are named {after.name!r}")
    return join([encode_node(node) for node in ordered])


class _XattrJSON(msgspec.Struct):
    name: str
    value: bytes | None = None


class NodeJSON(msgspec.Struct, gc=False):
    """A node as it stands in the JSON, names quoted and times as text; what comparing with a parent needs, cheaply."""

    name: str
    type: str
    mode: int = 0
    mtime: str = ""
    atime: str = ""
    ctime: str = ""
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    inode: int = 0
    device_id: int = 0
    size: int = 0
    links: int = 0
    linktarget: str = ""
    linktarget_raw: bytes | None = None
    extended_attributes: list[_XattrJSON] | None = None
    device: int = 0
    content: list[str] | None = None
    subtree: str | None = None
    error: str = ""


class _TreeJSON(msgspec.Struct):
    nodes: list[NodeJSON] | None


_decoder = msgspec.json.Decoder(_TreeJSON)


def decode_raw(data: bytes, tree_id: str) -> list[NodeJSON]:
    """The nodes of a tree blob, as they stand in the JSON. Raises Corrupted, naming the tree."""
    try:
        return _decoder.decode(data).nodes or []
    except MALFORMED as error:
        raise malformed(f"tree {tree_id} decrypts but is no tree document", error) from error


def to_node(raw: NodeJSON) -> Node:
    """A node out of its form in the JSON. Raises ValueError when its name or a time cannot be read."""
    target = raw.linktarget
    if raw.linktarget_raw is not None:
        target = raw.linktarget_raw.decode("utf-8", "surrogateescape")
    return Node(
        name=unquote(raw.name),
        type=raw.type,
        mode=raw.mode,
        mtime=rfc3339.to_ns(raw.mtime),
        atime=rfc3339.to_ns(raw.atime),
        ctime=rfc3339.to_ns(raw.ctime),
        uid=raw.uid,
        gid=raw.gid,
        user=raw.user,
        group=raw.group,
        inode=raw.inode,
        device_id=raw.device_id,
        size=raw.size,
        links=raw.links,
        linktarget=target,
        xattrs=tuple((x.name, x.value or b"") for x in raw.extended_attributes or ()),
        device=raw.device,
        content=None if raw.content is None else tuple(raw.content),
        subtree=raw.subtree or "",
        error=raw.error,
    )


def decode(data: bytes, tree_id: str) -> list[Node]:
    """The nodes of a tree blob. Raises Corrupted, naming the tree and what is wrong with it."""
    try:
        return [to_node(raw) for raw in decode_raw(data, tree_id)]
    except MALFORMED as error:
        raise malformed(f"tree {tree_id} holds a node that cannot be read", error) from error


# --- the trees of huge directories ------------------------------------------------------------------------------------

_OPENING = b'{"nodes":['
_BOUNDARY = re.compile(rb'\},\{"name":"(?:[^"\\]|\\.)*","type":')  # an attribute has a name too, but no type
_array_decoder = msgspec.json.Decoder(list[NodeJSON])
_raw_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def arrays(pieces: Iterator[bytes], tree_id: str) -> Iterator[bytes]:
    """The nodes of a tree blob that comes in pieces, as JSON arrays, of which few are held at a time.

    Raises Corrupted, naming the tree, when it is none.
    """
    rest = next(pieces, b"")
    if not rest.startswith(_OPENING):
        yield b"[" + b",".join(_raw_nodes(rest + b"".join(pieces), tree_id)) + b"]"
        return
    rest = rest[len(_OPENING) :]
    for piece in pieces:
        rest += piece
        end = _last_boundary(rest)
        if end:
            yield b"[" + rest[:end] + b"]"
            rest = rest[end + 1 :]
    yield b"[" + rest.rstrip().removesuffix(b"]}") + b"]"


def decode_array(array: bytes, tree_id: str) -> list[NodeJSON]:
    """The nodes of one of the arrays. Raises Corrupted, naming the tree."""
    try:
        return _array_decoder.decode(array)
    except MALFORMED as error:
        raise malformed(f"tree {tree_id} decrypts but is no tree document", error) from error


def batches(pieces: Iterator[bytes], tree_id: str) -> Iterator[list[NodeJSON]]:
    """The nodes of a tree blob that comes in pieces, those together that are held together. Raises Corrupted."""
    for array in arrays(pieces, tree_id):
        yield decode_array(array, tree_id)


def texts(array: bytes) -> list[bytes]:
    """The nodes of one of the arrays as they stand there, when it could be decoded."""
    return [bytes(raw) for raw in _raw_decoder.decode(array)]


class _RawTree(msgspec.Struct):
    nodes: list[msgspec.Raw] | None


def _raw_nodes(data: bytes, tree_id: str) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(data, type=_RawTree).nodes or []
    except MALFORMED as error:
        raise malformed(f"tree {tree_id} decrypts but is no tree document", error) from error


def _last_boundary(text: bytes) -> int:
    """Where the last node but one ends, 0 when there is only one."""
    at = len(text)
    while (at := text.rfind(b'},{"name":"', 0, at)) > 0:
        if _BOUNDARY.match(text, at):
            return at + 1
    return 0


def stream(pieces: Iterator[bytes], tree_id: str) -> Iterator[Node]:
    """As `decode`, for a tree blob that comes in pieces."""
    for batch in batches(pieces, tree_id):
        try:
            nodes = [to_node(raw) for raw in batch]
        except ValueError as error:
            raise malformed(f"tree {tree_id} holds a node that cannot be read", error) from error
        yield from nodes
