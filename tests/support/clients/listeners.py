# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Sockets that hear of every creation, in a process of their own.

`listeners URL TOKEN SOCKETS SECONDS` says `listening` when all are there; is then told, as one line
of JSON, which objects were made, and says which of them were not heard of once by each socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterable

from arvados_nats import client
from arvados_nats.protocol_v1.messages import Event


async def _listen(url: str, token: str, heard: Counter[str], listening: asyncio.Event) -> None:
    async with client.connect(url, lambda: token) as stream:
        events = await stream.events(event_types=["create"], begin="oldest")
        listening.set()
        async for message in events:
            if isinstance(message, Event):
                heard[message.object_uuid or ""] += 1


def _say(told: object) -> None:
    sys.stdout.write(f"{json.dumps(told)}\n")
    sys.stdout.flush()


async def main(url: str, token: str, sockets: int, within: float) -> None:
    """All sockets of this process."""
    heard: Counter[str] = Counter()

    def wrong(made: Iterable[str]) -> dict[str, int]:
        return {uuid: heard[uuid] for uuid in made if heard[uuid] != sockets}

    listening = [asyncio.Event() for _ in range(sockets)]
    async with asyncio.TaskGroup() as tasks:
        busy = [tasks.create_task(_listen(url, token, heard, event)) for event in listening]
        for event in listening:
            await event.wait()
        _say("listening")
        made = json.loads(await asyncio.to_thread(sys.stdin.readline))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while wrong(made):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
        _say({"wrong": wrong(made), "frames": sum(heard[uuid] for uuid in made)})
        for task in busy:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
