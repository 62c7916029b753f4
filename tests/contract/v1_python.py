# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The Python client, as `play` has it."""

from __future__ import annotations

import asyncio
import json
import os

from arvados_nats.client import errors, stream
from arvados_nats.errors import Refused
from arvados_nats.protocol_v1.messages import Event, Gap, Gone, Log


def say(text: str) -> None:
    print(text, end="", flush=True)  # noqa: T201


async def main() -> None:
    """Follow until there is no more."""
    token, follow = os.environ["ARVADOS_API_TOKEN"], json.loads(os.environ["FOLLOW"])
    async with stream.connect(os.environ["EVENTS_URL"], lambda: token) as events:
        if "log" in follow:
            reading = await events.log(follow["log"], tail=follow.get("tail"))
        else:
            reading = await events.events(**follow["events"])
        async for message in reading:
            match message:
                case Log():
                    say(message.data.decode())
                case Event():
                    say(f"{message.event_type} {message.object_uuid}\n")
                case Gone():
                    say(f"gone {message.uuid}\n")
                case Gap():
                    say("gap\n")


try:
    asyncio.run(main())
except errors.TokenRefused:
    pass
except Refused:
    say("revoked\n")
