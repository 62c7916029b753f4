# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The embedded NATS server and its five accounts, on the real nats-server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from arvados_nats.nats import accounts_config, conf_text, server_config
from arvados_nats.service import keys
from sandbox.servers import nats_server, tls


async def _connect(server: nats_server.NatsServer, folder: Path, name: str) -> Client:
    return await nats.connect(server.url, nkeys_seed_str=keys.load(folder, name).text)


@pytest.mark.parametrize("name", accounts_config.STATIC_USERS)
async def test_static_identities_log_in_while_no_callout_service_runs(
    nats_server: nats_server.NatsServer, keys_folder: Path, name: str
) -> None:
    """Publishers, wsproxy and the callout service itself depend on nobody to log in."""
    async with asyncio.timeout(1):
        client = await _connect(nats_server, keys_folder, name)
    assert client.is_connected
    await client.close()


STRANGERS: tuple[dict[str, Any], ...] = (
    {},
    {"token": "v2/zzzzz-gj3su-000000000000000/secret"},
    {"user": "publisher", "password": "publisher"},
    {"nkeys_seed_str": keys.generate(keys.Kind.USER).text},
)


async def test_everybody_else_is_refused_while_no_callout_service_runs(
    nats_server: nats_server.NatsServer,
) -> None:
    """No credentials, a token, a password, an unknown nkey: without an answer nobody gets in."""
    answers = await asyncio.gather(*(_refusal(nats_server, who) for who in STRANGERS))
    assert answers == ["nats: 'Authorization Violation'"] * len(STRANGERS)


async def _refusal(server: nats_server.NatsServer, credentials: dict[str, Any]) -> str:
    client = Client()
    with pytest.raises(nats.errors.Error) as refused:
        await client.connect(
            server.url, allow_reconnect=False, connect_timeout=5, error_cb=_quiet, **credentials
        )
    await client.close()  # a refused nats-py client keeps its socket open
    return str(refused.value)


async def _quiet(_: Exception) -> None:
    return None


async def test_streams_and_address_survive_a_kill(
    fresh_nats: nats_server.NatsServer, keys_folder: Path
) -> None:
    """After SIGKILL the server comes back on its port with what was acknowledged."""
    client = await _connect(fresh_nats, keys_folder, "publisher")
    await client.jetstream().add_stream(name="KEPT", subjects=["kept.>"])
    await client.jetstream().publish("kept.one", b"1")
    url, pid = fresh_nats.url, fresh_nats.pid
    await client.close()
    await fresh_nats.kill()
    await fresh_nats.restart()
    assert fresh_nats.url == url
    assert fresh_nats.pid != pid
    client = await _connect(fresh_nats, keys_folder, "publisher")
    assert (await client.jetstream().stream_info("KEPT")).state.messages == 1
    await client.close()


async def test_two_servers_run_side_by_side(
    nats_server: nats_server.NatsServer, fresh_nats: nats_server.NatsServer
) -> None:
    """Each chooses its own ports and folder."""
    assert nats_server.url != fresh_nats.url
    assert nats_server.websocket_url != fresh_nats.websocket_url
    assert nats_server.folder != fresh_nats.folder


async def test_a_cluster_keeps_what_it_acknowledged_when_a_server_is_lost(
    keys_folder: Path, tmp_path: Path
) -> None:
    """Three servers over TLS, the leader of a stream killed: clients go on with nothing lost."""
    files = tls.make(tmp_path)
    pem = server_config.Tls(*map(str, (files.certificate, files.key, files.authority)))
    async with nats_server.run_cluster(keys_folder, tls=pem) as servers:
        client = await nats.connect(
            [server.url for server in servers],
            tls=files.client_context(),
            nkeys_seed_str=keys.load(keys_folder, "publisher").text,
            reconnect_time_wait=0.05,
            error_cb=_quiet,
        )
        stream = client.jetstream(timeout=10)
        info = await stream.add_stream(name="KEPT", subjects=["kept.>"], num_replicas=3)
        await stream.publish("kept.one", b"1")
        leader = info.cluster.leader if info.cluster else None
        await next(server for server in servers if server.config.name == leader).kill()
        async with asyncio.timeout(60):
            while not await _published(client):
                pass
        assert (await stream.get_msg("KEPT", 1)).data == b"1"
        await client.close()


async def test_a_stranger_cannot_join_the_cluster(keys_folder: Path, tmp_path: Path) -> None:
    """A server with accounts and streams of its own, that was told where the others are (S12)."""
    async with nats_server.run_cluster(keys_folder) as servers:
        cluster = servers[0].config.cluster
        assert cluster is not None
        log = tmp_path / "log"
        conf = tmp_path / "nats.conf"
        routes = ", ".join(f'"nats-route://{route}"' for route in cluster.routes)
        conf.write_text(
            f'listen: "127.0.0.1:-1"\nlog_file: "{log}"\n'
            f'cluster: {{name: "sandbox", listen: "127.0.0.1:-1", routes: [{routes}]}}\n'
            'accounts: {ARVADOS: {users: [{user: "evil", password: "evil"}]}}\n'
        )
        stranger = await asyncio.create_subprocess_exec(nats_server.executable(), "-c", str(conf))
        try:
            async with asyncio.timeout(60):
                while not any("authentication error" in s.log for s in servers):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            stranger.terminate()
            await stranger.wait()
        client = await _connect(servers[0], keys_folder, "sys")
        answer = await client.request("$SYS.REQ.SERVER.PING.ROUTEZ", b"{}", timeout=5)
        routez = json.loads(answer.data)["data"]["routes"]
        assert {route["remote_name"] for route in routez} <= {s.config.name for s in servers}
        await client.close()


async def _published(client: Client) -> bool:
    try:
        await client.jetstream(timeout=1).publish("kept.two", b"2")
    except (nats.errors.Error, nats.js.errors.Error):
        await asyncio.sleep(0.05)  # no leader yet
        return False
    return True


async def test_a_stream_with_three_copies_fits_the_store_that_was_given(
    keys_folder: Path,
) -> None:
    """Each copy counts against ARVADOS: what fits one server's disk fits, and no more."""
    limits = accounts_config.AccountLimits(store=conf_text.GIB, copies=3)
    async with nats_server.run_cluster(keys_folder, limits=limits) as servers:
        client = await _connect(servers[0], keys_folder, "publisher")
        await _add_stream(client, 900 * conf_text.MIB)
        with pytest.raises(nats.js.errors.Error):
            await _add_stream(client, 950 * conf_text.MIB)
        await client.close()


async def _add_stream(client: Client, size: int) -> None:
    stream = client.jetstream(timeout=10)
    await stream.add_stream(name="KEPT", subjects=["kept.>"], num_replicas=3, max_bytes=size)
    await stream.delete_stream("KEPT")
