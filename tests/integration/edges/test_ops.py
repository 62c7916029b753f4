# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Health and metrics, as Arvados serves them (docs/facts/arvados.md 7)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from arvados_nats.errors import ConfigError
from arvados_nats.service import http_server, ops
from arvados_nats.service.ops import Health
from sandbox.servers import ports
from tests.support.background import background


@asynccontextmanager
async def served(health: Health, token: str | None) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette()
    ops.add_routes(app, health, lambda: token)
    sock = http_server.listen("127.0.0.1:0")
    port = sock.getsockname()[1]
    async with (
        background(http_server.serve(app, sock)),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


@pytest.mark.parametrize("path", ["/_health/ping", "/metrics"])
@pytest.mark.parametrize(
    ("configured", "sent", "status"),
    [
        (None, None, 404),
        (None, "Bearer x", 404),
        ("x", None, 401),
        ("x", "Basic x", 401),
        ("x", "Bearer y", 403),
        ("x", "Bearer x", 200),
    ],
)
async def test_the_management_token_is_asked_for(
    path: str, configured: str | None, sent: str | None, status: int
) -> None:
    """Without a configured token 404, none sent 401, a wrong one 403."""
    async with served(Health(), configured) as client:
        answer = await client.get(path, headers={"Authorization": sent} if sent else {})
    assert answer.status_code == status


async def test_a_fault_is_told_and_taken_back() -> None:
    """Unhealthy is HTTP 200 with an error that names the part."""
    health = Health()
    async with served(health, "x") as client:
        headers = {"Authorization": "Bearer x"}
        health.fault("database", "gone")
        sick = await client.get("/_health/ping", headers=headers)
        health.well("database")
        well = await client.get("/_health/ping", headers=headers)
    assert sick.json() == {"health": "ERROR", "error": "database: gone", "version": ops.VERSION}
    assert well.json() == {"health": "OK", "version": ops.VERSION}


def test_a_part_that_has_not_begun_tells_why_once(caplog: pytest.LogCaptureFixture) -> None:
    """Though health has a word of it from the beginning."""
    health = Health({"events": "the stream was not read yet", "other": ops.STARTING})
    for part in ("events", "other"):
        health.fault(part, "there is no stream")
        health.fault(part, "there is none, still")
    told = [(record.__dict__["part"], record.__dict__["error"]) for record in caplog.records]
    assert told == [("events", "there is no stream"), ("other", "there is no stream")]
    assert health._since.keys() == {"events", "other"}


async def test_a_taken_port_is_a_setting_to_mend() -> None:
    """The address is named, and the process is not ended by the library."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=address):
            http_server.listen(address)
    with pytest.raises(ConfigError, match="host:port"):
        http_server.listen("nonsense")


async def test_every_address_is_served_and_a_proxy_known_by_its_own() -> None:
    """Of a cluster with IPv6 alone, too; who comes by IPv4 does not look like somebody else."""
    app = Starlette()

    async def who(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.client.host if request.client else "")

    http_server.add_route(app, "/", who, "GET")
    sock = http_server.listen("*:0")
    serving = asyncio.create_task(http_server.serve(app, sock, trusted_proxies="127.0.0.0/8"))
    told = {"X-Forwarded-For": "192.0.2.7"}
    addresses = {"127.0.0.1": "192.0.2.7"}
    if sock.family == socket.AF_INET6:
        addresses["[::1]"] = "::1"
    try:
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=5)) as client:
            for host, seen in addresses.items():
                url = f"http://{host}:{sock.getsockname()[1]}/"
                assert (await client.get(url, headers=told)).text == seen
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def test_probes_tell_the_start_and_the_drain_and_nothing_else() -> None:
    """No token is asked for; a failing dependency gets no process restarted or set aside."""
    address = f"127.0.0.1:{next(ports.candidates())}"
    health = Health({"nats": ops.STARTING})
    serving = asyncio.create_task(ops.serve(address, health, lambda: "x"))
    try:
        async with httpx.AsyncClient(
            base_url=f"http://{address}", transport=httpx.AsyncHTTPTransport(retries=5)
        ) as client:

            async def answers() -> list[int]:
                return [(await client.get(path)).status_code for path in ("/livez", "/readyz")]

            assert await answers() == [200, 503]
            health.well("nats")
            assert await answers() == [200, 200]
            health.fault("nats", "gone")
            assert await answers() == [200, 200]
            health.faults["wsproxy"] = ops.STOPPING
            assert await answers() == [200, 503]
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def test_what_fails_is_a_metric_until_it_works_again() -> None:
    """By part; one that never begins does not work either, and one that ends need not."""
    health = Health()
    health.starting("slow part")
    health.fault("odd part", "no connection")
    health.faults["last part"] = ops.STOPPING
    async with served(health, "x") as client:

        async def degraded() -> str:
            answer = await client.get("/metrics", headers={"Authorization": "Bearer x"})
            return "\n".join(line for line in answer.text.splitlines() if "_degraded{" in line)

        before = await degraded()
        health.well("odd part")
        after = await degraded()
    assert 'arvados_nats_degraded{part="odd part"} 1.0' in before
    assert 'arvados_nats_degraded{part="odd part"} 0.0' in after
    assert 'arvados_nats_degraded{part="slow part"} 1.0' in before
    assert "last part" not in before


async def test_what_is_well_in_this_very_moment_does_not_stay_a_fault() -> None:
    """Metrics are told in a thread, beside which the service goes on."""

    class Recovering(dict[str, str]):
        def items(self) -> Any:
            for part, told in [*super().items()]:
                health.well(part)
                yield part, told

    health = Health()
    health.fault("quick part", "no connection")
    health.faults = Recovering(health.faults)
    async with served(health, "x") as client:
        answer = await client.get("/metrics", headers={"Authorization": "Bearer x"})
    assert 'arvados_nats_degraded{part="quick part"} 0.0' in answer.text
