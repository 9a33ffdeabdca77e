"""An archive that is one large file: a stream, or a device's image.

The ids of its blobs are kept as 32 bytes each, and become JSON piece by piece: a device of 1 TiB in blobs of 8 MiB has
131,072 of them, which are 4 MiB here and 9 MiB in its tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from backstay.repository.format import tree
from backstay.repository.format.blob import BlobType
from backstay.repository.format.tree import Node
from backstay.repository.outcome import Archive, Warning

if TYPE_CHECKING:
    from backstay.repository.archive.writer import Writer

ID = 32  # bytes
_IDS_AT_ONCE = 4096


def save_tree(writer: Writer, node: Node, ids: bytes | bytearray) -> bytes:
    """Store the tree that holds only the file `node` with the blobs `ids`, one after the other; the tree's id."""
    encoded = tree.encode_node(msgspec.structs.replace(node, content=()))
    head, closing = encoded[:-2], encoded[-2:]
    assert closing == "]}", "the content is the last member of a file's node"
    document = bytearray(f'{{"nodes":[{head}'.encode())
    separator = '"'
    for at in range(0, len(ids), _IDS_AT_ONCE * ID):
        digits = ids[at : at + _IDS_AT_ONCE * ID].hex()
        texts = [digits[start : start + 2 * ID] for start in range(0, len(digits), 2 * ID)]
        document += (separator + '","'.join(texts) + '"').encode()
        separator = ',"'
    document += b"]}]}\n"
    return writer.save_blob(BlobType.TREE, bytes(document))


class Tally:
    """What one run adds, through a writer that may have done other work before."""

    def __init__(self, writer: Writer) -> None:
        """Begin to count."""
        self._writer = writer
        self._bytes = writer.added_bytes
        self._plain = writer.added_plain_bytes
        self._blobs = {kind: writer.added_blobs(kind) for kind in BlobType}

    def archive(self, tree_id: bytes, size: int, *, is_new: bool = True, warnings: tuple[Warning, ...] = ()) -> Archive:
        """The archive of one file of `size` bytes. `warnings`: of changes while it was read."""
        writer = self._writer
        return Archive(
            tree=tree_id.hex(),
            files=1,
            dirs=0,
            bytes=size,
            added_bytes=writer.added_bytes - self._bytes,
            warnings=warnings,
            warning_count=len(warnings),
            changed_while_read=len(warnings),
            files_new=int(is_new),
            files_changed=int(not is_new),
            data_blobs=writer.added_blobs(BlobType.DATA) - self._blobs[BlobType.DATA],
            tree_blobs=writer.added_blobs(BlobType.TREE) - self._blobs[BlobType.TREE],
            data_added=writer.added_plain_bytes - self._plain,
        )
