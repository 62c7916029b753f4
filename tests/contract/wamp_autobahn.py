# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""autobahn-python with the few lines that resume, as `play` has it."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote

from autobahn.asyncio.component import Component, run
from autobahn.wamp.types import SubscribeOptions

FOLLOW = json.loads(os.environ["FOLLOW"])
component = Component(
    transports={"url": os.environ["EVENTS_URL"], "initial_retry_delay": 0.1, "max_retries": -1},
    realm="arvados",
    authentication={"ticket": {"authid": "me", "ticket": os.environ["ARVADOS_API_TOKEN"]}},
)
place: dict[str, str] = {}


@component.on_join  # type: ignore[untyped-decorator]
async def joined(session: Any, details: Any) -> None:
    """Subscribe, behind the last event that was told."""

    def on_log(log: Any = None, end: Any = None, **other: Any) -> None:
        if log:
            print(log["text"], end="", flush=True)  # noqa: T201
        if end and "request" in end:
            os._exit(0)

    def on_event(event: Any = None, gap: Any = None, **other: Any) -> None:
        if told := event or gap:
            place["cursor"] = told["cursor"]
            line = "gap" if gap else f"{event['event_type']} {event['object_uuid']}"
            print(line, flush=True)  # noqa: T201

    if "log" in FOLLOW:
        await session.subscribe(on_log, f"arvados.log.{FOLLOW['log']}")
    else:
        topic = "arvados.event" + (f"?{quote(json.dumps(place))}" if place else "")
        await session.subscribe(on_event, topic, SubscribeOptions(match="prefix"))


run([component], log_level="critical")
