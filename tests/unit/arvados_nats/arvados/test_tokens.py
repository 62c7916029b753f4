# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Tokens: read as Arvados reads them, and never shown."""

from __future__ import annotations

import pytest

from arvados_nats.arvados.tokens import Token

UUID = "zzzzz-gj3su-000000000000001"
CONTAINER = "zzzzz-dz642-000000000000001"


@pytest.mark.parametrize(
    ("text", "uuid", "container"),
    [
        ("abcdef", None, None),
        (f"v2/{UUID}/abcdef", UUID, None),
        (f"v2/{UUID}/abcdef/{CONTAINER}", UUID, CONTAINER),
        (f"v2/{UUID}/abcdef/nonsense", UUID, None),
        ("v2/nonsense/abcdef", None, None),
        (f"v1/{UUID}/abcdef", None, None),
        ("", None, None),
    ],
)
def test_forms(text: str, uuid: str | None, container: str | None) -> None:
    """The forms of docs/facts/arvados.md 2 and 9: a fourth part that is no container uuid is
    ignored."""
    token = Token(text)
    assert (token.uuid, token.container_uuid) == (uuid, container)


@pytest.mark.parametrize("text", ["abcdef", f"v2/{UUID}/abcdef", "undefined"])
def test_a_token_is_never_shown(text: str) -> None:
    """Neither str nor repr, nor a dataclass around it, shows the secret."""
    token = Token(text)
    for shown in (str(token), repr(token), f"{token}", repr([token])):
        assert "abcdef" not in shown
        assert "undefined" not in shown


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "é", "x" * 9000])
def test_what_can_not_be_a_header_is_not_usable(text: str) -> None:
    """Such a token is refused before it reaches an HTTP client."""
    assert not Token(text).usable


def test_tokens_are_told_apart_by_digest() -> None:
    """Equal tokens have equal digests, others have not."""
    assert Token("a").digest == Token("a").digest != Token("b").digest
