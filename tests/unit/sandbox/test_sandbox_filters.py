# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Filters and list options of the sandbox's API as SQL, and how they are refused."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.api import parameters
from sandbox.api.queries import filters, listing
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
CONTAINERS = Table("containers", "Container", "dz642", {"uuid": "text", "state": "text"})
REQUESTS = Table("container_requests", "ContainerRequest", "xvhdp", {"container_uuid": "text"})
TABLES = {"containers": CONTAINERS}


def compiled(*items: Any, table: Table = GROUPS) -> tuple[str, list[object]]:
    """The SQL of filters, and the values in it."""
    arguments = Arguments()
    return " AND ".join(filters.conditions(items, table, TABLES, arguments)), arguments.values


@pytest.mark.parametrize(
    ("item", "sql", "values"),
    [
        (["name", "=", "x"], "(groups.name = $1::text)", ["x"]),
        (["name", "=", None], "(groups.name IS NULL)", []),
        (["name", "!=", None], "(groups.name IS NOT NULL)", []),
        (["name", "!=", "x"], "((groups.name <> $1::text OR groups.name IS NULL))", ["x"]),
        (["name", "ILIKE", "x%"], "(groups.name ilike $1::text)", ["x%"]),
        (["id", ">", "7"], "(groups.id > $1::bigint)", [7]),
        (["id", "<", 7], "(groups.id < $1::bigint)", [7]),
        (["is_trashed", "=", "yes"], "(groups.is_trashed = $1::boolean)", [True]),
        (["name", "in", ["x", None]], "(groups.name = ANY($1::text[]))", [["x"]]),
        (["uuid", "is_a", "arvados#group"], "(true)", []),
        (["uuid", "is_a", ["arvados#user", "nonsense"]], "(false)", []),
        (
            ["owner_uuid", "is_a", "arvados#user"],
            "(substring(groups.owner_uuid, 7, 5) = ANY($1::text[]))",
            [["tpzed"]],
        ),
        (
            ["created_at", ">=", "2026-11-25T01:02:03.5Z"],
            "(groups.created_at >= $1::timestamp)",
            [datetime(2026, 11, 25, 1, 2, 3, 500_000)],
        ),
        (
            ["created_at", "<", "2026-11-25T03:00:00+02:00"],
            "(groups.created_at < $1::timestamp)",
            [datetime(2026, 11, 25, 1)],
        ),
        (
            ["properties.a", "=", 1],
            "(groups.properties @> $1::text::jsonb)",
            ['{"a": 1}'],
        ),
        (
            ["properties.<a.b>", "exists", True],
            "(jsonb_exists(groups.properties, $1::text))",
            ["a.b"],
        ),
        (
            [["name", "uuid"], "=", "x"],
            "(groups.name = $1::text OR groups.uuid = $2::text)",
            ["x", "x"],
        ),
    ],
)
def test_a_filter_becomes_a_condition(item: list[Any], sql: str, values: list[object]) -> None:
    """Values are placeholders with the type of the column."""
    assert compiled(item) == (sql, values)


def test_a_request_is_filtered_by_its_container() -> None:
    """`container.state` looks at the joined container."""
    sql, values = compiled(["container.state", "=", "Running"], table=REQUESTS)
    assert "containers.uuid = container_requests.container_uuid" in sql
    assert values == ["Running"]


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("x", 'Invalid element in filters array: "x" is not an array'),
        (["name"], "Invalid operator '' (NilClass) in filter"),
        (["nonsense", "=", "x"], "Invalid attribute 'nonsense' in filter"),
        (["name", "~", "x"], "Invalid operator '~'"),
        (["name", "in", "x"], "Invalid operand type 'String' for 'in' operator in filters"),
        (["name", "=", 1], "Invalid operand type 'Integer' for '=' operator in filters"),
        (["id", "=", [1]], "Invalid operand type 'Array' for '=' operator in filters"),
        (["created_at", ">", "not a time"], 'no time information in "not a time"'),
        (["is_trashed", "<", "x"], "Invalid operator '<' for boolean attribute"),
        (["any", "@@", "x"], "Full text search operator is no longer supported"),
        (["any", "=", "x"], "Invalid operand 'x' for boolean attribute 'is_trashed'"),
        (["name.x", "=", "x"], "Invalid attribute 'name' for subproperty filter"),
        (["properties.x", "~", "x"], "Invalid operator for subproperty search '~'"),
        (["secret_mounts.x", "=", "x"], "Invalid attribute 'secret_mounts' for subproperty filter"),
        (["api_token", "=", "x"], "Invalid attribute 'api_token' in filter"),
        (["api_token", "like", "x%"], "Invalid attribute 'api_token' in filter"),
    ],
)
def test_a_wrong_filter_is_refused_as_recorded(item: Any, text: str) -> None:
    """422 with the words of the Rails server; secrets cannot be searched for."""
    with pytest.raises(Refusal) as refused:
        compiled(item)
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
        sql, _ = compiled(item)
    except Refusal as refused:
        assert refused.status == 422
    else:
        assert "--" not in sql


