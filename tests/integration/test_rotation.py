# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Keys are replaced while rows are written and sockets open: nothing is lost, nobody refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats import client
from arvados_nats.errors import Refused
from arvados_nats.nats import client as nats_client
from arvados_nats.nats import server_config
from arvados_nats.protocol_v1.messages import Event
from arvados_nats.service import keys
from sandbox import nats_server
from sandbox.nats_server import NatsServer
from sandbox.sandbox import Sandbox
from tests.support.worlds import machine as machines
from tests.support.worlds.machine import SERVICES, Machine

WITHIN = 100.0


@pytest.fixture
async def machine(sandbox: Sandbox) -> AsyncIterator[Machine]:
    """All three services, started by their units."""
    async with machines.beside(sandbox) as made:
        for service in SERVICES:
            await made.start(service)
        yield made


async def test_nothing_is_lost_and_nobody_refused(machine: Machine) -> None:
    """Each service is started anew with its next key while projects are made and heard of."""
    made: list[str] = []
    heard: set[str] = set()
    all_heard, stopping = asyncio.Event(), asyncio.Event()
    root = machine.sandbox.cluster.root

    async def write() -> None:
        while not stopping.is_set():
            made.append((await machine.sandbox.cluster.project(owner=root)).uuid)
            await asyncio.sleep(0.02)

    async def listen(listening: asyncio.Event) -> None:
        url = f"ws://127.0.0.1:{machine.ports['sockets']}/v1/stream"
        async with client.connect(url, lambda: root.token) as stream:
            events = await stream.events(event_types=["create"], begin="oldest")
            listening.set()
            async for message in events:
                if isinstance(message, Event):
                    heard.add(message.object_uuid or "")
                if stopping.is_set() and heard >= set(made):
                    all_heard.set()

    listening = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        listener = tasks.create_task(listen(listening))
        await listening.wait()
        writer = tasks.create_task(write())
        keys.rotate(machine.folder / "keys", keys.AHEAD)
        for service in SERVICES:
            await machine.stop(service)
            await machine.start(service)
        stopping.set()
        await writer
        await machine.sandbox.cluster.project(owner=root)  # one more, after which to look
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WITHIN):
                await all_heard.wait()
        listener.cancel()
    assert set(made) - heard == set()
    assert len(made) > 10
    for service in SERVICES:
        lines = map(json.loads, (machine.place / f"{service}.log").read_text().splitlines())
        # The callout service also knocks as nobody, with no key, to see whether it is heard.
        assert [
            line for line in lines if line.get("action") == "nats.error" and line.get("key")
        ] == []


async def test_a_former_key_is_shut_out_by_the_next_restart(tmp_path: Path) -> None:
    """A server that was told of both lets both in; told anew, it knows the new one and its next."""
    folder = tmp_path / "keys"
    keys.ensure(folder)
    async with nats_server.run(folder, folder=tmp_path / "nats") as server:
        former = keys.load(folder, "publisher").text
        await _let_in(server, former)
        keys.rotate(folder, ["publisher"])
        await _let_in(server, former)
        await _let_in(server, keys.load(folder, "publisher").text)
        await server.stop()
        told = NatsServer(server.folder, server.config, keys.load_all_public(folder))
        await told.start()
        try:
            await _let_in(told, keys.load(folder, "publisher").text)
            with pytest.raises(Refused):
                await _let_in(told, former)
        finally:
            await told.stop()


async def _let_in(server: NatsServer, seed: str) -> None:
    async with nats_client.connect([server.url], name="test", seed=seed, timeout=20):
        pass


def test_no_key_is_known_twice(tmp_path: Path) -> None:
    """A server refuses to start with one."""
    keys.ensure(tmp_path)
    public = keys.load_all_public(tmp_path)
    told = server_config.accounts(public, server_config.AccountLimits())
    users = [user["nkey"] for account in told.values() for user in account.get("users", ())]
    assert len(users) == len(set(users)) == len(server_config.STATIC_USERS) + len(keys.AHEAD)
