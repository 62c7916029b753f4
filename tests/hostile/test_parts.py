# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A part of the publishers that fails, whatever the reason, begins anew while the others go on."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from arvados_nats.contract import streams
from arvados_nats.errors import ConfigError
from arvados_nats.nats import client as nats_client
from arvados_nats.service import keys
from arvados_nats.service.ops import Health
from publishers import main as publishers
from publishers.main import PARTS, Shared
from publishers.settings import Settings
from publishers.supervision import RESTARTS, keep_running
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
