# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How late a change is can be read at each station: the stream, the live subjects, the sockets."""

from __future__ import annotations

import json

import httpx
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from sandbox.sandbox import MANAGEMENT_TOKEN
from sandbox.stack import Stack
from tests.support.waiting import until

STATIONS = {
    "publishers": (
        "arvados_nats_publishers_event_lag_seconds",
        "arvados_nats_publishers_live_lag_seconds",
    ),
    "wsproxy": ("arvados_nats_wsproxy_event_lag_seconds",),
}


async def measured(stack: Stack) -> dict[str, tuple[float, float]]:
    """Of each station's histogram: how many were measured, and the sum of their seconds."""
    found = {}
    for service, names in STATIONS.items():
        url = f"http://127.0.0.1:{stack.services[service].ops_port}/metrics"
        async with httpx.AsyncClient() as client:
            answer = await client.get(url, headers={"Authorization": f"Bearer {MANAGEMENT_TOKEN}"})
        for family in text_string_to_metric_families(answer.text):
            if family.name in names:
                values = [
                    (s.name, s.value) for s in family.samples if s.labels.get("what") != "log"
                ]
                found[family.name] = (
                    sum(value for name, value in values if name.endswith("_count")),
                    sum(value for name, value in values if name.endswith("_sum")),
                )
    return found


async def test_a_change_is_measured_at_every_station(stack: Stack) -> None:
    """One more at each, and none took longer than the test."""
    alice = await stack.sandbox.cluster.user("alice")
    async with connect(f"{stack.websocket_url}?api_token={alice.token}") as socket:
        await socket.send(json.dumps({"method": "subscribe"}))
        await socket.recv()
        before = await measured(stack)
        project = await stack.sandbox.cluster.project("late", owner=alice)
        while project.uuid not in await socket.recv():
            pass

        async def is_measured() -> bool:
            after = await measured(stack)
            return all(
                after[name][0] > before.get(name, (0, 0))[0]
                for names in STATIONS.values()
                for name in names
            )

        await until(is_measured, "each station has measured it")
    for name, (count, seconds) in (await measured(stack)).items():
        assert 0 <= seconds - before.get(name, (0, 0))[1] < 60 * count, name
