# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A v1 connection: who it is, what it may say, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from websockets.asyncio.client import connect as connect_raw
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from tests.support.clients import v1 as clients
from tests.support.worlds import site as sites
from tests.support.worlds.site import Site
from tests.v1.conftest import Connect
from wsproxy.transport.close_codes import CloseCode
from wsproxy.v1 import session as session_v1


async def test_a_token_is_acknowledged_with_its_uuid(connect: Connect, alice: Actor) -> None:
    """`hello` says who is connected and what the limits are. The line end of a file that holds the
    token is no part of it."""
    async with connect() as client:
        hello = await client.authenticate(f"{alice.token}\n")
        assert hello["user_uuid"] == alice.uuid
        assert hello["token_uuid"].split("-")[1] == "gj3su"
        assert hello["limits"]["subscriptions"] > 0
        assert hello["ping_seconds"] < 60


async def test_who_sends_tokens_again_and_again_waits(connect: Connect, alice: Actor) -> None:
    """Each is looked up, and its answer written, between everybody else's messages."""
    more = 2
    async with connect() as client, connect() as other:
        began = time.monotonic()
        for _ in range(session_v1.TOKENS_AT_FIRST + more):
            await client.authenticate(alice)
        assert time.monotonic() - began >= (more - 0.1) / session_v1.TOKENS_PER_SECOND
        await client.send("auth", {"token": alice.token})
        await other.authenticate(alice)


@pytest.mark.parametrize("token", ["undefined", "", "v2/zzzzz-gj3su-000000000000001/no", "é"])
async def test_a_bad_token_is_told_and_ends_for_good(connect: Connect, token: str) -> None:
    """The close code says that the same attempt would fail again (docs/facts/arvados-demand.md
    A16)."""
    async with connect() as client:
        await client.send("auth", {"token": token})
        error = await client.expect("error")
        assert (error["code"], error["temporary"]) == ("token_invalid", False)
        assert await client.closed() == CloseCode.TOKEN_INVALID
    assert not CloseCode.TOKEN_INVALID.come_back


async def test_nothing_is_done_before_authentication(connect: Connect) -> None:
    """Subscribing without a token is an error, and changes nothing."""
    async with connect() as client:
        await client.send("subscribe", {"id": "a", "events": {}})
        assert (await client.expect("error"))["code"] == "not_authenticated"
        await client.silence()


