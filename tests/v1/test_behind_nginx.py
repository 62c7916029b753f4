# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Logs through an nginx that nobody has told anything about us."""

from __future__ import annotations

from pathlib import Path

import pytest

from arvados_nats.client import stream
from arvados_nats.errors import ConfigError
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from tests.support.fronts import nginx
from tests.support.worlds.site import Site
from tests.v1.test_sse import opened


async def test_lines_come_at_once_though_it_buffers(
    site: Site, cluster: Cluster, alice: Actor, tmp_path: Path
) -> None:
    """Server-sent events pass, small as they are, while the container runs on
    (docs/facts/arvados-demand.md G22); no token stands in its log (G27)."""
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    async with (
        nginx.in_front(site.http_url, tmp_path) as url,
        opened(url, request.uuid, alice) as events,
    ):
        await events.until("caught_up")
        for line in (b"one\n", b"two\n", b"three\n"):
            await cluster.write_log(container, "stdout.txt", line)
            assert (await events.until("log"))["text"].encode() == line
        await cluster.finish(container)
        await events.rest()
        assert events.logs.content(container.uuid, "stdout.txt") == b"one\ntwo\nthree\n"
    written = (tmp_path / "access.log").read_text()
    assert "log_events" in written
    assert alice.token.rpartition("/")[2] not in written


async def test_a_proxy_that_strips_upgrade_is_named(
    site: Site, cluster: Cluster, alice: Actor, tmp_path: Path
) -> None:
    """No WebSocket is possible: the command says why, instead of waiting (G23)."""
    request = await cluster.container_request("job", owner=alice)
    async with nginx.in_front(site.http_url, tmp_path) as url:
        address = f"{url.replace('http', 'ws', 1)}/v1/stream"
        async with stream.connect(address, lambda: alice.token) as events:
            reading = await events.log(request.uuid)
            with pytest.raises(ConfigError, match="does not forward WebSockets"):
                await anext(reading)
