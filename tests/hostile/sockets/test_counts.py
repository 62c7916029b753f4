# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What is counted is what is open, whatever sessions do and in whatever order they do it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import Any, Literal

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_raw
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from arvados_nats.protocol_v1.messages import SUBPROTOCOL
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from tests.support.clients import v1 as clients
from tests.support.clients import wamp
from tests.support.worlds.proxy import own, until_equal
from tests.support.worlds.site import Site
from wsproxy import metrics
from wsproxy.transport.close_codes import CloseCode
from wsproxy.transport.limits import SUBSCRIPTION_BYTES, Kept

WITHIN = 60.0
EXAMPLES = int(os.environ.get("ARVADOS_NATS_FUZZ_EXAMPLES", "20"))
_VERSIONS = ("0", "1", "sse", "wamp")

Kind = Literal["v0", "v1", "sse", "wamp"]
_KINDS: tuple[Kind, ...] = ("v0", "v1", "sse", "wamp")
Act = Literal["repeat", "renew", "guess", "subscribe", "close", "lose"]
Step = tuple[Literal["open"], Kind] | tuple[Act, int]

_steps = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sampled_from(_KINDS)),
        st.tuples(
            st.sampled_from(("repeat", "renew", "guess", "subscribe", "close", "lose")),
            st.integers(0, 7),
        ),
    ),
    min_size=1,
    max_size=12,
)


def gauges() -> list[float]:
    """Sockets that the metrics call open, by protocol."""
    return [metrics.sockets.labels(version)._value.get() for version in _VERSIONS]


class Guest:
    """One client's connection, whatever its protocol."""

    def __init__(self, kind: Kind, line: Any, close: Any) -> None:
        self.kind = kind
        self.line = line
        self.close = close
        self.token = 0
        self.texts: list[int] = []

    async def auth(self, token: str) -> str:
        """Send a token over v1; the kind of answer."""
        await self.line.send(json.dumps({"auth": {"token": token}}))
        while True:
            ((key, _),) = json.loads(await self.line.recv()).items()
            if key in ("hello", "error"):
                return str(key)


class Guests:
    """All connections of one user to one proxy, and how many there should be of each kind."""

    def __init__(self, base: str, tokens: list[str], request: str) -> None:
        self.base, self.tokens, self.request = base, tokens, request
        self.here: list[Guest] = []
        self.subscriptions = 0

    async def act(self, step: Step) -> None:
        match step:
            case ("open", "v0" | "v1" | "sse" | "wamp" as kind):
                self.here.append(await self._open(kind))
            case ("close" | "lose" as act, int(which)) if self.here:
                guest = self.here.pop(which % len(self.here))
                await self._leave(guest, lose=act == "lose")
            case ("subscribe", int(which)) if self.here:
                await self._subscribe(self.here[which % len(self.here)])
            case (act, int(which)):
                await self._auth(act, [g for g in self.here if g.kind in ("v1", "wamp")], which)

    async def _subscribe(self, guest: Guest) -> None:
        if guest.kind == "sse":
            return
        self.subscriptions += 1
        topic = f"arvados.event...t{self.subscriptions}"
        messages = {
            "v0": {"method": "subscribe"},
            "v1": {"subscribe": {"id": str(self.subscriptions), "events": {}}},
            "wamp": [32, self.subscriptions, {"match": "wildcard"}, topic],
        }
        text = json.dumps(messages[guest.kind])
        guest.texts.append(len(text))
        await guest.line.send(text)

    def kept(self) -> int:
        """Bytes that all subscriptions should count for."""
        return sum(size + SUBSCRIPTION_BYTES for guest in self.here for size in guest.texts)

    async def _auth(self, act: str, those: list[Guest], which: int) -> None:
        if not those:
            return
        guest = those[which % len(those)]
        if act == "renew":
            guest.token = 1 - guest.token
        token = "nobodys" if act == "guess" else self.tokens[guest.token]
        if guest.kind == "wamp":  # a session stays with its ticket
            await guest.line.send(json.dumps([5, token, {}]))
            await guest.line.wait_closed()
            self.here.remove(guest)
            return
        assert await guest.auth(token) == ("error" if act == "guess" else "hello")

    async def _open(self, kind: Kind) -> Guest:
        if kind == "sse":
            http = httpx.AsyncClient(base_url=self.base.replace("ws", "http", 1), timeout=WITHIN)
            answer = await http.send(
                http.build_request(
                    "GET",
                    f"/arvados/v1/container_requests/{self.request}/log_events",
                    headers={"Authorization": f"Bearer {self.tokens[0]}"},
                ),
                stream=True,
            )
            assert answer.status_code == 200
            return Guest(kind, answer, http.aclose)
        if kind == "wamp":
            line = await connect_raw(f"{self.base}/wamp", subprotocols=[Subprotocol("wamp.2.json")])
            for message in (wamp.HELLO, [5, self.tokens[0], {}]):
                await line.send(json.dumps(message))
            await line.recv()
            assert json.loads(await line.recv())[0] == 2
            return Guest(kind, line, line.close)
        if kind == "v0":
            line = await connect_raw(f"{self.base}/websocket?api_token={self.tokens[0]}")
            return Guest(kind, line, line.close)
        line = await connect_raw(f"{self.base}/v1/stream", subprotocols=[Subprotocol(SUBPROTOCOL)])
        guest = Guest(kind, line, line.close)
        assert await guest.auth(self.tokens[0]) == "hello"
        return guest

    async def _leave(self, guest: Guest, *, lose: bool) -> None:
        if lose and isinstance(guest.line, ClientConnection):
            guest.line.transport.abort()
        if guest.kind == "sse":
            await guest.line.aclose()
        await guest.close()

    def counts(self) -> list[float]:
        kinds = [guest.kind for guest in self.here]
        return [float(kinds.count(kind)) for kind in _KINDS]

    async def all_leave(self) -> None:
        while self.here:
            await self._leave(self.here.pop(), lose=False)


