# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A row of the containers table as a dispatcher sees it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from arvados_nats.contract import queue_entries
from arvados_nats.errors import BadInput
from publishers.queue import table as queue_table

UUID = "zzzzz-dz642-000000000000001"
WHEN = datetime(2026, 1, 2, 3, 4, 5, 600000)


def row(**given: Any) -> dict[str, Any]:
    return {
        "uuid": UUID,
        "state": "Queued",
        "priority": 2**61 + 1,
        "locked_by_uuid": None,
        "lock_count": 0,
        "auth_uuid": None,
        "scheduling_parameters": '{"partitions": ["fast"]}',
        "runtime_constraints": '{"ram": 9223372036854775807, "vcpus": 2}',
        "created_at": WHEN,
        "started_at": None,
        "modified_at": WHEN,
        **given,
    }


def shown(**given: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(queue_entries.encode(queue_table.entry(row(**given))))
    return found


def test_numbers_beyond_what_json_readers_hold_are_text() -> None:
    """Priorities always, so that readers need not look; others where they are so large."""
    found = shown()
    assert found["priority"] == "2305843009213693953"
    assert found["runtime_constraints"] == {"ram": "9223372036854775807", "vcpus": 2}
    assert shown(priority=0)["priority"] == "0"
    assert shown(priority=None)["priority"] == "0"


def test_times_are_utc() -> None:
    found = shown(started_at=WHEN)
    assert found["created_at"] == found["started_at"] == "2026-01-02T03:04:05.6Z"
    assert shown()["started_at"] is None


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("---\nvcpus: 1\nram: 2\n", {"vcpus": 1, "ram": 2}),
        ("", {}),
        (None, {}),
        ("neither: [of, both", "neither: [of, both"),
        ("words", "words"),
    ],
)
def test_old_and_broken_columns(stored: str | None, expected: object) -> None:
    """YAML of old versions is read; what is neither does not hide the container."""
    assert shown(runtime_constraints=stored)["runtime_constraints"] == expected


def test_an_entry_is_read_back() -> None:
    entry = queue_table.entry(row())
    assert queue_entries.decode({}, queue_entries.encode(entry)) == entry
    assert queue_entries.decode(queue_entries.DELETED, b"") is None
    with pytest.raises(BadInput):
        queue_entries.decode({}, b"{}")


def test_keys_and_subjects() -> None:
    """A key is the container's uuid, in the bucket and in what it republishes."""
    assert queue_entries.subject(UUID) == f"$KV.ARVADOS_QUEUE.{UUID}"
    assert queue_entries.key(queue_entries.subject(UUID)) == UUID
    assert queue_entries.key(f"arvados.stored.queue.{UUID}") == UUID
