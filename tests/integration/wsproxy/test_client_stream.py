# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The client of protocol v1 against a server that is played by the test."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from arvados_nats.client import stream
from arvados_nats.client.errors import TokenRefused
from arvados_nats.client.stream import Connected, State, Stream, Waiting
from arvados_nats.client.subscription_handle import SubscriptionHandle
from arvados_nats.errors import ConfigError, Refused, Unavailable
from arvados_nats.protocol_v1.messages import (
    Attempt,
    CaughtUp,
    End,
    Error,
    Event,
    Log,
    Object,
    ServerMessage,
    Subscribed,
)
from tests.support.fronts import scripted_proxy
from tests.support.fronts.scripted_proxy import Peer, Proxy

C1 = "zzzzz-dz642-000000000000001"
REQUEST = "zzzzz-xvhdp-000000000000001"


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with scripted_proxy.run() as running:
        yield running


@contextlib.asynccontextmanager
async def connected(proxy: Proxy, **options: Any) -> AsyncIterator[Stream]:
    async with stream.connect(proxy.url, lambda: "token", **options) as events:
        yield events


async def begun(proxy: Proxy, handle: SubscriptionHandle) -> Peer:
    """The next connection, greeted and subscribed by the client."""
    peer = await proxy.next()
    assert await peer.welcome() == "token"
    assert (await peer.heard())["subscribe"]["id"] == handle.id
    await subscribed(peer, handle)
    return peer


async def subscribed(peer: Peer, *handles: SubscriptionHandle) -> None:
    """These subscriptions have begun, and have read so."""
    for handle in handles:
        await peer.say(subscribed={"id": handle.id})
        assert isinstance(await soon(handle), Subscribed)


async def soon(handle: SubscriptionHandle) -> ServerMessage:
    """The next message, which has to come."""
    message = await handle.get(5)
    assert message is not None
    return message


def log(offset: int, text: str) -> dict[str, Any]:
    length = len(text.encode())
    found = {"container": C1, "file": "a", "epoch": 0, "offset": offset, "next": offset + length}
    return {**found, "text": text}


async def test_token_is_sent_in_a_message(proxy: Proxy) -> None:
    """The token stands in the first message, and subscriptions follow the greeting."""
    async with connected(proxy) as events:
        handle = await events.log(C1, files=["a"], tail=3)
        peer = await proxy.next()
        assert await peer.heard() == {"auth": {"token": "token"}}
        await peer.greet()
        wanted = {"uuid": C1, "files": ["a"], "tail": 3}
        assert await peer.heard() == {"subscribe": {"id": handle.id, "log": wanted}}
        later = await events.object(C1)
        assert await peer.heard() == {"subscribe": {"id": later.id, "object": {"uuid": C1}}}
        await later.close()
        assert await peer.heard() == {"unsubscribe": {"id": later.id}}


@pytest.mark.parametrize("how", ["abort", "close", "going away", "nonsense"])
async def test_lost_connection_is_resumed(proxy: Proxy, how: str) -> None:
    """However it was lost: the next one begins at the next byte, and nothing comes twice."""
    async with connected(proxy) as events:
        handle = await events.log(C1)
        peer = await begun(proxy, handle)
        await peer.say(log=log(0, "one\n"))
        assert await soon(handle) == Log.of(C1, "a", 0, 0, b"one\n")
        match how:
            case "abort":
                peer.abort()
            case "close":
                await peer.close(4000)
            case "going away":
                await peer.close(1001)
            case "nonsense":
                await peer.say_raw("{")
        peer = await proxy.next()
        await peer.welcome()
        place = {"a": {"epoch": 0, "offset": 4}}
        wanted = {"uuid": C1, "from": place}
        assert await peer.heard() == {"subscribe": {"id": handle.id, "log": wanted}}
        await subscribed(peer, handle)
        await peer.say(log=log(0, "one\ntwo\n"))
        assert await soon(handle) == Log.of(C1, "a", 0, 4, b"two\n")


