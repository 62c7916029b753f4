# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a reader who is behind in a log file gets next."""

from __future__ import annotations

import asyncio

from wsproxy.logs.history import LATE_PAUSES, Hidden, Step, Stretch
from wsproxy.logs.hub import LogHub
from wsproxy.logs.live_file import LogFile
from wsproxy.logs.place import LogPlace
from wsproxy.logs.saved import Access


async def step(hub: LogHub, file: LogFile, place: LogPlace, access: Access) -> Step:
    """Bytes at a place before the file's end, or what stands there instead.

    Raises Unavailable as history does.
    """
    if recent := file.recent(place):
        return recent
    live = hub.end is None or hub.hot
    wanted = Stretch(hub.container, file.name, place, file.place, live=live)
    try:
        return await hub.history.read(wanted, access)
    except Hidden as hidden:
        return hidden.hole


async def look(hub: LogHub, file: LogFile, place: LogPlace) -> None:
    """Learn whether the stream has come to a place of which nothing was heard live."""
    await hub.look()
    for pause in LATE_PAUSES:
        if place.epoch <= file.place.epoch:
            break
        await asyncio.sleep(pause)
        await hub.look()
