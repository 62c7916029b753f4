# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Ranges and folder listings as Go's `http.ServeContent` and `webdav.Handler` answer them.

Pure. The container log endpoint is a WebDAV folder (docs/facts/arvados.md 4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import quote
from xml.sax.saxutils import escape

from sandbox.logs.log_files import Source

ALLOW_FILE = "OPTIONS, LOCK, GET, HEAD, POST, DELETE, PROPPATCH, COPY, MOVE, UNLOCK, PROPFIND, PUT"
ALLOW_FOLDER = "OPTIONS, LOCK, DELETE, PROPPATCH, COPY, MOVE, UNLOCK, PROPFIND"
ALLOW_NOTHING = "OPTIONS, LOCK, PUT, MKCOL"

_RANGE = re.compile(r"(\d*)-(\d*)")


@dataclass(frozen=True, slots=True)
class Part:
    """What to answer of a file: status 200, 206 or 416, bytes `start` up to before `stop`."""

    status: int
    start: int
    stop: int
    content_range: str | None


def part(header: str | None, size: int) -> Part:
    """The part of a file of `size` bytes that a Range header asks for.

    An empty file answers 200 to any range that does not overlap it; `bytes=-0` answers 206 with no
    bytes and the size.
    """
    whole = Part(200, 0, size, None)
    if not header:
        return whole
    unit, _, ranges = header.partition("=")
    match = _RANGE.fullmatch(ranges.replace(" ", ""))
    if "," in ranges and unit == "bytes":
        return whole
    if unit != "bytes" or match is None or match[0] == "-":
        return Part(416, 0, 0, None)
    first, last = match[1], match[2]
    if not first:
        start = size - min(int(last), size)
        return _partial(start, size, size)
    if last and int(last) < int(first):
        return Part(416, 0, 0, None)
    if int(first) >= size:
        return whole if size == 0 else Part(416, 0, 0, f"bytes */{size}")
    return _partial(int(first), min(int(last) + 1, size) if last else size, size)


def _partial(start: int, stop: int, size: int) -> Part:
    return Part(206, start, stop, f"bytes {start}-{stop - 1}/{size}")


def etag(content: Source) -> str:
    """The entity tag of a file: time of change and size, both in hexadecimal."""
    return f'"{int(content.modified * 1e9):x}{content.size:x}"'


def time_of(content: Source) -> str:
    """When a file was changed last, as headers say it."""
    return formatdate(content.modified, usegmt=True)


def children(files: Mapping[str, Source], folder: str) -> dict[str, Source | None] | None:
    """Name -> content of the direct children of a folder (None for a folder in it).

    `folder` is "" for the root, "a/b" below it. None when there is no such folder.
    """
    prefix = f"{folder}/" if folder else ""
    found: dict[str, Source | None] = {}
    for path, content in files.items():
        if path.startswith(prefix):
            name, _, rest = path[len(prefix) :].partition("/")
            found[name] = None if rest else content
    return found if found or not folder else None


def multistatus(href: str, entries: Mapping[str, Source | None]) -> bytes:
    """The 207 answer for the folder at `href` and its direct children."""
    base = quote(href.rstrip("/"))
    responses = [_folder(f"{base}/", href.rstrip("/").rpartition("/")[2])]
    for name, content in sorted(entries.items()):
        place = f"{base}/{quote(name)}"
        responses.append(
            _folder(f"{place}/", name) if content is None else _file(place, name, content)
        )
    return _document(responses)


def file_status(href: str, content: Source) -> bytes:
    """The 207 answer for one file."""
    return _document([_file(quote(href), href.rpartition("/")[2], content)])


def _document(responses: list[str]) -> bytes:
    text = '<?xml version="1.0" encoding="UTF-8"?><D:multistatus xmlns:D="DAV:">'
    return (text + "".join(responses) + "</D:multistatus>").encode()


def _response(href: str, properties: str) -> str:
    return (
        f"<D:response><D:href>{escape(href)}</D:href><D:propstat><D:prop>{properties}"
        "<D:supportedlock></D:supportedlock></D:prop><D:status>HTTP/1.1 200 OK</D:status>"
        "</D:propstat></D:response>"
    )


def _folder(href: str, name: str) -> str:
    return _response(
        href,
        '<D:resourcetype><D:collection xmlns:D="DAV:"/></D:resourcetype>'
        f"<D:displayname>{escape(name)}</D:displayname>"
        f"<D:getlastmodified>{formatdate(0, usegmt=True)}</D:getlastmodified>",
    )


def _file(href: str, name: str, content: Source) -> str:
    return _response(
        href,
        "<D:resourcetype></D:resourcetype>"
        f"<D:displayname>{escape(name)}</D:displayname>"
        f"<D:getcontentlength>{content.size}</D:getcontentlength>"
        f"<D:getlastmodified>{time_of(content)}</D:getlastmodified>"
        "<D:getcontenttype>text/plain; charset=utf-8</D:getcontenttype>"
        f"<D:getetag>{escape(etag(content))}</D:getetag>",
    )
