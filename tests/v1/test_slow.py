# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Slow peers over real sockets: they lose nothing, hold nobody up, and cost little."""

from __future__ import annotations

import socket

from websockets.asyncio.client import connect as connect_raw
from websockets.typing import Subprotocol

from arvados_nats.protocol_v1.messages import SUBPROTOCOL
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from tests.support.clients.v1 import Client
from tests.support.worlds.site import Site
from tests.v1.conftest import Connect
from wsproxy import metrics

LINE = b"%07d " + b"." * 91 + b"\n"


async def test_a_peer_that_does_not_read_catches_up_later(
    site: Site, connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """20 MB are written while it sleeps; the other reader sees them meanwhile; then it gets all of
    them, byte for byte, on the same connection (docs/facts/realtime.md 3, rows 1, 23, 24;
    docs/facts/arvados-demand.md G4, which is slower)."""
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    await cluster.write_log(container, "stdout.txt", b"begin\n")
    base = site.websocket_url.removesuffix("/websocket")
    small = socket.create_connection(_address(base))
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    small.setblocking(False)
    async with (
        connect_raw(
            f"{base}/v1/stream",
            sock=small,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=None,
            max_queue=1,
        ) as raw,
        connect(alice) as fast,
    ):
        slow = Client(raw)
        await slow.authenticate(alice)
        await slow.subscribe("a", log={"uuid": request.uuid})
        await slow.until("caught_up")
        await fast.subscribe("a", log={"uuid": request.uuid})
        lags = metrics.log_lags._value.get()
        content = b"begin\n"
        for part in range(20):
            data = b"".join(LINE % (part * 10_000 + n) for n in range(10_000))
            await cluster.write_log(container, "stdout.txt", data)
            content += data
            await fast.until_content(container.uuid, "stdout.txt", content)
        assert metrics.log_lags._value.get() > lags
        await cluster.finish(container)
        await slow.until("end", within=60, request=request.uuid)
        assert slow.logs.content(container.uuid, "stdout.txt") == content
        assert not slow.of("gap")


def _address(base: str) -> tuple[str, int]:
    host, _, port = base.removeprefix("ws://").rpartition(":")
    return host, int(port)