async def test_a_file_of_which_nothing_was_shown_goes_on_where_it_was(proxy: Proxy) -> None:
    """`tail=0`: the place alone is told, and the next connection begins there, not at 0."""
    async with connected(proxy) as events:
        handle = await events.log(C1, tail=0)
        peer = await begun(proxy, handle)
        at = {"a": {"epoch": 0, "offset": 4}}
        await peer.say(places={"id": handle.id, "container": C1, "files": at})
        await peer.say(caught_up={"id": handle.id})
        assert isinstance(await soon(handle), CaughtUp)
        peer.abort()
        peer = await proxy.next()
        await peer.welcome()
        wanted = {"uuid": C1, "from": {"a": {"epoch": 0, "offset": 4}}}
        assert await peer.heard() == {"subscribe": {"id": handle.id, "log": wanted}}
        await subscribed(peer, handle)
        await peer.say(log=log(4, "two\n"))
        assert await soon(handle) == Log.of(C1, "a", 0, 4, b"two\n")


async def test_silent_line_is_given_up(proxy: Proxy) -> None:
    """A peer that is gone without a word is noticed after two and a half times its own interval."""
    async with connected(proxy) as events:
        handle = await events.log(C1)
        peer = await proxy.next()
        await peer.welcome(ping_seconds=0.1)
        began = time.monotonic()
        peer = await begun(proxy, handle)
        assert 0.2 < time.monotonic() - began < 3


async def test_ping_is_answered_and_keeps_the_line(proxy: Proxy) -> None:
    """What the server sends at least proves that it lives."""
    async with connected(proxy):
        peer = await proxy.next()
        await peer.welcome(ping_seconds=0.2)
        for _ in range(5):
            await peer.say(ping={})
            assert await peer.heard() == {"pong": {}}
            await asyncio.sleep(0.1)
        assert proxy.handshakes == 1


async def test_goodbye_says_when_to_come_back(proxy: Proxy) -> None:
    """The server spreads its clients over the time it needs."""
    told: list[State] = []
    async with connected(proxy, on_state=told.append) as events:
        handle = await events.log(C1)
        peer = await begun(proxy, handle)
        await peer.say(goodbye={"reason": "drain", "reconnect_after_ms": [300, 400]})
        await peer.close(4000, "drain")
        await begun(proxy, handle)
    waiting = [state for state in told if isinstance(state, Waiting)]
    assert len(waiting) == 1
    assert 0.3 <= waiting[0].delay <= 0.4
    assert waiting[0].reason == "drain"


async def test_delays_grow_and_are_random(proxy: Proxy) -> None:
    """Clients that lost one server do not come back together, and spare one that is ill
    (docs/facts/arvados-demand.md G28)."""
    proxy.status = 503
    delays: list[float] = []

    def told(state: State) -> None:
        if isinstance(state, Waiting):
            assert state.reason == "the server answers 503"
            delays.append(state.delay)

    async with connected(proxy, open_timeout=3, on_state=told) as events:
        handle = await events.log(C1)
        with pytest.raises(Unavailable, match="503"):
            await anext(handle)
    assert all(0 <= delay <= 2**n for n, delay in enumerate(delays))
    assert len(set(delays)) == len(delays)


@pytest.mark.parametrize("code", [4500, 4503, 4504])
async def test_final_close_is_not_tried_again(proxy: Proxy, code: int) -> None:
    """What would fail again ends every handle, with the server's reason."""
    async with connected(proxy) as events:
        handles = [await events.log(C1), await events.object(C1)]
        peer = await proxy.next()
        await peer.welcome()
        await peer.close(code, "because")
        for handle in handles:
            with pytest.raises(Refused, match="because"):
                await anext(handle)
            assert handle.done
        with pytest.raises(Refused, match="because"):
            await anext(await events.log(C1))
        assert proxy.handshakes == 1


