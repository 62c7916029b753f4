# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Logins while something is away: the callout service, or Arvados itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from arvados_nats import nats_client
from arvados_nats.errors import Refused, Unavailable
from bench import crowds as clients_of_their_own
from bench import native
from sandbox import crowds
from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.flows.native import connected, until

CLIENTS = 100
LOOK_UP = "GET /arvados/v1/api_client_authorizations/current"
CALLS = 16
"""authcallout's `arvados_calls`."""


@pytest.fixture(scope="module")
async def crowd(stack: Stack) -> AsyncIterator[list[Actor]]:
    """Many users with a token each."""
    yield await crowds.users(stack.sandbox.cluster, CLIENTS, "crowd")


async def _lets_in(stack: Stack, token: str) -> bool:
    try:
        async with nats_client.connect([stack.sandbox.nats.url], name="t", token=token, timeout=5):
            return True
    except (Refused, Unavailable):  # a silent callout looks like either: both give up after 2 s
        return False


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
            assert not await _lets_in(stack, newcomer.token)
            back = await asyncio.gather(*(_lets_in(stack, actor.token) for actor in crowd))
            assert all(back)
            await stack.sandbox.nats.restart()
            await until(
                lambda: all(client.nats.connected for client in clients), "all are back", 30
            )
        finally:
            await api.start()
        stack.sandbox.backend.faults.reset()
        await until_true(lambda: _lets_in(stack, newcomer.token))
        assert all(client.nats.connected for client in clients)
        assert stack.sandbox.backend.faults.count(LOOK_UP) <= CALLS


async def until_true(ask: Callable[[], Awaitable[bool]], within: float = 15.0) -> None:
    """Ask again until the answer is yes."""
    async with asyncio.timeout(within):
        while not await ask():  # noqa: ASYNC110 (each look is a login)
            await asyncio.sleep(0.2)


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
            assert not await _lets_in(stack, crowd[1].token)
            assert client.nats.connected
        finally:
            await callout.start()
    assert await _lets_in(stack, crowd[1].token)


async def test_arvados_is_never_asked_more_than_it_should_be(
    stack: Stack, crowd: list[Actor]
) -> None:
    """Logins of many tokens at once, half of them wrong: counts are exact, and Arvados sees each
    token once, however many connections it opens."""
    faults = stack.sandbox.backend.faults
    fresh = [await stack.sandbox.cluster.token(actor) for actor in crowd[:40]]
    wrong = [f"{actor.token}x" for actor in fresh]
    faults.reset()
    tokens = [actor.token for actor in fresh for _ in range(3)] + [
        t for t in wrong for _ in range(3)
    ]
    async with asyncio.timeout(45):
        outcomes = await asyncio.gather(*(_lets_in(stack, token) for token in tokens))
    assert outcomes == [True] * 120 + [False] * 120
    assert faults.count(LOOK_UP) <= 2 * len(fresh) + len(wrong)


async def test_two_thousand_logins_side_by_side_half_of_them_wrong(stack: Stack) -> None:
    """None waits for another. Whoever could not be decided about in time is refused and comes
    again; in the end exactly the good ones are in, and Arvados never saw more calls than set."""
    users = await crowds.users(stack.sandbox.cluster, 250, "many")
    good = [native.login(user.token) for user in users] * 4
    wrong = [native.login(f"{user.token}x{number}") for number in range(4) for user in users]
    faults = stack.sandbox.backend.faults
    faults.reset()
    host, _, port = stack.sandbox.nats.url.rpartition("//")[2].rpartition(":")
    address = host, int(port)
    async with clients_of_their_own.clients() as clients, asyncio.timeout(90):
        hellos = [hello for pair in zip(good, wrong, strict=True) for hello in pair]
        took = await clients.login(address, hellos, len(hellos))
        assert max(took[1::2]) < 0
        out = [hello for hello, seconds in zip(good, took[::2], strict=True) if seconds < 0]
        while out:
            took = await clients.login(address, out, len(out))
            out = [hello for hello, seconds in zip(out, took, strict=True) if seconds < 0]
        assert len([moment for moment in await clients.closed() if not moment]) == len(good)
        await clients.close()
    assert faults.most <= CALLS
