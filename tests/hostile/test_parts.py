# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A part of the publishers that fails, whatever the reason, begins anew while the others go on."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import httpx
import pytest

from arvados_nats.contract import streams, subjects
from arvados_nats.errors import ConfigError, Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.permission_client.own_tokens import OwnTokens
from arvados_nats.service import keys
from arvados_nats.service.ops import Health
from publishers import main as publishers
from publishers.main import PARTS, Shared
from publishers.settings import Settings
from publishers.supervision import RESTARTS, keep_running
from sandbox.cluster import open_cluster
from sandbox.model.config import ClusterConfig
from sandbox.servers import ports
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.waiting import until


def _restarts(part: str) -> float:
    value: float = RESTARTS.labels(part)._value.get()
    return value


async def _sends_too_much(shared: Shared) -> None:
    """What ended all parts once: a message for which the server ends the connection for good."""
    client = shared.nats._client
    big = bytes(shared.nats.max_payload)
    await client._send_publish("arvados.x", "", big, len(big), {"a": "b"})
    await asyncio.Event().wait()


async def _crashes(shared: Shared) -> None:
    raise KeyError("a mistake of ours")


async def _sets_wrongly(shared: Shared) -> None:
    """A setting that is found wrong when the part has been well before."""
    shared.health.well("queue")
    raise ConfigError("a password that is being changed")


@pytest.mark.parametrize("fails", [_sends_too_much, _crashes, _sets_wrongly])
async def test_a_part_that_fails_begins_anew_and_the_others_go_on(
    cluster: object,
    database: Database,
    fresh_nats: NatsServer,
    keys_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: object,
) -> None:
    """The queue fails again and again; events are published all the while, by one connection."""
    monkeypatch.setitem(PARTS, "queue", fails)
    settings = Settings(
        nats_url=fresh_nats.url,
        keys_dir=keys_folder,
        postgres_dsn=database.reader_dsn,
        ops_listen=f"127.0.0.1:{next(ports.candidates())}",
    )
    before = _restarts("queue"), _restarts("events")
    running = asyncio.create_task(publishers.main(settings, ("events", "queue")))
    seed = keys.load(keys_folder, "publisher").text
    try:
        async with nats_client.connect([fresh_nats.url], name="test", seed=seed) as nats:

            async def both() -> bool:
                assert not running.done(), running.exception()
                there = await nats.stream_info(streams.EVENTS) is not None
                return there and _restarts("queue") >= before[0] + 2

            await until(both, "the queue has failed twice, and events are published")
        assert _restarts("events") == before[1]
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_nothing_runs_in_the_account_of_another_cluster(
    database: Database, fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """A user of a federation is in both, with other rights: nothing is written, told or answered,
    and nobody is let in by what the others answer."""
    where = f"127.0.0.1:{next(ports.candidates())}"
    settings = Settings(
        nats_url=fresh_nats.url,
        keys_dir=keys_folder,
        postgres_dsn=database.reader_dsn,
        ops_listen=where,
        management_token="manage",
    )
    own_id, seed = ClusterConfig().cluster_id, keys.load(keys_folder, "publisher").text
    user = f"{own_id}-tpzed-{'0' * 15}"

    async def ours() -> str:
        return own_id

    async def health() -> str:
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(headers={"Authorization": "Bearer manage"}) as http:
                return (await http.get(f"http://{where}/_health/ping")).text
        return ""

    async with (
        open_cluster(database.dsn, ClusterConfig()),
        nats_client.connect([fresh_nats.url], name="test", seed=seed) as nats,
    ):
        await streams.ensure(nats, streams.cursor_stream(cluster="bbbbb"))
        running = asyncio.create_task(publishers.main(settings, ("events", "permissions")))
        try:

            async def refused() -> bool:
                assert not running.done(), running.exception()
                return (await health()).count("are those of cluster bbbbb") == 2

            await until(refused, "both say whose account it is")
            assert await nats.stream_info(streams.EVENTS) is None
            with pytest.raises(Unavailable):
                await nats.request(subjects.TOKENS_GET, b"[]")
            with pytest.raises(Unavailable, match="bbbbb"):
                await OwnTokens(ours, nats).of(f"{own_id}-gj3su-{'0' * 15}", user)
            await nats.js_api(f"STREAM.DELETE.{streams.CURSORS}")

            async def begun() -> bool:
                return await nats.stream_info(streams.EVENTS) is not None

            await until(begun, "the account is theirs")
            assert await streams.owner(nats) == own_id
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def test_a_setting_that_is_wrong_at_the_start_ends_the_process() -> None:
    """It is named, and not tried again."""
    health = Health()
    health.starting("queue")

    async def part() -> None:
        raise ConfigError("nats_url: no")

    with pytest.raises(ConfigError, match="nats_url"):
        await keep_running("queue", health, part)


async def test_a_part_that_ends_by_itself_is_not_begun_anew() -> None:
    """It has done what it is for."""
    await keep_running("system log stream", Health(), _nothing)


async def _nothing() -> None:
    """A part with nothing to do."""