async def test_a_client_that_sends_no_token_is_closed(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds, here less; the code says so."""
    monkeypatch.setattr(session_v1, "AUTH_SECONDS", 0.1)
    async with connect() as client:
        assert await client.closed() == CloseCode.AUTH_TIMEOUT
        assert client.of("error")[0]["code"] == "auth_timeout"


@pytest.mark.parametrize(
    "frame",
    [
        "^]beep",
        "[]",
        "7",
        "{}",
        '{"auth": 7}',
        '{"nonsense": {}}',
        '{"auth": {"token": "x"}, "pong": {}}',
        '{"subscribe": {"id": "", "events": {}}}',
        '{"subscribe": {"id": "a"}}',
        '{"subscribe": {"id": "a", "events": {}, "log": {"uuid": "x"}}}',
        '{"subscribe": {"id": "a", "events": {"kinds": ["arvados#noSuchKind"]}}}',
        '{"subscribe": {"id": "a", "events": {"owners": ["my project"]}}}',
        '{"subscribe": {"id": "a", "events": {"objects": ["zzzzz-4zz18-00000000000000"]}}}',
        '{"subscribe": {"id": "a", "log": {"uuid": "zzzzz-4zz18-000000000000000"}}}',
        '{"subscribe": {"id": "a", "log": {"uuid": "x", "from": {"f": {"offset": -1}}}}}',
        '{"subscribe": {"id": "a", "object": {"uuid": "zzzzz-gj3su-000000000000000"}}}',
        '{"subscribe": {"id": "a", "events": {"cursor": "made-up"}}}',
        b"\x00\x01",
    ],
)
async def test_what_makes_no_sense_is_an_error_and_nothing_more(
    connect: Connect, alice: Actor, frame: str | bytes
) -> None:
    """The connection lives, and the next message is understood."""
    async with connect(alice) as client:
        await client.socket.send(frame)
        error = await client.expect("error")
        assert (error["code"], error["temporary"]) == ("bad_message", False)
        await client.subscribe("next", events={})


async def test_unknown_fields_are_refused_by_name(connect: Connect, alice: Actor) -> None:
    """And the error says of which subscription, which does not begin (C6)."""
    async with connect(alice) as client:
        await client.send("subscribe", {"id": "a", "events": {"tial": 3}})
        error = await client.expect("error")
        assert (error["code"], error["id"], error["temporary"]) == ("bad_message", "a", False)
        assert "tial" in error["message"]
        await client.subscribe("a", events={})


async def test_ids_are_the_clients_and_used_once_at_a_time(connect: Connect, alice: Actor) -> None:
    """A second subscription with the same id is refused; after `unsubscribe` it is free."""
    async with connect(alice) as client:
        await client.subscribe("a", events={})
        await client.send("subscribe", {"id": "a", "events": {}})
        await client.until("error", code="id_in_use", id="a")
        await client.send("unsubscribe", {"id": "a"})
        await client.until("unsubscribed", id="a")
        await client.send("unsubscribe", {"id": "a"})
        await client.until("error", code="no_such_id", id="a")
        await client.subscribe("a", events={})


async def test_there_is_a_limit_of_subscriptions(connect: Connect, alice: Actor) -> None:
    """The one too many is refused; the others stay."""
    async with connect() as client:
        limit = (await client.authenticate(alice))["limits"]["subscriptions"]
        for number in range(limit + 1):
            await client.send("subscribe", {"id": str(number), "events": {"owners": []}})
        error = await client.until("error")
        assert (error["code"], error["id"]) == ("too_many", str(limit))


async def test_a_token_can_be_renewed_by_another_of_the_same_user(
    connect: Connect, cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """The connection goes on when the old token dies; another user's token is refused."""
    other = await cluster.token(alice)
    async with connect(alice) as client:
        await client.subscribe("a", events={"kinds": ["collection"]})
        assert (await client.authenticate(other))["user_uuid"] == alice.uuid
        await client.send("auth", {"token": bob.token})
        await client.until("error", code="other_user")
        await cluster.logout(alice)
        made = await cluster.collection("after", owner=alice, by=other)
        assert (await client.until("event"))["object_uuid"] == made.uuid


async def test_logout_ends_the_connection_and_says_why(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """A dead token: `revoked`, then a code that says stop (docs/facts/arvados-demand.md A40)."""
    async with connect(alice) as client:
        await client.subscribe("a", events={})
        await cluster.logout(alice)
        assert await client.closed() == CloseCode.TOKEN_INVALID
        assert client.of("revoked")[0]["reason"].startswith("token ")


async def test_a_token_that_lives_for_a_moment_ends_its_connection(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """Logged out of before the sweep saw it alive: it is asked about, not found a minute later."""
    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for _ in range(5):
            brief = await cluster.token(alice)
            opened.append(await stack.enter_async_context(connect(brief)))
            await cluster.logout(brief)
        for client in opened:
            assert await client.closed() == CloseCode.TOKEN_INVALID


async def test_other_subprotocols_are_not_spoken(site: Site) -> None:
    """The client learns which one is."""
    base = site.websocket_url.removesuffix("/websocket")
    future = Subprotocol("arvados.events.v9")
    async with connect_raw(f"{base}/v1/stream", subprotocols=[future]) as socket:
        await socket.wait_closed()
        assert socket.close_code == CloseCode.UNSUPPORTED
        assert "arvados.events.v1.json" in (socket.close_reason or "")


async def test_a_frame_over_the_limit_closes(connect: Connect, alice: Actor) -> None:
    """64 KiB; the protocol's own code for it."""
    async with connect(alice) as client:
        await client.socket.send("x" * (session_v1.MAX_MESSAGE + 1))
        assert await client.closed() == 1009


async def test_draining_says_goodbye_and_when_to_come_back(site: Site, alice: Actor) -> None:
    """Before the server stops, each client is told a range to wait in, and closed to come back
    (docs/facts/arvados-demand.md G28)."""
    server = contextlib.AsyncExitStack()
    base = await server.enter_async_context(sites.serving(sites.settings(site)))
    async with clients.connected(base, alice) as client:
        await client.subscribe("a", events={})
        stopping = asyncio.create_task(server.aclose())
        code = await client.closed()
        low, high = client.of("goodbye")[0]["reconnect_after_ms"]
        assert 0 <= low < high
        assert code == CloseCode.DRAIN and CloseCode.DRAIN.come_back
    await stopping


async def test_an_old_connection_is_asked_to_come_back(site: Site, alice: Actor) -> None:
    """So that load spreads over replicas; the cursor makes it harmless."""
    chosen = sites.settings(site, max_age=0.5)
    async with sites.serving(chosen) as base, clients.connected(base, alice) as client:
        assert await client.closed() == CloseCode.MAX_AGE
        assert client.of("goodbye")


async def test_connections_of_one_moment_do_not_all_end_in_another(
    site: Site, alice: Actor
) -> None:
    """Ages differ by a fifth each way; the look at them alone spreads over a second."""
    loop, ends = asyncio.get_running_loop(), list[float]()

    async def live(base: str) -> None:
        async with clients.connected(base, alice) as client:
            assert await client.closed() == CloseCode.MAX_AGE
            ends.append(loop.time())

    async with sites.serving(sites.settings(site, max_age=4.0)) as base:
        await asyncio.gather(*(live(base) for _ in range(40)))
    assert max(ends) - min(ends) > 1.2


async def test_a_silent_client_is_closed(
    connect: Connect, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pings come; a client that answers none is gone for all the server knows."""
    monkeypatch.setattr(session_v1, "PING_SECONDS", 0.5)
    monkeypatch.setattr(session_v1, "SILENT_SECONDS", 3.5)
    async with connect(alice) as client:
        frames = []
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(60):
                while True:
                    frames.append(await client.socket.recv())
        assert '{"ping":{}}' in frames
        assert client.socket.close_code == CloseCode.NO_PONG
