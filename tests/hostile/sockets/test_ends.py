# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A dead token ends all its sessions, whatever is the matter with one of them."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import subjects
from arvados_nats.permissions.grant_subjects import Change
from sandbox.model.actors import Actor
from tests.support.clients import v1 as clients
from tests.support.clients.v0 import client as v0_client
from tests.support.log_readers import MemoryWire
from tests.support.worlds.proxy import own, until_equal
from tests.support.worlds.site import Site
from wsproxy.transport.close_codes import CloseCode
from wsproxy.transport.limits import Limits, Tally
from wsproxy.transport.send_buffer import SendBuffer
from wsproxy.transport.send_buffers import SendBuffers

WITHIN = 60.0


class Broken:
    """A session with a fault of ours in it; to the loop it is like any other."""

    def __init__(self) -> None:
        self.place = Tally(Limits()).enter("nowhere")
        self.send_buffer: SendBuffer = SendBuffers().open(MemoryWire(lambda _: None))

    def ended(self, reason: str) -> None:
        raise KeyError(reason)

    def narrowed(self, change: Change) -> None:
        raise KeyError

    def tick(self, now: float) -> None:
        raise KeyError

    def drain(self) -> None:
        raise KeyError


async def gone(site: Site, who: Actor, reason: str) -> None:
    """Let all services hear that a token is dead."""
    assert who.token_uuid is not None
    payload = msgspec.json.encode({"token_uuid": who.token_uuid, "reason": reason})
    await site.nats.publish(subjects.token_gone(who.token_uuid), payload)


@pytest.mark.parametrize("reason", ["x" * 500, "é" * 100, "€" * 41, "deleted"])
async def test_a_reason_of_any_length_ends_all_sessions(
    site: Site, alice: Actor, reason: str
) -> None:
    """What has no room in a close frame is cut, at a character."""
    async with own(site) as (base, services):
        async with (
            v0_client(f"{base}/websocket", alice.token) as old,
            clients.connected(base, alice) as first,
            clients.connected(base, alice) as second,
        ):
            await until_equal(lambda: services.logins.sessions_of(alice.uuid), 3)
            await gone(site, alice, reason)
            for client in (first, second):
                assert await client.closed() == CloseCode.TOKEN_INVALID
            async with asyncio.timeout(WITHIN):
                await old.socket.wait_closed()
            assert old.socket.close_code == CloseCode.TOKEN_INVALID
            for socket in (old.socket, first.socket, second.socket):
                told = socket.close_reason or ""
                assert f"token {reason}".startswith(told)
                assert len(told.encode()) >= min(121, len(f"token {reason}".encode()))


async def test_a_session_that_fails_ends_alone(site: Site, alice: Actor) -> None:
    """Its loop goes on to the others, whose permission is gone as well."""
    async with own(site) as (base, services):
        broken = [Broken() for _ in range(8)]
        for session in broken:
            await services.logins.admit(Token(alice.token), session)
            services.transport.connections.add(session)
        async with clients.connected(base, alice) as first, clients.connected(base, alice) as other:
            await gone(site, alice, "deleted")
            assert await first.closed() == CloseCode.TOKEN_INVALID
            assert await other.closed() == CloseCode.TOKEN_INVALID
        assert all(session.send_buffer.closed for session in broken)
        again = await site.cluster.token(alice)
        async with clients.connected(base, again) as third:
            draining = asyncio.create_task(services.transport.connections.drain(0.0, 0.1))
            assert await third.closed() == CloseCode.DRAIN
            await draining
