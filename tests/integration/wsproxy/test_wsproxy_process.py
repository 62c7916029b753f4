# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""wsproxy as an operator runs it: what it writes, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sysconfig
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sandbox.sandbox import MANAGEMENT_TOKEN, Sandbox
from sandbox.servers import child
from sandbox.servers.child import Child
from tests.support.clients.v0 import client
from tests.support.worlds import site as sites
from tests.support.worlds.site import Site

COMMAND: list[str | Path] = [Path(sysconfig.get_path("scripts")) / "arvados-nats", "wsproxy"]
START_SECONDS = 60.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
async def site(sandbox: Sandbox) -> AsyncIterator[Site]:
    """Publishers and another wsproxy beside the processes of these tests."""
    async with sites.beside(sandbox) as opened:
        yield opened


def environment(site: Site, port: int, **changes: str) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "ARVADOS_NATS_NATS_URL": site.server.url,
        "ARVADOS_NATS_KEYS_DIR": str(site.keys_folder),
        "ARVADOS_API_HOST": site.api.url,
        "ARVADOS_NATS_LISTEN": f"127.0.0.1:{port}",
        "ARVADOS_NATS_MANAGEMENT_TOKEN": MANAGEMENT_TOKEN,
        **{f"ARVADOS_NATS_{name.upper()}": value for name, value in changes.items()},
    }


@asynccontextmanager
async def running(
    site: Site, folder: Path, *, port: int = 0, **changes: str
) -> AsyncIterator[tuple[Child, str]]:
    """The process, and the base of its WebSocket URLs."""
    port = port or free_port()
    process = child.start(
        COMMAND, log=folder / "wsproxy.log", environment=environment(site, port, **changes)
    )

    async def accepts() -> bool:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        return False

    try:
        await child.ready(process, accepts, START_SECONDS)
        yield process, f"ws://127.0.0.1:{port}"
    finally:
        await process.stop(signal.SIGTERM)


async def test_no_token_is_ever_written_down(site: Site, tmp_path: Path) -> None:
    """At the most talkative level, through every door, with good and bad tokens and frames."""
    user = await site.cluster.user("secretive")
    bad = "v2/zzzzz-gj3su-000000000000000/thisisnosecretofanybodyatall"
    secrets = [user.token, user.token.rsplit("/", 1)[1], bad.rsplit("/", 1)[1], MANAGEMENT_TOKEN]
    async with running(site, tmp_path, log_level="DEBUG") as (process, base):
        for token in (user.token, bad):
            async with client(f"{base}/websocket", token) as socket_:
                await socket_.subscribe()
                await socket_.send({"method": token})
                await socket_.status()
                await site.cluster.collection(None, owner=user)
            with pytest.raises(InvalidStatus):
                async with client(f"{base}/nowhere", token):
                    pass
            with suppress(ConnectionClosed):
                async with client(f"{base}/websocket", token) as socket_:
                    await socket_.socket.send(token.encode() + b"\xff", text=True)
                    await socket_.receive()
            async with httpx.AsyncClient(base_url=base.replace("ws", "http", 1)) as http:
                headers = {"Authorization": f"Bearer {token}"}
                for path in ("/websocket", "/nowhere", "/metrics", "/_health/ping", "/"):
                    await http.get(path, params={"api_token": token}, headers=headers)
            reader, writer = await asyncio.open_connection(*base.removeprefix("ws://").split(":"))
            writer.write(f"GET /websocket?api_token={token} HTTP/7\r\nbroken".encode())
            writer.write_eof()
            await reader.read()
            writer.close()
        await site.cluster.logout(user)
        async with client(f"{base}/websocket", user.token) as socket_:
            await socket_.subscribe()
        await process.stop(signal.SIGTERM)
        assert process.exit_code == 0
    output = (tmp_path / "wsproxy.log").read_text()
    assert "token_uuid" in output or "wsproxy" in output
    for secret in secrets:
        assert secret not in output
    assert "Traceback" not in output
    for line in output.splitlines():
        json.loads(line)


async def test_who_comes_while_it_drains_is_refused(site: Site, tmp_path: Path) -> None:
    """With a status that says so; how those leave who are there is in test_wsproxy_restart."""
    user = await site.cluster.user("one")
    async with (
        running(site, tmp_path, drain_seconds="3") as (process, base),
        AsyncExitStack() as stack,
    ):
        url = f"{base}/websocket"
        for _ in range(20):
            await (await stack.enter_async_context(client(url, user.token))).subscribe()
        os.kill(process.pid, signal.SIGTERM)
        with pytest.raises(InvalidStatus) as refused:
            while True:
                async with client(url, user.token):
                    await asyncio.sleep(0.05)
    assert refused.value.response.status_code == 503
    assert process.exit_code == 0


async def test_without_nats_it_waits_and_says_so(site: Site, tmp_path: Path) -> None:
    """TestBadDB: clients are refused cleanly, health tells why, and it comes up by itself."""
    port, ops_port = free_port(), free_port()
    await site.server.stop()
    settings = environment(site, port, ops_listen=f"127.0.0.1:{ops_port}")
    process = child.start(COMMAND, log=tmp_path / "wsproxy.log", environment=settings)
    headers = {"Authorization": f"Bearer {MANAGEMENT_TOKEN}"}

    async def health() -> str:
        with suppress(httpx.TransportError):
            async with httpx.AsyncClient(headers=headers) as http:
                answer = await http.get(f"http://127.0.0.1:{ops_port}/_health/ping")
                return str(answer.json()["health"])
        return ""

    async def well() -> bool:
        return await health() == "OK"

    async def ill() -> bool:
        return await health() == "ERROR"

    try:
        await child.ready(process, ill, START_SECONDS)
        with pytest.raises((OSError, InvalidStatus)):
            async with client(f"ws://127.0.0.1:{port}/websocket", "token"):
                pass
        await site.server.start()
        await child.ready(process, well, START_SECONDS)
        async with client(f"ws://127.0.0.1:{port}/websocket", "token") as socket_:
            await socket_.subscribe()
    finally:
        await process.stop(signal.SIGTERM)
        await site.server.restart()  # also where it did not come so far
    assert process.exit_code == 0
