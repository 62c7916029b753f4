# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whole answers of `arvados.api.events` and `arvados.api.logs`, as the tests ask for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Message, Nats
from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.support.clients.native import connected

EVENTS, LOGS = "arvados.api.events", "arvados.api.logs"


@dataclass(slots=True)
class Answer:
    """The messages of one answer, by what they are."""

    parts: list[Message] = field(default_factory=list)
    gaps: list[Mapping[str, str]] = field(default_factory=list)
    end: Mapping[str, str] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)

    @property
    def events(self) -> list[dict[str, Any]]:
        assert not self.error, self.error
        return [json.loads(part.data) for part in self.parts]

    @property
    def objects(self) -> list[str]:
        """Uuids of the objects that events are about, in order."""
        return [event["object_uuid"] for event in self.events]

    @property
    def bytes(self) -> bytes:
        """What the chunks hold; they have to join but where a gap is told."""
        holes = {int(gap["Arvados-Gap"].partition("-")[2] or -1) for gap in self.gaps}
        position = None
        for part in self.parts:
            offset = int(part.headers["Arvados-Offset"])
            assert position in (None, offset) or offset in holes or offset == 0
            position = offset + len(part.data)
        return b"".join(part.data for part in self.parts)

    @property
    def more(self) -> bool:
        return self.end["Arvados-More"] == "true"

    @property
    def ended(self) -> bool:
        return self.end["Arvados-Ended"] == "true"


async def ask(nats: Nats, subject: str, payload: bytes | None = None, **request: Any) -> Answer:
    """One answer to its end, asked for again if the connection is cut meanwhile, as it is when
    grants have changed. `payload` instead of `request` for what is no JSON."""
    data = json.dumps(request).encode() if payload is None else payload
    while True:
        asking = asyncio.create_task(_ask(nats, subject, data))
        cutting = asyncio.create_task(_cut(nats))
        try:
            await asyncio.wait((asking, cutting), return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
        finally:
            asking.cancel()
            cutting.cancel()
        await nats.until_connected()


async def _cut(nats: Nats) -> None:
    """Return when the connection is lost."""
    lost = asyncio.Event()
    forget = nats.on_change(lambda connected: None if connected else lost.set())
    try:
        await lost.wait()
    finally:
        forget()


async def _ask(nats: Nats, subject: str, data: bytes) -> Answer:
    answer = Answer()
    replies = cast(AsyncGenerator[Message, None], nats.request_all(subject, data, window=10))
    async with aclosing(replies) as messages:
        async for message in messages:
            if "Arvados-Error" in message.headers:
                answer.error = json.loads(message.data)
                return answer
            if "Arvados-End" in message.headers:
                assert message.data == b""
                answer.end = message.headers
                return answer
            if "Arvados-Gap" in message.headers:
                answer.gaps.append(message.headers)
            else:
                answer.parts.append(message)
    raise AssertionError("the answer has no end")


async def pages(nats: Nats, **request: Any) -> AsyncIterator[Answer]:
    """Pages of events until there are no more."""
    more = True
    while more:
        answer = await ask(nats, EVENTS, **request)
        assert not answer.error, answer.error
        yield answer
        more = answer.more
        request["cursor"] = answer.end["Arvados-End"]


async def all_events(nats: Nats, **request: Any) -> list[dict[str, Any]]:
    """All events that a request can get."""
    return [event async for page in pages(nats, **request) for event in page.events]


async def eventually(look: Callable[[], Any], within: float = 60) -> Any:
    """What the coroutine function gives as soon as it is true."""
    async with asyncio.timeout(within):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.02)


@asynccontextmanager
async def native(stack: Stack, actor: Actor) -> AsyncIterator[Nats]:
    """A connection with the actor's token that asks."""
    async with connected(stack, actor, asks=True) as client:
        yield client.nats


@asynccontextmanager
async def trusted(stack: Stack) -> AsyncIterator[Nats]:
    """A connection inside ARVADOS."""
    async with nats_client.connect(
        [stack.sandbox.nats.url], name="test", seed=stack.sandbox.seed("publisher")
    ) as nats:
        yield nats
