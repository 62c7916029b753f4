# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Why nothing comes yet: the state of a process in a line that goes when its log begins.

Followed in a terminal, a log can be silent for hours, since its process waits for a node.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from arvados_nats.client.stream import Stream
from arvados_nats.commands.command import Notes
from arvados_nats.errors import Refused
from arvados_nats.protocol_v1.messages import Object

_STEP = 1.0
_SOON = 10.0


async def tell(events: Stream, uuid: str, notes: Notes, came: Callable[[], bool]) -> None:
    """Keep the line up to date until something came."""
    handle = await events.object(uuid)
    record: Mapping[str, Any] = {}
    try:
        while not came() and not handle.done:
            message = await handle.get(_STEP)
            if isinstance(message, Object):
                record = message.record
            if record and not came():
                now = time.time()  # noqa: TID251 (said to a person, decides nothing)
                notes.progress(words(record, now))
    except Refused:
        return  # the log is refused with the same words
    finally:
        await handle.close()


async def why(events: Stream, uuid: str) -> str:
    """What it waits for now; empty where that is not told soon."""
    handle = await events.object(uuid)
    until = time.monotonic() + _SOON
    try:
        while (left := until - time.monotonic()) > 0 and not handle.done:
            message = await handle.get(left)
            if isinstance(message, Object):
                now = time.time()  # noqa: TID251 (said to a person, decides nothing)
                return words(message.record, now)
    except Refused:
        pass  # so is the log
    finally:
        await handle.close()
    return ""


def words(record: Mapping[str, Any], now: float) -> str:
    """Of a container or a container request: what it waits for, and since when."""
    request = "container_uuid" in record
    if request and record.get("state") == "Uncommitted":
        return "a draft: it has not been committed"
    if record.get("state") in ("Final", "Complete", "Cancelled"):
        return ""
    container = (record.get("container") or {}) if request else record
    state = container.get("state")
    wanted = record.get("priority")
    # A container's priority is told with other changes alone; it counts where a container asks.
    own = not request or record.get("requesting_container_uuid")
    held = 0 in (wanted, container.get("priority") if own else None)
    if held and state != "Running":
        return "on hold: its priority is 0"
    priority = f", priority {wanted}" if request and isinstance(wanted, int) else ""
    waited, ran = (_span(container.get(name), now) for name in ("created_at", "started_at"))
    match state:
        case "Queued":
            return f"queued{waited}{priority}"
        case "Locked":
            return f"a node is being prepared{waited}"
        case "Running":
            return f"running{ran}{', being cancelled' if held else ''}"
    return "waiting for a container" if request else ""


def _span(since: object, now: float) -> str:
    try:
        began = datetime.fromisoformat(str(since)).timestamp()
    except ValueError:
        return ""
    minutes, seconds = divmod(max(0, int(now - began)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f" for {hours} h {minutes} min"
    return f" for {minutes} min {seconds} s" if minutes else f" for {seconds} s"
