# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where the last lines of log files begin.

Reads backwards in growing steps, through the same shared history as everything else. Lines without
end in reach, or bytes that nobody has, move the beginning nearer: no more than 8 MiB are looked at.
"""

from __future__ import annotations

from collections.abc import Callable

from wsproxy.logs.history import Hidden, Step, Stretch
from wsproxy.logs.hub import LogHub
from wsproxy.logs.pieces import Hole, Piece
from wsproxy.logs.place import LogPlace
from wsproxy.logs.saved import Access

_LINE_BYTES = 160
_MAX_BYTES = 8 * 1024 * 1024


async def places(
    hub: LogHub, wanted: Callable[[str], bool], lines: int, access: Access
) -> dict[str, LogPlace]:
    """Where the last `lines` lines begin of each file there is and that is `wanted`.

    Raises Unavailable as history does.
    """
    listed = {} if hub.end else await hub.record.listed(access)
    found = {}
    for name in filter(wanted, {*hub.files, *listed}):
        file, size = hub.files.get(name), listed.get(name, 0)
        end = file.place if file else LogPlace(0, 0)
        if file is None or size > file.frontier.edge:
            end = LogPlace(end.epoch, size)
        found[name] = await place(hub, name, end, lines, access)
    return found


async def place(hub: LogHub, file: str, end: LogPlace, lines: int, access: Access) -> LogPlace:
    """The place of the last `lines` lines before `end` of a file; an open line counts as one.

    Raises Unavailable as history does.
    """
    reach = max(lines, 1) * _LINE_BYTES
    while lines:
        start = max(end.offset - min(reach, _MAX_BYTES), 0)
        first, data = await _bytes(hub, file, LogPlace(end.epoch, start), end, access)
        if not data:
            return LogPlace(end.epoch, start)  # that nobody has them is told where they are read
        offset = first + start_of_last(data, lines)
        if offset > first or start == 0 or first > start or reach >= _MAX_BYTES:
            return LogPlace(end.epoch, offset)
        reach *= 4
    return end


def start_of_last(data: bytes, lines: int) -> int:
    """Where the last `lines` lines of `data` begin; 0 if it holds no more than those."""
    position = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(lines):
        position = data.rfind(b"\n", 0, max(position, 0))
        if position < 0:
            return 0
    return position + 1


async def _bytes(
    hub: LogHub, file: str, start: LogPlace, end: LogPlace, access: Access
) -> tuple[int, bytes]:
    """The bytes up to `end` that join, and the offset of their first."""
    first, data = start.offset, bytearray()
    place = start
    while place.offset < end.offset:
        wanted = Stretch(hub.container, file, place, end)
        known = hub.files.get(file)
        recent = known.recent(place) if known else None
        try:
            step: Step = recent or await hub.history.read(wanted, access)
        except Hidden as hidden:
            step = hidden.hole
        if isinstance(step, Piece):
            data += step.data
            place = step.next
        else:
            to = step.to if isinstance(step, Hole) else None
            place = LogPlace(place.epoch, end.offset if to is None else to)
            first, data = place.offset, bytearray()
    return first, bytes(data[: end.offset - first])
