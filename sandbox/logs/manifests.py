# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Manifests of Keep collections: a text that lists streams, blocks and the files in them.

Pure. One line is one stream: its name, block locators `<md5>+<size>[+…]`, and file tokens
`<position>:<size>:<name>`; a space inside a name is written `\\040`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sandbox.logs.log_files import Snapshot

EMPTY_BLOCK = "d41d8cd98f00b204e9800998ecf8427e+0"

_ESCAPE = re.compile(r"\\(\d{3})")
_FILE_TOKEN = re.compile(r"(\d+):(\d+):(\S+)")


@dataclass(frozen=True, slots=True)
class Segment:
    """`length` bytes of the block `locator` (a hash), from `offset` in it."""

    locator: str
    offset: int
    length: int


def escape(name: str) -> str:
    """A name as a manifest writes it."""
    return re.sub(r"[\s\\]", lambda match: f"\\{ord(match[0]):03o}", name)


def unescape(name: str) -> str:
    """A name as people write it."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), name)


def write(files: Mapping[str, Snapshot]) -> str:
    """The manifest of one folder of files, each in a block of its own."""
    if not files:
        return ""
    blocks, tokens, position = [], [], 0
    for name, content in sorted(files.items()):
        if content.size:
            blocks.append(f"{content.name}+{content.size}")
        tokens.append(f"{position}:{content.size}:{escape(name)}")
        position += content.size
    return " ".join([".", *(blocks or [EMPTY_BLOCK]), *tokens]) + "\n"


def files(manifest: str) -> dict[str, list[Segment]]:
    """Path (`stdout.txt`, `folder/stdout.txt`) -> where its bytes are."""
    found: dict[str, list[Segment]] = {}
    for line in manifest.splitlines():
        stream, *tokens = line.split(" ")
        folder = unescape(stream).removeprefix(".").lstrip("/")
        blocks = [_block(token) for token in tokens if not _FILE_TOKEN.fullmatch(token)]
        for match in filter(None, map(_FILE_TOKEN.fullmatch, tokens)):
            path = f"{folder}/{unescape(match[3])}" if folder else unescape(match[3])
            segments = _segments(blocks, int(match[1]), int(match[2]))
            found.setdefault(path, []).extend(segments)
    return found


def _block(token: str) -> tuple[str, int]:
    locator, size = token.split("+")[:2]
    return locator, int(size)


def _segments(blocks: list[tuple[str, int]], position: int, size: int) -> Iterator[Segment]:
    start = 0
    for locator, length in blocks:
        first = max(position, start)
        last = min(position + size, start + length)
        if first < last:
            yield Segment(locator, first - start, last - first)
        start += length
