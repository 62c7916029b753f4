# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""With a collector, each service tells what a row, a login and a replay took, and no secret."""

from __future__ import annotations

import json

from websockets.asyncio.client import connect

from sandbox import stack as services
from sandbox.sandbox import Sandbox
from tests.support.clients.native import connected
from tests.support.fronts import otlp_collector
from tests.support.fronts.otlp_collector import facts


async def test_a_row_a_login_and_a_replay_are_traced(sandbox: Sandbox) -> None:
    """All that was done is with the collector when the services have ended."""
    alice = await sandbox.cluster.user("alice")
    with otlp_collector.run() as collector:
        traced = {"ARVADOS_NATS_TRACES_URL": collector.url, "ARVADOS_NATS_TRACES_SHARE": "1"}
        async with services.beside(sandbox, **traced) as stack:
            async with connected(stack, alice):
                project = await sandbox.cluster.project("traced", owner=alice)
            url = f"{stack.websocket_url}?api_token={alice.token}"
            async with connect(url) as socket:
                await socket.send(json.dumps({"method": "subscribe", "last_log_id": 1}))
                while project.uuid not in await socket.recv():
                    pass
    assert collector.services == {f"arvados-nats-{name}" for name in stack.services}
    rows = collector.all_named("row stored")
    assert "group" in {facts(span)["object_kind"] for span in rows}
    assert all(span.end_time_unix_nano > span.start_time_unix_nano for span in rows)
    (login, *_) = (
        span
        for span in collector.all_named("login decided")
        if facts(span) == {"outcome": "admitted", "user_uuid": alice.uuid}
    )
    parts = {span.name for span in collector.spans if span.parent_span_id == login.span_id}
    assert parts == {"token identified", "grants read"}
    assert collector.all_named("events replayed")
    secret = alice.token.rpartition("/")[2].encode()
    assert secret not in collector.received
