# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a WebDAV listing of a container's log folder says of its files. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote
from xml.etree import ElementTree

from arvados_nats.errors import Unavailable

_DAV = "{DAV:}"
_LONGEST_SIZE = 18


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: its size in bytes, and what a GET of it says in headers of these names."""

    size: int
    etag: str
    last_modified: str
    content_type: str


@dataclass(frozen=True, slots=True)
class Form:
    """How a listing is asked for: with or without the last slash, and the Depth header."""

    slash: str = "/"
    depth: str | None = "1"


@dataclass(frozen=True, slots=True)
class Listing:
    """A multistatus as Arvados sent it, and the files in it by name."""

    body: bytes
    content_type: str
    files: dict[str, Entry]


def entries(multistatus: bytes) -> dict[str, Entry]:
    """The files by name, folders left out; Unavailable if it is no multistatus."""
    try:
        root = ElementTree.fromstring(multistatus)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise Unavailable("the log folder's listing is no WebDAV multistatus") from error
    found = {}
    for response in root.iter(f"{_DAV}response"):
        name = unquote((response.findtext(f"{_DAV}href") or "").rpartition("/")[2])
        told = {element.tag.removeprefix(_DAV): element.text or "" for element in response.iter()}
        length = told.get("getcontentlength", "")
        if name and "/" not in name and length.isdecimal() and len(length) <= _LONGEST_SIZE:
            found[name] = Entry(
                int(length),
                told.get("getetag", ""),
                told.get("getlastmodified", ""),
                told.get("getcontenttype", ""),
            )
    return found
