"""What an S3 server says in XML: errors and listings."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from urllib.parse import unquote

from backstay.repository.errors import StoreRefused


def parse_error(body: bytes) -> tuple[str, str]:
    """Code and message of an error, empty when the answer has none."""
    text = body[:8192].decode("utf-8", "replace")
    code = re.search(r"<Code>([^<]*)</Code>", text)
    message = re.search(r"<Message>([^<]*)</Message>", text)
    return (code[1] if code else ""), (message[1] if message else "")


def parse_listing(body: bytes, where: str) -> tuple[list[tuple[str, int]], str]:
    """Keys with sizes, and the token of the next page, empty on the last."""
    try:
        root = ElementTree.fromstring(body)
        space = root.tag[: root.tag.index("}") + 1] if root.tag.startswith("{") else ""
        url_encoded = root.findtext(f"{space}EncodingType") == "url"
        page = []
        for item in root.iter(f"{space}Contents"):
            key = item.findtext(f"{space}Key") or ""
            page.append((unquote(key) if url_encoded else key, int(item.findtext(f"{space}Size") or 0)))
    except (ElementTree.ParseError, ValueError) as error:
        raise StoreRefused(f"listing {where}: the answer is no S3 listing ({error}); check the endpoint") from error
    more = root.findtext(f"{space}IsTruncated") == "true"
    return page, (root.findtext(f"{space}NextContinuationToken") or "") if more else ""