def _order(order: list[str], **given: Any) -> str:
    wanted = listing.options({"order": order, **given})
    return listing.Query(GROUPS, "groups", [], Arguments()).rows(wanted, by_selected=True)


def test_order_is_completed_to_a_full_one() -> None:
    """Unknown attributes are left out; modified_at and uuid make pages repeatable."""
    sql = _order(["name desc", "nonsense", "other.name"])
    assert sql.endswith(
        'ORDER BY groups.name COLLATE "C" desc, groups.modified_at desc, '
        'groups.uuid COLLATE "C" desc LIMIT 100 OFFSET 0'
    )


def test_a_distinct_list_is_ordered_by_what_it_selects() -> None:
    """PostgreSQL demands it, and so it was recorded."""
    sql = _order(["name"], select=["owner_uuid"], distinct=True)
    assert sql.startswith("SELECT DISTINCT groups.owner_uuid FROM groups")
    assert "ORDER BY" not in sql


@pytest.mark.parametrize(
    ("given", "limit", "offset"),
    [
        ({}, 100, 0),
        ({"limit": "0"}, 0, 0),
        ({"limit": 5000, "offset": "7"}, 1000, 7),
    ],
)
def test_pages_are_at_most_a_thousand(given: dict[str, Any], limit: int, offset: int) -> None:
    """The limit in the answer is the asked one, cut to 1000."""
    wanted = listing.options(given)
    assert (wanted.limit, wanted.offset) == (limit, offset)


@pytest.mark.parametrize("given", [{"limit": "-1"}, {"limit": "many"}, {"offset": "x"},
                                   {"filters": "nonsense"}, {"select": "{}"}])  # fmt: skip
def test_options_that_make_no_sense_are_refused(given: dict[str, Any]) -> None:
    """422, never ignored."""
    with pytest.raises(Refusal):
        listing.options(given)


def test_an_unknown_attribute_can_not_be_selected() -> None:
    """The model is named as Rails names it."""
    with pytest.raises(Refusal, match="Invalid attribute 'x' of Group in select parameter"):
        listing.check_select(["x"], GROUPS)


def test_attributes_stand_in_a_wrapper_or_at_the_top() -> None:
    """A JSON text inside a form counts; what is no attribute is left out at the top level."""
    columns = GROUPS.columns
    assert parameters.attributes({"group": {"x": 1}}, "group", columns) == {"x": 1}
    assert parameters.attributes({"group": '{"x":1}'}, "group", columns) == {"x": 1}
    flat = {"name": "n", "select": "[]"}
    assert parameters.attributes(flat, "group", columns) == {"name": "n"}
    with pytest.raises(Refusal):
        parameters.attributes({"group": "x"}, "group", columns)


def test_a_body_is_read_by_its_type() -> None:
    """JSON objects and forms carry parameters; a JSON array carries none, bad JSON is refused."""
    assert parameters.body("application/json; charset=utf-8", b'{"a": [1]}') == {"a": [1]}
    assert parameters.body("application/json", b"[1]") == {}
    assert parameters.body("application/x-www-form-urlencoded", b"a=1&b=%5B%5D") == {
        "a": "1",
        "b": "[]",
    }
    assert parameters.body("text/plain", b"a=1") == {}
    with pytest.raises(Refusal):
        parameters.body("application/json", b'{"a"')
