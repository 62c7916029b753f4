# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`check connections`, which `helm test` runs, and `check streams`, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from arvados_nats.cli import main
from arvados_nats.contract import streams
from arvados_nats.nats import client as nats_client
from arvados_nats.service import keys
from sandbox.sandbox import Sandbox
from sandbox.servers import ports
from sandbox.servers.nats_server import NatsServer
from tests.support.worlds import site as sites
from tests.support.worlds.site import Site


@pytest.fixture
async def site(sandbox: Sandbox) -> AsyncIterator[Site]:
    """Everything there is, as at a site."""
    async with sites.beside(sandbox) as opened:
        await streams.ensure(opened.nats, streams.log_stream())
        yield opened


async def check(nats_url: str, folder: Path, *more: str) -> Result:
    """The command, in a thread: it runs an event loop of its own."""
    environment = {"ARVADOS_NATS_NATS_URL": nats_url, "ARVADOS_NATS_KEYS_DIR": str(folder)}
    arguments = ["check", "connections", *more]
    return await asyncio.to_thread(CliRunner().invoke, main, arguments, env=environment)


async def test_a_whole_site_is_ok(site: Site) -> None:
    """Every part is named, and the exit code is 0."""
    proxy = site.websocket_url.removesuffix("/websocket")
    result = await check(site.server.url, site.keys_folder, "--proxy", proxy)
    assert result.exit_code == 0, result.output
    assert result.output.count(": ok\n") == 7


async def test_each_missing_part_is_named(fresh_nats: NatsServer, keys_folder: Path) -> None:
    """NATS without publishers has no streams, and nobody listens at the proxy's address."""
    proxy = f"ws://127.0.0.1:{next(ports.candidates())}"
    result = await check(fresh_nats.url, keys_folder, "--proxy", proxy)
    assert result.exit_code == 1
    assert "NATS: ok" in result.output
    assert "ARVADOS_EVENTS: does not exist yet: do the publishers run?" in result.output
    assert "wsproxy over WebSocket: ws://127.0.0.1" in result.output


async def test_something_else_at_the_address_is_told(
    fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """A web server that is not ours does not pass for a proxy."""
    assert fresh_nats.config.monitor
    result = await check(
        fresh_nats.url, keys_folder, "--proxy", f"ws://{fresh_nats.config.monitor}"
    )
    assert "answered by something else" in result.output
    assert "takes no WebSocket" in result.output


async def test_a_strange_key_is_refused(fresh_nats: NatsServer, tmp_path: Path) -> None:
    """Keys of another installation do not log in, and the command says so instead of waiting."""
    keys.ensure(tmp_path)
    result = await check(fresh_nats.url, tmp_path)
    assert result.exit_code == 1
    assert "NATS: ok" not in result.output


async def test_an_address_that_is_none_is_a_bad_setting(
    fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """Exit code 2, as for every wrong setting."""
    result = await check(fresh_nats.url, keys_folder, "--proxy", "https://ws.example")
    assert result.exit_code == 2


async def test_streams_that_fit_are_ok(fresh_nats: NatsServer, keys_folder: Path) -> None:
    """Exit code 1 until all are there, 0 then."""
    environment = {
        "ARVADOS_NATS_NATS_URL": fresh_nats.url,
        "ARVADOS_NATS_KEYS_DIR": str(keys_folder),
    }

    async def look(*more: str) -> Result:
        command = ["check", "streams", *more]
        return await asyncio.to_thread(CliRunner().invoke, main, command, env=environment)

    before = await look()
    assert before.exit_code == 1
    assert before.output.count("does not exist yet") == 4
    seed = keys.load(keys_folder, "publisher").text
    async with nats_client.connect([fresh_nats.url], name="publisher", seed=seed) as nats:
        for stream in (
            streams.event_stream(),
            streams.log_stream(),
            streams.queue_stream(),
            streams.cursor_stream(),
        ):
            await streams.ensure(nats, stream)
    after = await look("--store-dir", str(fresh_nats.folder))
    assert after.output.count(": ok\n") == 6, after.output
    assert after.exit_code == 0
    on_a_full_disk = await look("--store-dir", "/proc")
    assert "disk: the streams may grow to" in on_a_full_disk.output
    assert on_a_full_disk.exit_code == 1
