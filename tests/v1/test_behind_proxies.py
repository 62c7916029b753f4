# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Logs through proxies that nobody has told anything about us: nginx and HAProxy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from arvados_nats.client import stream
from arvados_nats.errors import ConfigError
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from tests.support.fronts import haproxy, nginx
from tests.support.worlds.site import Site
from tests.v1.test_sse import opened
from wsproxy import metrics


@pytest.mark.parametrize("proxy", ["nginx", "HAProxy that compresses"])
async def test_lines_come_at_once_though_it_buffers(
    site: Site, cluster: Cluster, alice: Actor, tmp_path: Path, proxy: str
) -> None:
    """Server-sent events pass, small as they are, while the container runs on
    (docs/facts/arvados-demand.md G22); no token stands in its log (G27)."""
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    front = (nginx if proxy == "nginx" else haproxy).in_front(site.http_url, tmp_path)
    async with (
        front as url,
        opened(url, request.uuid, alice) as events,
    ):
        assert "content-encoding" not in events.answer.headers, "it may be held back"
        await events.until("caught_up")
        for line in (b"one\n", b"two\n", b"three\n"):
            await cluster.write_log(container, "stdout.txt", line)
            assert (await events.until("log"))["text"].encode() == line
        await cluster.finish(container)
        await events.rest()
        assert events.logs.content(container.uuid, "stdout.txt") == b"one\ntwo\nthree\n"
    if proxy != "nginx":
        return
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


@pytest.mark.parametrize("away", [False, True])
async def test_live_logs_are_read_at_the_controllers_address(
    site: Site, cluster: Cluster, alice: Actor, bob: Actor, tmp_path: Path, away: bool
) -> None:
    """By the documented lines: while the container runs and after its end, and while wsproxy is
    away; what is refused is refused by the controller, in its words."""
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    await cluster.write_log(container, "stdout.txt", b"0123456789\n")
    folder = f"/arvados/v1/container_requests/{request.uuid}/log/{container.uuid}"
    token = {"Authorization": f"Bearer {alice.token}"}
    before = metrics.log_folder.labels("answered")._value.get()
    wsproxy = "http://127.0.0.1:9" if away else site.http_url
    async with (
        nginx.before_controller(site.api.url, wsproxy, tmp_path) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        async with asyncio.timeout(60):
            while True:
                listing = await http.request("PROPFIND", folder, headers=token)
                assert listing.status_code == 207
                if away or metrics.log_folder.labels("answered")._value.get() > before:
                    break
                await asyncio.sleep(0.05)
        asked = {**token, "Range": "bytes=3-5"}
        assert b"stdout.txt" in listing.content
        part = await http.get(f"{folder}/stdout.txt", headers=asked)
        assert (part.status_code, part.content) == (206, b"345")
        other = {"Authorization": f"Bearer {bob.token}"}
        assert (await http.request("PROPFIND", folder, headers=other)).status_code == 404
        assert (await http.request("PROPFIND", folder)).status_code == 401
        await cluster.finish(container)
        part = await http.get(f"{folder}/stdout.txt", headers=asked)
        assert (part.status_code, part.content) == (206, b"345")
        listing = await http.request("PROPFIND", folder, headers=token)
        assert listing.status_code == 207
        assert b"stdout.txt" in listing.content
