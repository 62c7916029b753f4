# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Ranges and listings as Go's HTTP and WebDAV servers answer them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from sandbox.api.handlers import webdav
from sandbox.api.handlers.webdav import Part
from sandbox.logs.log_files import GrowingFile


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        (None, 10, Part(200, 0, 10, None)),
        ("bytes=0-", 10, Part(206, 0, 10, "bytes 0-9/10")),
        ("bytes=4-", 10, Part(206, 4, 10, "bytes 4-9/10")),
        ("bytes=4-5", 10, Part(206, 4, 6, "bytes 4-5/10")),
        ("bytes=4-500", 10, Part(206, 4, 10, "bytes 4-9/10")),
        ("bytes=-3", 10, Part(206, 7, 10, "bytes 7-9/10")),
        ("bytes=-300", 10, Part(206, 0, 10, "bytes 0-9/10")),
        ("bytes=-0", 10, Part(206, 10, 10, "bytes 10-9/10")),
        ("bytes=-0", 0, Part(206, 0, 0, "bytes 0--1/0")),
        ("bytes=10-", 10, Part(416, 0, 0, "bytes */10")),
        ("bytes=11-12", 10, Part(416, 0, 0, "bytes */10")),
        ("bytes=0-0", 0, Part(200, 0, 0, None)),
        ("bytes=7-", 0, Part(200, 0, 0, None)),
        ("bytes=5-4", 10, Part(416, 0, 0, None)),
        ("bytes=-", 10, Part(416, 0, 0, None)),
        ("bytes=x-", 10, Part(416, 0, 0, None)),
        ("lines=1-2", 10, Part(416, 0, 0, None)),
        ("bytes=0-1,4-5", 10, Part(200, 0, 10, None)),
    ],
)
def test_a_range_is_cut_as_go_cuts_it(header: str | None, size: int, expected: Part) -> None:
    """206 with Content-Range, 416 past the end, the whole file where the header is ignored."""
    assert webdav.part(header, size) == expected


def _listed(document: bytes) -> dict[str, str | None]:
    root = ElementTree.fromstring(document)
    return {
        str(item.findtext("{DAV:}href")): item.findtext(".//{DAV:}getcontentlength")
        for item in root
    }


def test_a_folder_lists_itself_and_its_children() -> None:
    """Files have a size, folders none and a slash at their end."""
    files = {"a b.txt": GrowingFile(b"123"), "x/y.txt": GrowingFile(), "<&>.txt": GrowingFile(b"1")}
    entries = webdav.children(files, "")
    assert entries is not None
    assert _listed(webdav.multistatus("/log/k", entries)) == {
        "/log/k/": None,
        "/log/k/a%20b.txt": "3",
        "/log/k/x/": None,
        "/log/k/%3C%26%3E.txt": "1",
    }


def test_a_folder_is_there_only_with_something_in_it() -> None:
    """The root may be empty; a folder below it exists by its files."""
    files = {"x/y.txt": GrowingFile(b"12")}
    below = webdav.children(files, "x")
    assert below is not None
    assert [*below] == ["y.txt"]
    assert webdav.children(files, "z") is None
    assert webdav.children({}, "") == {}


def test_the_tag_changes_with_the_content() -> None:
    """A client that compares tags sees an append."""
    file = GrowingFile(b"1")
    before = webdav.etag(file)
    file.append(b"2")
    assert webdav.etag(file) != before