async def test_token_that_can_not_be_judged_now_is_sent_again(proxy: Proxy) -> None:
    """While Arvados is away the server says so and waits; too long is no reason to stop."""
    async with connected(proxy) as events:
        handle = await events.log(C1)
        peer = await proxy.next()
        assert await peer.heard() == {"auth": {"token": "token"}}
        await peer.say(error={"code": "unavailable", "message": "later", "temporary": True})
        assert await peer.heard() == {"auth": {"token": "token"}}
        await peer.close(4502, "auth first")
        await begun(proxy, handle)


async def test_refused_token_is_tried_once_more_if_it_is_another(proxy: Proxy) -> None:
    """The token is asked for anew; the same one is not presented again."""
    tokens = iter(["old", "new", "new"])
    async with stream.connect(proxy.url, lambda: next(tokens)) as events:
        handle = await events.log(C1)
        for token in ("old", "new"):
            peer = await proxy.next()
            assert await peer.welcome() == token
            await peer.say(error={"code": "token_invalid", "message": "no", "temporary": False})
            await peer.say(revoked={"reason": "expired"})
            await peer.close(4501, "the token is not valid")
        with pytest.raises(TokenRefused, match="expired"):
            await handle.get(5)
        assert proxy.handshakes == 2


async def test_a_token_that_is_empty_now_is_asked_for_again(proxy: Proxy) -> None:
    """Its file is being written in place."""
    tokens = itertools.chain([""], itertools.repeat("token"))
    async with stream.connect(proxy.url, lambda: next(tokens)) as events:
        await events.log(C1)
        peer = await proxy.next()
        assert await peer.welcome() == ""
        await peer.close(4501, "the token is not valid")
        assert await (await proxy.next()).welcome() == "token"


async def test_another_token_does_not_storm_a_server_that_is_away(proxy: Proxy) -> None:
    """The former one is refused, and then nobody is there: the client waits as ever."""
    tokens, states = itertools.chain(["old"], itertools.repeat("new")), asyncio.Queue[State]()
    async with stream.connect(
        proxy.url, lambda: next(tokens), on_state=states.put_nowait
    ) as events:
        await events.log(C1)
        peer = await proxy.next()
        assert await peer.welcome() == "old"
        proxy.status = 503
        await peer.close(4501, "the token is not valid")
        delays = list[float]()
        async with asyncio.timeout(60):
            while len(delays) < 3:
                state = await states.get()
                if isinstance(state, Waiting) and "503" in state.reason:
                    delays.append(state.delay)
        assert all(delays)


async def test_a_token_that_cannot_be_read_now_is_asked_for_again(
    proxy: Proxy, tmp_path: Path
) -> None:
    """Its file is between two steps of whoever renews it, at the first connection or a later."""
    file, states = tmp_path / "token", asyncio.Queue[State]()

    async def says_so() -> None:
        async with asyncio.timeout(30):
            while "no token" not in getattr(await states.get(), "reason", ""):
                pass

    def renew() -> None:
        (tmp_path / "new").write_text("token")
        (tmp_path / "new").rename(file)

    async with stream.connect(
        proxy.url, file.read_text, open_timeout=None, on_state=states.put_nowait
    ) as events:
        handle = await events.log(C1)
        await says_so()
        renew()
        peer = await begun(proxy, handle)
        file.unlink()
        peer.abort()
        await says_so()
        renew()
        await begun(proxy, handle)


@pytest.mark.parametrize("status", [400, 404, 200])
async def test_address_that_is_no_proxy_is_a_setting_to_correct(proxy: Proxy, status: int) -> None:
    """Another server there is no outage."""
    proxy.status = status
    async with connected(proxy) as events:
        with pytest.raises(ConfigError, match=str(status)):
            await anext(await events.log(C1))


async def test_server_without_protocol_v1_is_told() -> None:
    """arvados-ws takes no subprotocol."""
    async with scripted_proxy.run(subprotocol="chat") as proxy, connected(proxy) as events:
        with pytest.raises(ConfigError):
            await anext(await events.log(C1))


