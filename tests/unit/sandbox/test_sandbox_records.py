# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Rows of the pretend cluster: times, types, and what is a change."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from arvados_nats.contract.subjects import KIND_OF_NAME
from sandbox.model import attributes, records
from sandbox.model.crunch import transitions
from sandbox.model.records import Record, Table
from sandbox.model.rules import Problems

TABLE = Table(
    KIND_OF_NAME["container"],
    {
        "id": "bigint", "uuid": "character varying", "state": "character varying",
        "progress": "double precision", "mounts": "text",
        "started_at": "timestamp without time zone", "runtime_status": "jsonb",
        "service": "boolean",
    },
)  # fmt: skip


def _record(**was: Any) -> Record:
    row = {**dict.fromkeys(TABLE.columns), "uuid": "zzzzz-dz642-000000000000000", **was}
    return Record(TABLE, dict(row), dict(row))


def test_times_are_written_with_nine_decimals() -> None:
    """As inside log properties and API answers."""
    time = datetime(2026, 11, 25, 1, 50, 21, 4461)

    assert records.stamp(time) == "2026-11-25T01:50:21.004461000Z"
    assert records.stamp(time, 364) == "2026-11-25T01:50:21.004461364Z"
    assert records.parse_time("2026-11-25T01:50:21.004461364Z") == time
    assert records.parse_time("2026-11-25T03:50:21.004461+02:00") == time
    assert records.parse_time(None) is None


def test_secrets_are_not_logged() -> None:
    """Neither tokens nor secret mounts stand in a log row; of tokens no row was recorded."""
    row = {"uuid": "x", "api_token": "s", "secret_mounts": {}, "runtime_token": "s", "secret": "s"}
    assert records.logged(row) == {"uuid": "x"}


@pytest.mark.parametrize(
    ("column", "given", "kept"),
    [
        ("progress", 1, 1.0),
        ("progress", "half", None),
        ("id", "12", 12),
        ("service", "false", False),
        ("service", 1, True),
        ("state", 5, "5"),
        ("mounts", None, {}),
        ("started_at", "2026-11-25T01:50:21Z", datetime(2026, 11, 25, 1, 50, 21)),
        ("started_at", "some day", None),
    ],
)
def test_values_of_a_request_take_the_type_of_their_column(
    column: str, given: Any, kept: Any
) -> None:
    """As Rails casts them."""
    record = _record()
    attributes.assign(record, {column: given})

    assert record[column] == kept


def test_empty_for_empty_is_no_change() -> None:
    """None, an empty object and an empty list are alike."""
    record, problems = _record(state="Complete", mounts={}), Problems()
    record["mounts"] = None
    transitions.check_permitted(record, set(), problems)

    assert problems.messages == []