@pytest.fixture
async def request_(cluster: Cluster, alice: Actor) -> Record:
    """A container request whose log can be read."""
    return await cluster.container_request("counted", owner=alice)


@pytest.mark.timeout(300)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps, drained=st.booleans())
async def test_what_is_counted_is_what_is_open(
    site: Site, alice: Actor, request_: Record, steps: list[Step], drained: bool
) -> None:
    """Sessions of a user, places taken, gauges and every map, after any acts in any order."""
    tokens = [alice.token, (await site.cluster.token(alice)).token]
    before = gauges()
    async with own(site) as (base, services):
        guests = Guests(base, tokens, request_.uuid)

        def counted() -> tuple[int, ...]:
            counts = (
                services.logins.sessions_of(alice.uuid),
                len(services.transport.tally.known) + len(services.transport.tally.unknown),
                sum(services.transport.tally.by_address.values()),
                len(services.transport.connections),
                len(services.transport.send_buffers),
            )
            opened = [now - then for now, then in zip(gauges(), before, strict=True)]
            return (*counts, *map(int, opened))

        seen: set[Kept] = set()

        def kept() -> int:
            logins = services.logins._by_user.get(alice.uuid, ())
            seen.update(login.kept for login in logins)
            return sum(one.bytes for one in seen)

        for step in steps:
            await guests.act(step)
        await until_equal(kept, guests.kept())
        number = len(guests.here)
        await until_equal(counted, (*[number] * 5, *map(int, guests.counts())))
        if drained:
            await services.transport.connections.drain(0.0, WITHIN)
        await guests.all_leave()
        await until_equal(counted, (0,) * 9)
        assert kept() == 0
        for holder in (services.logins, services.events.router, services.transport.tally):
            assert held(holder) == {}


def held(thing: object) -> dict[str, Any]:
    """The maps and sets of an object that are not empty."""
    return {
        name: value
        for name, value in vars_of(thing).items()
        if isinstance(value, dict | set) and value
    }


def vars_of(thing: object) -> dict[str, Any]:
    slots = getattr(type(thing), "__slots__", None)
    return {name: getattr(thing, name) for name in slots} if slots else vars(thing)


