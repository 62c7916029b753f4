# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A machine that sends its system log, and the stream that it is sent to."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import nats

from arvados_nats.contract import streams, system_log_records
from arvados_nats.contract.system_log_records import SystemLogRecord
from arvados_nats.errors import Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from arvados_nats.service import keys
from publishers.system_logs import cli as system_logs_cli
from publishers.system_logs.cli import SystemLogSettings
from sandbox.servers.nats_server import NatsServer
from tests.support.background import background
from tests.support.worlds.accounts import answerer

HOST = "node1.example.com"


class World:
    """A stream, and a machine that sends to it."""

    def __init__(self, server: NatsServer, folder: Path, state: Path, nats: Nats) -> None:
        self.server = server
        self.nats = nats
        self.folder = folder
        self._state = state

    def settings(self, **more: object) -> SystemLogSettings:
        return SystemLogSettings.model_validate(
            {
                "nats_url": self.server.url,
                "keys_dir": self.folder,
                "system_log_host": HOST,
                "system_log_state": self._state,
                **more,
            }
        )

    async def records(self) -> list[SystemLogRecord]:
        """What is in the stream."""
        history = self.nats.history(streams.SYSTEM_LOGS, "arvados.syslog.>")
        return [system_log_records.decode(stored.data) async for stored in history]

    async def until(self, done: Callable[[list[SystemLogRecord]], bool]) -> list[SystemLogRecord]:
        """The records, as soon as they are as they should be."""
        found: list[SystemLogRecord] = []
        try:
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(Unavailable):
                        found = await self.records()
                        if done(found):
                            return found
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError([record.message[:80] for record in found]) from None

    async def until_said(self, *messages: str) -> list[SystemLogRecord]:
        """All of what programs said, each once and in order."""
        return await self.until(lambda found: said(found) == [*messages])

    @asynccontextmanager
    async def sending(self, namespace: str = "") -> AsyncIterator[None]:
        """The command, until the block ends."""
        settings = self.settings(system_log_namespace=namespace)
        async with background(system_logs_cli.send(settings)):
            yield

    async def piped(self, data: bytes, **more: object) -> None:
        """The command at the end of a pipe, to the pipe's end."""
        reading, writing = os.pipe()
        task = asyncio.create_task(
            system_logs_cli.send(self.settings(**more), piped=True, source=reading)
        )
        try:
            await asyncio.to_thread(os.write, writing, data)
            os.close(writing)
            await task
        finally:
            os.close(reading)


def said(records: list[SystemLogRecord]) -> list[str]:
    """Messages of test programs, not journald's own."""
    return [record.message for record in records if record.identifier == "test"]


@asynccontextmanager
async def open_world(server: NatsServer, folder: Path, state: Path) -> AsyncIterator[World]:
    """A server with the stream, and a machine whose place is kept in `state`."""
    seed = keys.load(folder, "publisher").text
    async with (
        nats_client.connect([server.url], name="test", seed=seed) as connection,
        _callout(server, folder),
    ):
        await streams.ensure(connection, streams.system_log_stream())
        yield World(server, folder, state, connection)


@asynccontextmanager
async def _callout(server: NatsServer, folder: Path) -> AsyncIterator[None]:
    """Lets machines in, also when the server has been away."""
    seed = keys.load(folder, "callout").text
    client = await nats.connect(
        server.url, nkeys_seed_str=seed, max_reconnect_attempts=-1, reconnect_time_wait=0.1
    )
    await client.subscribe("$SYS.REQ.USER.AUTH", cb=answerer(folder))
    await client.flush()
    try:
        yield
    finally:
        await client.close()
