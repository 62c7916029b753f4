# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Logins while something is away: the callout service, or Arvados itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from bench.crowd import clients as clients_of_their_own
from bench.crowd import native
from sandbox import bulk
from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.support.clients.native import connected, lets_in, lets_in_at_last
from tests.support.waiting import until

CLIENTS = 100
LOOK_UP = "GET /arvados/v1/api_client_authorizations/current"
CALLS = 2
"""authcallout's `arvados_calls`."""
ALL_CALLS = 8
"""Of one replica of each service together (tests/integration/admin/test_ages.py)."""


@pytest.fixture(scope="module")
def stack(own_stack: Stack) -> Stack:
    """Of this file alone: NATS and Arvados go away, and many log in."""
    return own_stack


@pytest.fixture(scope="module")
async def crowd(stack: Stack) -> AsyncIterator[list[Actor]]:
    """Many users with a token each."""
    yield await bulk.users(stack.sandbox.cluster, CLIENTS, "crowd")


# nats-py leaves the sockets of its failed attempts to reconnect to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
async def test_arvados_away_harms_nobody_who_is_known(stack: Stack, crowd: list[Actor]) -> None:
    """Connected clients stay, known tokens come back, unknown ones are refused, and afterwards
    there is no stampede: what is known is not asked again."""
    api = stack.sandbox.api_tls
    newcomer = await stack.sandbox.cluster.user("newcomer")
    async with AsyncExitStack() as exits:
        clients = [await exits.enter_async_context(connected(stack, actor)) for actor in crowd]
        await api.stop()
        try:
            assert not await lets_in(stack, newcomer.token)
            back = await asyncio.gather(*(lets_in_at_last(stack, a.token) for a in crowd))
            assert all(back)
            await stack.sandbox.nats.restart()
            await until(
                lambda: all(client.nats.connected for client in clients), "all are back", 30
            )
        finally:
            await api.start()
        stack.sandbox.backend.faults.reset()
        assert await lets_in_at_last(stack, newcomer.token)
        assert all(client.nats.connected for client in clients)
        assert stack.sandbox.backend.faults.count(LOOK_UP) <= CALLS


async def test_services_run_and_nobody_else_gets_in_without_the_callout(
    stack: Stack, crowd: list[Actor]
) -> None:
    """Static identities need no callout; everybody else is refused until it is back."""
    callout, proxy = stack.services["authcallout"], stack.services["wsproxy"]
    async with connected(stack, crowd[0]) as client:
        await callout.kill()
        try:
            await proxy.stop()
            await proxy.start()
            assert not await lets_in(stack, crowd[1].token)
            assert client.nats.connected
        finally:
            await callout.start()
    assert await lets_in_at_last(stack, crowd[1].token)


async def test_arvados_is_never_asked_more_than_it_should_be(
    stack: Stack, crowd: list[Actor]
) -> None:
    """Logins of many tokens at once, half of them wrong: in the end exactly the good ones are in,
    and Arvados sees each token once, however many connections it opens."""
    faults = stack.sandbox.backend.faults
    fresh = [await stack.sandbox.cluster.token(actor) for actor in crowd[:40]]
    wrong = [f"{actor.token}x" for actor in fresh]
    faults.reset()
    async with asyncio.timeout(120):
        outcomes = await asyncio.gather(
            *(lets_in_at_last(stack, actor.token) for actor in fresh for _ in range(3)),
            *(lets_in(stack, token) for token in wrong for _ in range(3)),
        )
    assert outcomes == [True] * 120 + [False] * 120
    assert faults.count(LOOK_UP) <= 2 * len(fresh) + len(wrong)


async def test_a_thousand_logins_side_by_side_half_of_them_wrong(stack: Stack) -> None:
    """None waits for another. Whoever could not be decided about in time is refused and comes
    again; in the end exactly the good ones are in, and Arvados never saw more calls than set."""
    users = await bulk.users(stack.sandbox.cluster, 125, "many")
    good = [native.login(user.token) for user in users] * 4
    wrong = [native.login(f"{user.token}x{number}") for number in range(4) for user in users]
    faults = stack.sandbox.backend.faults
    faults.reset()
    host, _, port = stack.sandbox.nats.url.rpartition("//")[2].rpartition(":")
    address = host, int(port)
    async with clients_of_their_own.clients() as clients, asyncio.timeout(150):
        hellos = [hello for pair in zip(good, wrong, strict=True) for hello in pair]
        took = await clients.login(address, hellos, len(hellos))
        assert max(took[1::2]) < 0
        out = [hello for hello, seconds in zip(good, took[::2], strict=True) if seconds < 0]
        while out:
            took = await clients.login(address, out, len(out))
            out = [hello for hello, seconds in zip(out, took, strict=True) if seconds < 0]
        assert len([moment for moment in await clients.closed() if not moment]) == len(good)
        await clients.close()
    assert faults.most <= ALL_CALLS


@pytest.mark.parametrize("library", ["go", "nats.js", "python3"])
async def test_who_would_give_up_is_cut_and_not_refused(stack: Stack, library: str) -> None:
    """nats.go and nats.js end for good with the second refusal, and come back to a server that
    closed the connection; nats-py, of which the opposite is true, is refused as ever."""
    newcomer = await stack.sandbox.cluster.user("newcomer")
    host, _, port = stack.sandbox.nats.url.rpartition("//")[2].rpartition(":")
    await stack.sandbox.api_tls.stop()
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
        hello = native.login(newcomer.token)
        writer.write(hello.replace(b'"lang": "bench"', b'"lang": "%b"' % library.encode()))
        async with asyncio.timeout(30):
            said = await reader.read()
    finally:
        await stack.sandbox.api_tls.start()
        writer.close()
    assert (b"-ERR" in said) == (library == "python3")