async def test_who_unsubscribes_at_once_leaves_nothing_behind(
    site: Site, alice: Actor, request_: Record
) -> None:
    """What a subscription takes as it begins is given back, also when it was over before."""
    async with own(site) as (base, services):

        def taken() -> tuple[int, int, int]:
            hubs = services.objects._users, services.logs._users
            objects, logs = (sum(users.values()) for users in hubs)
            return objects, logs, len(services.whereabouts._followed)

        async with clients.connected(base, alice) as client:
            await client.subscribe("stays", object={"uuid": request_.uuid})
            alone = taken()
            for number in range(20):
                target = {"object" if number % 2 else "log": {"uuid": request_.uuid}}
                await client.send("subscribe", {"id": str(number), **target})
                await client.send("unsubscribe", {"id": str(number)})
            await client.subscribe("last", events={})
            await until_equal(taken, alone)
        await until_equal(taken, (0, 0, 0))


async def test_a_wamp_session_stays_with_its_ticket(site: Site, alice: Actor) -> None:
    """A second one ends it, and leaves nothing of either behind."""
    other = (await site.cluster.token(alice)).token
    async with own(site) as (base, services):
        async with wamp.connected(base, alice) as client:
            await client.send(5, other, {})
            assert await client.closed() == CloseCode.BAD_REQUEST
        await until_equal(lambda: services.logins.sessions_of(alice.uuid), 0)
        assert held(services.logins) == {}


async def test_saying_who_one_is_again_takes_no_place(site: Site, alice: Actor) -> None:
    """Nor does it leave one taken when the connection is over."""
    async with own(site, max_connections_per_user=2) as (base, services):
        async with clients.connected(base, alice) as first:
            for _ in range(5):
                await first.authenticate(alice)
            assert services.logins.sessions_of(alice.uuid) == 1
            async with clients.connected(base, alice) as second:
                await second.authenticate(alice)
                async with clients.connected(base) as third:
                    await third.send("auth", {"token": alice.token})
                    assert await third.closed() == CloseCode.LIMIT
        await until_equal(lambda: services.logins.sessions_of(alice.uuid), 0)
        async with clients.connected(base, alice):
            pass


async def test_one_users_subscriptions_have_a_bound_together(site: Site, alice: Actor) -> None:
    """Over all connections and protocols; what is given up is there again."""
    async with own(site, max_kept_per_user=2 * SUBSCRIPTION_BYTES + 200) as (base, _):
        async with clients.connected(base, alice) as first, clients.connected(base, alice) as other:
            await first.subscribe("a", events={})
            await other.subscribe("b", events={})
            await other.send("subscribe", {"id": "c", "events": {}})
            await other.until("error", code="too_many", id="c")
            url = f"{base}/websocket?api_token={alice.token}"
            async with connect_raw(url) as old, asyncio.timeout(WITHIN):
                await old.send('{"method": "subscribe"}')
                with contextlib.suppress(ConnectionClosed):  # where the token is looked at later
                    while json.loads(await old.recv())["status"] != 400:
                        pass
                assert old.close_code in (None, CloseCode.LIMIT)
            await first.send("unsubscribe", {"id": "a"})
            await first.subscribe("d", events={})


async def test_one_limit_for_all_protocols(site: Site, alice: Actor, request_: Record) -> None:
    """Server-sent events count, and are counted."""
    async with own(site, max_connections_per_user=1) as (base, _):
        guests = Guests(base, [alice.token], request_.uuid)
        url = f"/arvados/v1/container_requests/{request_.uuid}/log_events"
        async with clients.connected(base, alice):
            async with httpx.AsyncClient(base_url=base.replace("ws", "http", 1)) as http:
                answer = await http.get(url, headers={"Authorization": f"Bearer {alice.token}"})
            assert answer.status_code == 429
            assert "retry-after" in answer.headers
        await guests.act(("open", "sse"))
        async with clients.connected(base) as other:
            await other.send("auth", {"token": alice.token})
            assert await other.closed() == CloseCode.LIMIT
        await guests.all_leave()
