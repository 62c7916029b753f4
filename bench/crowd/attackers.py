# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Everything hostile at once, in a process of its own: `python -m bench.crowd.attackers`.

Reads a `Plan` as JSON from its first line of input, attacks until the input ends, and prints what
it has done as one JSON object. Bytes are made beforehand, so that the attack costs the machine as
little as it can, and each kind has a rate, so that two runs are alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import msgspec

from bench.crowd import native
from bench.crowd.sockets import masked, upgrade

MIB = 1024 * 1024
_FLOODERS = 10
"""Sockets of each kind of flood; how many come and go is in the counts."""


class Plan(msgspec.Struct):
    """Whom to attack, and with what."""

    proxy: str
    """`ws://host:port`."""
    nats: str
    """`nats://host:port`."""
    container_token: str
    container_subject: str
    tokens: list[str]
    """Good ones, to be sent again and again over one socket each."""
    logins_per_second: float
    fragment_bytes_per_second: float = 5.0 * MIB
    only: list[str] = []
    """Names of attacks; none for all."""


Lines = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def _line(url: str) -> AsyncIterator[Lines]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def _socket(url: str, path: str) -> AsyncIterator[Lines]:
    async with _line(url) as (reader, writer):
        writer.write(upgrade(path, "x"))
        await reader.readuntil(b"\r\n\r\n")
        yield reader, writer


class Attack:
    """All attackers, and what each has done."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.done: Counter[str] = Counter()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            kinds: dict[str, list[Callable[[], Awaitable[None]]]] = {
                "fragments": [self._fragments] * _FLOODERS,
                "pings": [self._pings] * _FLOODERS,
                "auths": [functools.partial(self._repeat, token) for token in self._plan.tokens],
                "filters": [self._filters],
                "chunks": [self._chunk],
                "logins": [functools.partial(self._logins, tasks)],
            }
            for kind in self._plan.only or kinds:
                for attack in kinds[kind]:
                    tasks.create_task(self._again(attack))

    async def _again(self, attack: Callable[[], Awaitable[None]]) -> None:
        """Come back each time that one is thrown out."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await attack()
            await asyncio.sleep(0.05)

    async def _fragments(self) -> None:
        """A message that never ends, in empty fragments."""
        piece = masked(b"", 0x00) * 1000
        pause = len(piece) * _FLOODERS / self._plan.fragment_bytes_per_second
        async with _socket(self._plan.proxy, "/websocket?api_token=nonsense") as (_, writer):
            writer.write(masked(b"", 0x01))
            while not writer.is_closing():
                writer.write(piece)
                self.done["fragments"] += 1000
                await writer.drain()
                await asyncio.sleep(pause)

    async def _pings(self) -> None:
        """Pings whose pongs are never read."""
        piece = masked(b"x" * 125, 0x89) * 100
        async with _socket(self._plan.proxy, "/websocket?api_token=nonsense") as (reader, writer):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            while not writer.is_closing():
                writer.write(piece)
                self.done["pings"] += 100
                await writer.drain()
                await asyncio.sleep(0.01)

    async def _filters(self) -> None:
        """Two megabytes of filters, five times a second."""
        numbers = b"1," * (MIB - 100)
        text = b'{"method":"subscribe","filters":[["event_type","in",[' + numbers + b"1]]]}"
        async with _socket(self._plan.proxy, "/websocket") as (reader, writer):
            writer.write(masked(text))
            self.done["filters"] += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await reader.read()

    async def _chunk(self) -> None:
        """A container's chunk of 8 MiB, once a second."""
        with contextlib.suppress(OSError):
            async with _line(self._plan.nats) as (reader, writer):
                writer.write(native.login(self._plan.container_token, []))
                while not (line := await reader.readline()).startswith(b"PONG"):
                    if not line:
                        return
                subject = self._plan.container_subject.encode()
                writer.write(b"PUB %b %d\r\n" % (subject, 8 * MIB) + bytes(8 * MIB) + b"\r\n")
                self.done["chunks"] += 1
                await reader.read()
        await asyncio.sleep(1.0)

    async def _repeat(self, token: str) -> None:
        """A good token over and over again."""
        auth = masked(json.dumps({"auth": {"token": token}}).encode())
        async with _socket(self._plan.proxy, "/v1/stream") as (reader, writer):
            while not writer.is_closing():
                writer.write(auth)
                self.done["auths"] += 1
                await reader.read(4096)

    async def _logins(self, tasks: asyncio.TaskGroup) -> None:
        """Junk tokens at NATS, each another one, from the address of everybody."""
        began = time.monotonic()
        for number in itertools.count():
            late = began + number / self._plan.logins_per_second - time.monotonic()
            await asyncio.sleep(max(0.0, late))
            tasks.create_task(self._login(f"junk{os.getpid()}n{number}"))

    async def _login(self, token: str) -> None:
        self.done["logins"] += 1
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(5), _line(self._plan.nats) as (reader, writer):
                writer.write(native.login(token, []))
                while line := await reader.readline():
                    if line.startswith(b"-ERR"):
                        self.done["refused"] += 1
                        return


async def attack() -> None:
    """Attack until the input ends."""
    loop = asyncio.get_running_loop()
    plan = msgspec.json.decode(await loop.run_in_executor(None, sys.stdin.readline), type=Plan)
    work = Attack(plan)
    running = asyncio.create_task(work.run())
    await loop.run_in_executor(None, sys.stdin.read)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    sys.stdout.write(json.dumps(work.done))


if __name__ == "__main__":
    asyncio.run(attack())
