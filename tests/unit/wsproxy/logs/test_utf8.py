# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Never half a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsproxy.logs import utf8


@pytest.mark.parametrize(
    ("data", "tail"),
    [
        (b"", 0),
        (b"abc", 0),
        (b"abc\xc3", 1),
        (b"\xc3\xa9", 0),
        (b"\xe2", 1),
        (b"\xe2\x82", 2),
        (b"\xe2\x82\xac", 0),
        (b"\xf0\x9f\x98", 3),
        (b"\xf0\x9f\x98\x80", 0),
        (b"\x80", 0),
        (b"\x80\x80\x80\x80", 0),
        (b"\xc0", 0),
        (b"\xf5\x80", 0),
        (b"\xff", 0),
    ],
)
def test_only_a_begun_character_is_a_tail(data: bytes, tail: int) -> None:
    """Bytes that can begin no character are broken now and later: they are not held back."""
    assert utf8.incomplete_tail(data) == tail


@given(st.text(), st.integers(0, 3))
def test_text_without_its_tail_is_text(text: str, cut: int) -> None:
    """However text is cut, what comes before the tail decodes."""
    data = text.encode()
    data = data[: max(len(data) - cut, 0)]
    data[: len(data) - utf8.incomplete_tail(data)].decode()
