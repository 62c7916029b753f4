# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Scopes as the column holds them."""

from __future__ import annotations

import pytest

from publishers.permissions.token_query import scopes_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["all"]', ("all",)),
        ('["GET /arvados/v1/", "POST /x"]', ("GET /arvados/v1/", "POST /x")),
        ("---\n- all\n", ("all",)),
        ("--- []\n", ()),
        ("[]", ()),
        ("", ()),
        ('"all"', ()),
        ("{", ()),
        ("all", ()),
    ],
)
def test_scopes_are_read_or_allow_nothing(text: str, expected: tuple[str, ...]) -> None:
    """JSON, YAML of old rows; what is neither is no scope at all (fail closed)."""
    assert scopes_of(text) == expected
