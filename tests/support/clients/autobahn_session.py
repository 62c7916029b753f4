# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""autobahn-python as it is: one session in this loop, with what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import txaio
from autobahn.asyncio.wamp import ApplicationSession
from autobahn.asyncio.websocket import WampWebSocketClientFactory
from autobahn.wamp.serializer import JsonSerializer
from autobahn.wamp.types import Challenge, CloseDetails, ComponentConfig, SessionDetails

from sandbox.model.actors import Actor

WITHIN = 60.0


class Session(ApplicationSession):  # type: ignore[misc]
    """Joins with a token; `joined` and `left` are set when it has."""

    def __init__(self, token: str) -> None:
        super().__init__(ComponentConfig(realm="arvados"))
        self._token = token
        loop = asyncio.get_running_loop()
        self.joined: asyncio.Future[SessionDetails] = loop.create_future()
        self.left: asyncio.Future[CloseDetails] = loop.create_future()
        self.told: list[tuple[str, dict[str, Any], Any]] = []
        """Topic, keyword arguments and details of each event."""
        self._news = asyncio.Event()

    def onConnect(self) -> None:
        self.join("arvados", ["ticket"], "somebody")

    def onChallenge(self, challenge: Challenge) -> str:
        assert challenge.method == "ticket"
        return self._token

    def onJoin(self, details: SessionDetails) -> None:
        self.joined.set_result(details)

    def onLeave(self, details: CloseDetails) -> None:
        self.left.set_result(details)
        super().onLeave(details)

    def hear(self, topic: str) -> Callable[..., None]:
        """A handler that remembers under this name what it is told."""

        def handler(details: Any = None, **message: Any) -> None:
            self.told.append((topic, message, details))
            self._news.set()

        return handler

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds, which is looked at whenever something is told."""
        async with asyncio.timeout(WITHIN):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def messages(self, topic: str, key: str) -> list[dict[str, Any]]:
        """What was told of a topic under one name."""
        return [
            message[key] for found, message, _ in self.told if found == topic and key in message
        ]


@asynccontextmanager
async def session(base: str, who: Actor) -> AsyncIterator[Session]:
    """A session of `ws://host:port`; it is not joined yet."""
    loop = asyncio.get_running_loop()
    txaio.use_asyncio()
    txaio.config.loop = loop
    made = Session(who.token)
    factory = WampWebSocketClientFactory(
        lambda: made, url=f"{base}/wamp", serializers=[JsonSerializer()], loop=loop
    )
    where = urlsplit(base)
    transport, _ = await loop.create_connection(factory, where.hostname or "", where.port or 0)
    try:
        async with asyncio.timeout(WITHIN):
            await asyncio.wait((made.joined, made.left), return_when=asyncio.FIRST_COMPLETED)
        yield made
    finally:
        transport.close()
