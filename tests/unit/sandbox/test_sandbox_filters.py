# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Filters of the sandbox's API as SQL; what each means is in golden/api.json."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.api.queries import filters
from sandbox.api.queries.arguments import Arguments
from sandbox.api.queries.tables import Table
from sandbox.model.refusal import Refusal

GROUPS = Table(
    "groups",
    "Group",
    "j7d0g",
    {
        "id": "integer", "uuid": "text", "owner_uuid": "text", "name": "text",
        "created_at": "datetime", "modified_at": "datetime", "is_trashed": "boolean",
        "properties": "jsonb", "secret_mounts": "jsonb", "api_token": "text",
    },
)  # fmt: skip


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (["name", "=", 1], "Invalid operand type 'Integer' for '=' operator in filters"),
        (["id", "=", [1]], "Invalid operand type 'Array' for '=' operator in filters"),
        (["is_trashed", "<", "x"], "Invalid operator '<' for boolean attribute"),
        (["name.x", "=", "x"], "Invalid attribute 'name' for subproperty filter"),
        (["properties.x", "~", "x"], "Invalid operator for subproperty search '~'"),
        (["secret_mounts.x", "=", "x"], "Invalid attribute 'secret_mounts' for subproperty filter"),
        (["api_token", "=", "x"], "Invalid attribute 'api_token' in filter"),
        (["api_token", "like", "x%"], "Invalid attribute 'api_token' in filter"),
    ],
)
def test_what_was_not_recorded_is_refused_too(item: Any, text: str) -> None:
    """422; secrets cannot be searched for."""
    with pytest.raises(Refusal) as refused:
        filters.conditions([item], GROUPS, {}, Arguments())
    assert refused.value.status == 422
    assert refused.value.messages == (f"#<ArgumentError: {text}>",)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from(["name", "id", "any", "=", "in", "like", "properties.a", "is_a", "'; --"]),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
))  # fmt: skip
def test_no_filter_puts_its_text_into_the_sql(item: Any) -> None:
    """Whatever is sent is either refused or ends in placeholders."""
    try:
        sql = "".join(filters.conditions([item], GROUPS, {}, Arguments()))
    except Refusal as refused:
        assert refused.status == 422
    else:
        assert "--" not in sql
