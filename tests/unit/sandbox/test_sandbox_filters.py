# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Filters of the sandbox's API as SQL; what each means is in golden/api.json."""

from __future__ import annotations

from typing import Any

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
