# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Bytes that a server takes from a sender and passes on, and a client library need not expect.

The sender speaks the protocol itself: no library would send these.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.contract import streams, subjects
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Message, Nats
from arvados_nats.service import keys
from tests.hostile.streams import raw_sender
from tests.support.waiting import until
from tests.support.worlds.accounts import World, open_world

PLAIN = b"NATS/1.0\r\nA: b\r\n\r\n"


class Service:
    """One of our services: it hears what is stored and what is asked, and something else."""

    def __init__(self, nats: Nats) -> None:
        self.nats = nats
        self.heard: list[Message] = []
        self.misled: list[Message] = []
        self.cuts = 0
        nats.on_change(self._changed)

    def _changed(self, connected: bool) -> None:
        self.cuts += not connected

    async def listen(self) -> None:
        """Eight subscriptions, of which two are meant."""
        for number in range(3):
            await self.nats.subscribe(f"arvados.tokens.{number}.>", self._mislead)
        await self.nats.subscribe(subjects.stored(f"{subjects.LOGS}.>"), self._hear)
        await self.nats.subscribe(f"{subjects.API}.>", self._hear)
        for number in range(3):
            await self.nats.subscribe(f"arvados.grants.{number}.>", self._mislead)
        await self.nats.flush()

    async def _hear(self, message: Message) -> None:
        self.heard.append(message)

    async def _mislead(self, message: Message) -> None:
        self.misled.append(message)


@pytest.fixture
async def world(keys_folder: Path) -> AsyncIterator[World]:
    """A server with its accounts."""
    async with open_world(keys_folder) as opened:
        yield opened


@pytest.fixture
async def service(world: World, keys_folder: Path) -> AsyncIterator[Service]:
    """A service beside the stream of logs."""
    seed = keys.load(keys_folder, "publisher").text
    async with nats_client.connect([world.server.url], name="service", seed=seed) as nats:
        await streams.ensure(nats, streams.log_stream())
        service = Service(nats)
        await service.listen()
        yield service


TAILS = {
    "no UTF-8": b"\xff\xfe",
    "a lone surrogate": b"\xed\xa0\x80",
    "a carriage return": b"a\rb",
    "a NUL": b"a\0b",
    "a wildcard": b"*",
    "all that follows": b">",
    "empty tokens": b"..",
    **{
        f"a space {space:#x}, then the number {number} of a subscription": b"a%c%d"
        % (space, number)
        for space in (0x0B, 0x0C, 0xA0)
        for number in range(1, 12)
    },
}
HEADERS = {
    "one byte": b"X",
    "two": b"\r\n",
    "three": b"XYZ",
    "no lines": b"NATS/1.0",
    "a status of no text": b"NATS/1.0 \xff\xff\xff\r\n\r\n",
    "a status": b"NATS/1.0 503\r\n\r\n",
    "a status and a text": b"NATS/1.0 404 \xff\xff\r\n\r\n",
    "the end of a page": b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n",
    "no name": b"NATS/1.0\r\n: x\r\n\r\n",
    "no UTF-8": b"NATS/1.0\r\n\xff: \xff\r\nA: \xff\r\n\r\n",
    "a place of another": b"NATS/1.0\r\nNats-Sequence: 7\r\nNats-Subject: arvados.x\r\n\r\n",
    "a place that is none": b"NATS/1.0\r\nNats-Sequence: x\r\nNats-Last-Sequence: y\r\n\r\n",
    "no end": b"NATS/1.0\r\nA: b",
    "zeros": bytes(50),
}


@pytest.mark.parametrize("who", ["container", "asker"])
async def test_no_message_misleads_or_silences_who_hears_it(
    world: World, service: Service, who: str
) -> None:
    """After each the service hears an honest one, on the connection it had; the server lives."""
    sender = await world.user(who)
    prefix = b"arvados.logs.own." if who == "container" else b"arvados.api."
    messages = [
        *((prefix + tail, b"", PLAIN) for tail in TAILS.values()),
        *((prefix + b"x", tail, PLAIN) for tail in TAILS.values()),
        *((prefix + b"x", b"", headers) for headers in HEADERS.values()),
    ]
    for number, (subject, reply, headers) in enumerate(messages):
        await raw_sender.publish(sender, subject, reply, headers, b"hostile")
        await raw_sender.publish(sender, prefix + b"x", b"", PLAIN, b"honest %d" % number)

        async def heard(wanted: bytes = b"honest %d" % number) -> bool:
            return any(message.data == wanted for message in service.heard)

        await until(heard, f"the service hears what follows on {messages[number]}", within=60)
    assert service.cuts == 0 and service.misled == []
    assert {message.subject for message in service.heard if b"honest" in message.data} <= {
        "arvados.api.x",
        "arvados.stored.logs.own.x",
    }


async def test_all_that_is_stored_can_be_read(world: World, service: Service) -> None:
    """Whatever its headers say, a message has the place that the server gave it."""
    sender = await world.user("container")
    for headers in HEADERS.values():
        await raw_sender.publish(sender, b"arvados.logs.own.x", b"", headers, b"hostile")
    await sender.flush()
    found = [one async for one in service.nats.history(streams.LOGS, "arvados.logs.>")]
    assert [one.sequence for one in found] == list(range(1, len(HEADERS) + 1))
    assert {one.subject for one in found} == {"arvados.logs.own.x"}
    last = await service.nats.last(streams.LOGS, "arvados.logs.own.x")
    assert last is not None and last.sequence == len(HEADERS)
