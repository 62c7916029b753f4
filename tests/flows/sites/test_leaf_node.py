# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""docs/operate.md, "A wsproxy beside its users": on a leaf node of the NATS servers."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from arvados_nats import client
from arvados_nats.cli import main
from arvados_nats.nats import client as nats_client
from arvados_nats.protocol_v1.messages import Event, Log
from arvados_nats.service import keys
from sandbox import sandbox as sandboxes
from sandbox import stack as services
from sandbox.servers import child, nats_server, ports
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import PostgresServer
from sandbox.stack import Stack
from tests.support.clients.native_answers import EVENTS, ask, native

WITHIN = 100.0


@pytest.fixture(scope="module")
async def far(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """All services, wsproxy with a leaf node of its own and no way to the NATS servers."""
    tmp_path = tmp_path_factory.mktemp("far")
    folder = tmp_path / "keys"
    keys.ensure(folder)
    leafs, near = (f"127.0.0.1:{port}" for port in itertools.islice(ports.candidates(), 2))
    async with nats_server.run(folder, folder=tmp_path / "nats") as first:
        await first.stop()  # for the sake of its ports: it comes again as the page says
        config = dataclasses.replace(first.config, leafs=leafs)
        hub = NatsServer(first.folder, config, keys.load_all_public(folder))
        await hub.start()
        (tmp_path / "leaf.conf").write_text(_printed(tmp_path, folder, leafs, near))
        leaf = child.start(
            [nats_server.executable(), "-c", tmp_path / "leaf.conf"], log=tmp_path / "leaf.log"
        )
        try:
            seed = keys.load(folder, "wsproxy").text
            async with (
                nats_client.connect([f"nats://{near}"], name="t", seed=seed, timeout=60),
                sandboxes.on(postgres_server, hub, folder, tmp_path / "tls") as sandbox,
                services.beside(sandbox) as made,
            ):
                await made.services["wsproxy"].stop()
                listen = f"127.0.0.1:{made.proxy_port}"
                moved = made.add(
                    "wsproxy",
                    ["wsproxy"],
                    ARVADOS_NATS_LISTEN=listen,
                    ARVADOS_NATS_NATS_URL=f"nats://{near}",
                )
                await moved.start()
                yield made
                await moved.stop()
        finally:
            await leaf.kill()
            await hub.stop()


def _printed(place: Path, folder: Path, leafs: str, near: str) -> str:
    """With what the page says is there: wsproxy's keys and no others."""
    there = place / "far"
    there.mkdir()
    for path in folder.glob("wsproxy.*"):
        (there / path.name).write_bytes(path.read_bytes())
    words = ["config", "nats-leaf", f"nats://{leafs}", "--keys", str(there), "--listen", near]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return done.output


async def test_all_comes_over_the_leaf(far: Stack) -> None:
    """Events live and from the stream, and a container's log."""
    cluster = far.sandbox.cluster
    before = (await cluster.project(owner=cluster.root)).uuid
    container = await cluster.run(await cluster.container_request("far", owner=cluster.root))
    await cluster.write_log(container, "stdout.txt", b"from afar\n")
    async with (
        asyncio.timeout(WITHIN),
        client.connect(far.stream_url, lambda: cluster.root.token) as stream,
    ):
        events = await stream.events(begin="oldest")
        await _until(events, before)
        await _until(events, (await cluster.project(owner=cluster.root)).uuid)
        async for message in await stream.log(container.uuid):
            if isinstance(message, Log) and message.data == b"from afar\n":
                break


async def _until(events: AsyncIterator[object], uuid: str) -> None:
    async for message in events:
        if isinstance(message, Event) and message.object_uuid == uuid:
            return


async def test_it_answers_native_clients_of_the_servers(far: Stack) -> None:
    """Where it is the only wsproxy that there is."""
    cluster = far.sandbox.cluster
    person = await cluster.user(f"near{secrets.token_hex(4)}")
    made = await cluster.project(owner=person)

    async def told() -> bool:
        async with native(far, person) as nats:
            return made.uuid in (await ask(nats, EVENTS)).objects

    async with asyncio.timeout(WITHIN):
        while not await told():  # noqa: ASYNC110 (each look is a login and a question)
            await asyncio.sleep(0.2)
