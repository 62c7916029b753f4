# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A WAMP client as simple as it gets, for what no library would ever send."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from sandbox.model.actors import Actor

WITHIN = 60.0
HELLO = [1, "arvados", {"roles": {"subscriber": {}, "caller": {}}, "authmethods": ["ticket"]}]


class Client:
    """One open connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[list[Any]] = []
        self._requests = itertools.count(1)

    async def send(self, *message: Any) -> None:
        """Send one message."""
        await self.socket.send(json.dumps(message))

    async def ask(self, code: int, *rest: Any) -> int:
        """Send a request; its id."""
        request = next(self._requests)
        await self.send(code, request, *rest)
        return request

    async def next(self) -> list[Any]:
        """The next message."""
        async with asyncio.timeout(WITHIN):
            frame = await self.socket.recv()
        assert isinstance(frame, str)
        message: list[Any] = json.loads(frame)
        self.seen.append(message)
        return message

    async def until(self, wanted: Callable[[list[Any]], bool]) -> list[Any]:
        """Read on to a message."""
        async with asyncio.timeout(WITHIN):
            while not wanted(message := await self.next()):
                pass
        return message

    async def answer(self, code: int, *rest: Any) -> list[Any]:
        """Send a request; what it is answered with."""
        request = await self.ask(code, *rest)
        return await self.until(
            lambda m: m[:3] == [8, code, request] or (m[0] not in (8, 36) and m[1] == request)
        )

    async def subscribe(self, topic: str, **options: Any) -> int:
        """Subscribe, and see that it was accepted; the subscription id."""
        answer = await self.answer(32, options, topic)
        assert answer[0] == 33, answer
        return int(answer[2])

    async def told(self, key: str, **fields: Any) -> dict[str, Any]:
        """Read on to an EVENT with a message of this type and these fields."""

        def wanted(message: list[Any]) -> bool:
            body = message[5].get(key) if message[0] == 36 else None
            return body is not None and all(body.get(name) == fields[name] for name in fields)

        body: dict[str, Any] = (await self.until(wanted))[5][key]
        return body

    async def call(self, procedure: str, *args: Any, **kwargs: Any) -> list[Any]:
        """What a call is answered with."""
        return await self.answer(48, {}, procedure, list(args), kwargs)

    async def join(self, who: Actor | str) -> list[Any]:
        """Say hello and send the token; what it is answered with."""
        await self.send(*HELLO)
        assert (await self.next())[:2] == [4, "ticket"]
        await self.send(5, who if isinstance(who, str) else who.token, {})
        return await self.next()

    async def closed(self) -> int:
        """Read to the end; the close code."""
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(WITHIN):
                while True:
                    await self.next()
        assert self.socket.close_code is not None
        return self.socket.close_code


@asynccontextmanager
async def connected(base: str, who: Actor | str | None = None) -> AsyncIterator[Client]:
    """A connection to `ws://host:port`, joined as `who` if given."""
    async with connect(
        f"{base}/wamp",
        subprotocols=[Subprotocol("wamp.2.json")],
        compression=None,
        max_size=None,
        max_queue=None,
    ) as socket:
        client = Client(socket)
        if who is not None:
            answer = await client.join(who)
            assert answer[0] == 2, answer
        yield client
