# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The callout's index of connections over a loss of its own line (S21)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from arvados_nats.nats import client as nats_client
from arvados_nats.service import keys
from authcallout.connections import Connections
from sandbox.servers.nats_server import NatsServer


async def test_what_was_not_heard_is_asked_for_when_the_line_is_back(
    nats_server: NatsServer, keys_folder: Path
) -> None:
    """Not at the next round, minutes later: a connection that is not known cannot be cut."""
    seed = keys.load(keys_folder, "sys").text
    compared: asyncio.Queue[None] = asyncio.Queue()

    async def complete() -> None:
        compared.put_nowait(None)

    async with (
        nats_client.connect([nats_server.url], name="index", seed=seed) as system,
        nats_client.connect([nats_server.url], name="test", seed=seed) as other,
    ):
        following = asyncio.create_task(Connections(system).follow(complete))
        try:
            await asyncio.wait_for(compared.get(), 60)
            answer = await other.request("$SYS.REQ.SERVER.PING.CONNZ", b"{}")
            body = json.loads(answer.data)
            (cid,) = [c["cid"] for c in body["data"]["connections"] if c.get("name") == "index"]
            kick = f"$SYS.REQ.SERVER.{body['server']['id']}.KICK"
            await other.request(kick, json.dumps({"cid": cid}).encode())
            await asyncio.wait_for(compared.get(), 60)
        finally:
            following.cancel()
            await asyncio.wait([following])