async def test_nobody_there_is_unavailable() -> None:
    """After the patience that was asked for."""
    async with scripted_proxy.run() as proxy:
        url = proxy.url
    began = time.monotonic()
    async with stream.connect(url, lambda: "token", open_timeout=0.3) as events:
        with pytest.raises(Unavailable, match="refused"):
            await anext(await events.log(C1))
    assert time.monotonic() - began < 5


async def test_lost_connection_is_tried_as_long_as_wanted(proxy: Proxy) -> None:
    """Whoever does not follow does not wait for ever."""
    async with connected(proxy, reconnect_timeout=0.5) as events:
        handle = await events.log(C1)
        peer = await begun(proxy, handle)
        proxy.status = 503
        peer.abort()
        with pytest.raises(Unavailable, match="503"):
            await handle.get(10)


async def test_refused_subscription_ends_alone(proxy: Proxy) -> None:
    """What one may not read does not end what another may."""
    async with connected(proxy) as events:
        refused, other, revoked = [await events.object(f"{C1[:-1]}{n}") for n in range(3)]
        peer = await proxy.next()
        await peer.welcome()
        await peer.say(error={"code": "x", "message": "no", "temporary": False, "id": refused.id})
        await peer.say(revoked={"reason": "unshared", "id": revoked.id})
        await peer.say(error={"code": "x", "message": "later", "temporary": True, "id": other.id})
        await peer.say(subscribed={"id": other.id})
        await peer.say(object={"uuid": f"{C1[:-1]}1", "etag": "e", "record": {}, "cursor": "c"})
        for handle, words in ((refused, "no"), (revoked, "unshared")):
            await anext(handle)
            with pytest.raises(Refused, match=words):
                await anext(handle)
        assert [type(await anext(other)) for _ in range(3)] == [Error, Subscribed, Object]


async def test_subscription_that_could_not_be_judged_is_asked_for_again(proxy: Proxy) -> None:
    """A temporary error before `subscribed` means that there is none yet; after it, patience."""
    async with connected(proxy) as events:
        handle = await events.log(C1)
        peer = await proxy.next()
        await peer.welcome()
        assert (await peer.heard())["subscribe"]["id"] == handle.id
        later = {"code": "unavailable", "message": "later", "temporary": True, "id": handle.id}
        await peer.say(error=later)
        assert (await peer.heard())["subscribe"]["id"] == handle.id
        await peer.say(subscribed={"id": handle.id})
        await peer.say(error=later)
        await peer.say(ping={})
        assert await peer.heard() == {"pong": {}}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.5):
                await peer.heard()


async def test_end_of_the_container_ends_the_reading(proxy: Proxy) -> None:
    """The iteration is over after the end was read, and the server is not asked again."""
    async with connected(proxy) as events:
        handle = await events.log(C1)
        peer = await begun(proxy, handle)
        await peer.say(log=log(0, "all\n"))
        await peer.say(end={"container": C1, "state": "Complete", "exit_code": 0})
        assert len([message async for message in handle]) == 2
        assert handle.done
        assert await handle.get(1) is None
        peer.abort()
        peer = await proxy.next()
        await peer.welcome()
        later = await events.object(C1)
        assert (await peer.heard())["subscribe"]["id"] == later.id


async def test_what_is_told_to_a_former_subscription_is_not_the_next_ones(proxy: Proxy) -> None:
    """Bytes and ends that were under way when it was closed: the next one to the same request has
    all of its own."""
    async with connected(proxy) as events:
        former = await events.log(REQUEST, tail=0)
        peer = await begun(proxy, former)
        await former.close()
        handle = await events.log(REQUEST)
        assert [next(iter(await peer.heard())) for _ in range(2)] == ["unsubscribe", "subscribe"]
        await peer.say(log=log(700, "live\n"))
        await peer.say(end={"container": C1, "state": "Complete", "exit_code": 0})
        await peer.say(end={"request": REQUEST, "state": "Final"})
        await subscribed(peer, handle)
        own = {"id": handle.id, "request": REQUEST}
        await peer.say(attempt={**own, "container": C1, "n": 1})
        await peer.say(log=log(0, "all\n"))
        for id in (former.id, handle.id):
            await peer.say(end={"id": id, "request": REQUEST, "state": "Final"})
        assert [type(message) async for message in handle] == [Attempt, Log, End]


