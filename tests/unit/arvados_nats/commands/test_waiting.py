# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""In words, why the log of a process has not begun."""

from __future__ import annotations

from typing import Any

import pytest

from arvados_nats.commands.waiting import words

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def _request(its: str = "Committed", **container: Any) -> dict[str, Any]:
    return {
        "container_uuid": "zzzzz-dz642-000000000000000" if container else None,
        "container": container or None,
        "state": its,
        "priority": 500,
    }


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (_request("Uncommitted"), "a draft: it has not been committed"),
        (_request(), "waiting for a container"),
        ({**_request(), "priority": 0}, "on hold: its priority is 0"),
        (
            _request(state="Queued", priority=0) | {"requesting_container_uuid": "a container"},
            "on hold: its priority is 0",
        ),
        # It was on hold: of a container, nothing more is told than that.
        (_request(state="Queued", priority=0), "queued, priority 500"),
        (_request(state="Running", priority=1) | {"priority": 0}, "running, being cancelled"),
        (
            _request() | {"container": {"state": "Queued", "created_at": "2025-12-31T23:58:30Z"}},
            "queued for 1 min 30 s, priority 500",
        ),
        (
            {"state": "Queued", "priority": 2**60, "created_at": "2025-12-31T23:59:55.123Z"},
            "queued for 4 s",
        ),
        (
            {"state": "Locked", "priority": 1, "created_at": "2025-12-31T21:00:00Z"},
            "a node is being prepared for 3 h 0 min",
        ),
        (
            {"state": "Running", "priority": 1, "started_at": None},
            "running",
        ),
        ({"state": "Complete", "priority": 0}, ""),
        (_request("Final"), ""),
    ],
)
def test_a_wait_has_words(record: dict[str, Any], said: str) -> None:
    """A container's own priority is a number of 60 bits; people know that of the request."""
    assert words(record, NOW) == said
