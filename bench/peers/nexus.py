# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""nexusd, a WAMP router: one realm, JSON over WebSocket, anonymous clients.

Its queue per client is made longer than the default of 64 messages, since it drops what does not
fit, and bursts would not arrive.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench.peers import binaries
from sandbox.servers import child, ports
from sandbox.servers.child import Child

_START_SECONDS = 20.0
_REALM = "bench"
_QUEUE = 1024
"""Messages that may wait for one client."""
_ROLES: dict[str, dict[str, str]] = {"publisher": {}, "subscriber": {}}
_PUBLISH = 16
_SUBSCRIBE = 32
_HELLO = 1


def _config(port: int) -> dict[str, object]:
    return {
        "websocket": {
            "address": f"127.0.0.1:{port}",
            "allow_origins": ["*"],
            "out_queue_size": _QUEUE,
        },
        "router": {"realms": [{"uri": _REALM, "anonymous_auth": True}]},
    }


class Nexus:
    """The running router."""

    path = "/"
    marker = b"[36,"
    welcome = b"[2,"
    subscribed = b"[33,"
    protocol = "wamp.2.json"

    def __init__(self, process: Child, port: int) -> None:
        self.process = process
        self.address = ("127.0.0.1", port)

    @staticmethod
    def hello(channels: Sequence[str]) -> list[bytes]:
        """What a client says to be subscribed to these; each is answered with one frame."""
        messages: list[list[object]] = [[_HELLO, _REALM, {"roles": _ROLES}]]
        messages += [[_SUBSCRIBE, number, {}, name] for number, name in enumerate(channels, 1)]
        return [json.dumps(message).encode() for message in messages]

    @staticmethod
    def publications(channel: str, texts: Sequence[str]) -> list[bytes]:
        """What a client says to publish these."""
        return [json.dumps([_PUBLISH, 9, {}, channel, [text]]).encode() for text in texts]


@asynccontextmanager
async def run(folder: Path) -> AsyncIterator[Nexus]:
    """Start it, and wait until it listens; NotToBeHad if there is none."""
    program = binaries.find("nexus")
    port = next(ports.candidates())
    settings = folder / "nexus.json"
    settings.write_text(json.dumps(_config(port)))
    process = child.start(
        [program, "-c", settings],
        log=folder / "nexus.log",
        environment={"PATH": os.defpath},
    )
    try:
        await child.ready(process, lambda: _listens(port), _START_SECONDS)
        yield Nexus(process, port)
    finally:
        await process.kill()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