async def test_reader_that_waits_holds_nothing_in_memory(proxy: Proxy) -> None:
    """A slow reader slows the server down instead of filling memory, and gets every byte."""
    total = 1000  # 32 MB, more than two kernels keep
    async with connected(proxy) as events:
        handle = await events.log(C1)
        peer = await begun(proxy, handle)
        line = random.randbytes(16_383).hex() + "\n"  # nothing that compression makes small
        sending = asyncio.create_task(_send(peer, line, total))
        done, _ = await asyncio.wait([sending], timeout=0.5)
        assert not done
        received = 0
        while received < total * len(line):
            message = await soon(handle)
            assert isinstance(message, Log)
            assert message.offset == received
            received += len(message.data)
        await sending


async def _send(peer: Peer, line: str, count: int) -> None:
    for number in range(count):
        await peer.say(log=log(number * len(line), line))


async def test_closed_reading_holds_up_nobody(proxy: Proxy) -> None:
    """Whoever has enough closes, even while much waits for them."""
    async with connected(proxy) as events:
        handle, other = await events.log(C1), await events.object(C1)
        peer = await proxy.next()
        await peer.welcome()
        await subscribed(peer, handle, other)
        sending = asyncio.create_task(_send(peer, "x\n", 500))
        await soon(handle)
        await handle.close()
        await peer.say(object={"uuid": C1, "etag": "e", "record": {}, "cursor": "c"})
        assert isinstance(await soon(other), Object)
        assert handle.done
        await sending


async def test_events_resume_by_cursor(proxy: Proxy) -> None:
    """Each subscription by its own, and hears what names it and nothing else."""
    async with connected(proxy) as events:
        handle = await events.events(kinds=["container"])
        peer = await begun(proxy, handle)
        other = await events.events()
        assert await peer.heard() == {"subscribe": {"id": other.id, "events": {}}}
        await peer.say(subscribed={"id": other.id})
        event = {
            "id": 1,
            "uuid": "l",
            "event_type": "update",
            "event_at": None,
            "created_at": "t",
            "object_uuid": C1,
            "object_kind": "arvados#container",
            "object_owner_uuid": None,
            "verified": True,
            "properties": {},
        }
        await peer.say(event={**event, "cursor": "c1", "subscription": handle.id})
        await peer.say(event={**event, "cursor": "c7", "subscription": other.id})
        await peer.say(event={**event, "cursor": "c9", "subscription": "of a former one"})
        await peer.say(caught_up={"id": handle.id, "cursor": "c2"})
        assert [type(await soon(handle)) for _ in range(2)] == [Event, CaughtUp]
        assert [type(await soon(other)) for _ in range(2)] == [Subscribed, Event]
        peer.abort()
        peer = await proxy.next()
        await peer.welcome()
        wanted = {"kinds": ["container"], "cursor": "c2"}
        assert await peer.heard() == {"subscribe": {"id": handle.id, "events": wanted}}
        assert await peer.heard() == {"subscribe": {"id": other.id, "events": {"cursor": "c7"}}}


async def test_token_that_can_not_be_had_is_raised(proxy: Proxy) -> None:
    """What the token's source raises comes to whoever reads, instead of silence."""

    def no_token() -> str:
        raise ConfigError("no token today")

    async with stream.connect(proxy.url, no_token) as events:
        with pytest.raises(ConfigError, match="today"):
            await anext(await events.log(C1))


async def test_state_is_told(proxy: Proxy) -> None:
    """A program can show whether it is live."""
    told: list[State] = []
    async with connected(proxy, on_state=told.append) as events:
        handle = await events.log(C1)
        peer = await begun(proxy, handle)
        peer.abort()
        await begun(proxy, handle)
    assert [type(state) for state in told] == [Connected, Waiting, Connected]
