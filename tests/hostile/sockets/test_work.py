# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a few bytes of one peer have others do: it has a bound, also while those hang, and ends with
the wish for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest
from websockets.asyncio.client import connect as connect_raw

from arvados_nats.contract import subjects
from arvados_nats.nats.client import Message
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from tests.support.clients import v1 as clients
from tests.support.clients import wamp
from tests.support.clients.v0 import api
from tests.support.clients.v0 import client as v0_client
from tests.support.worlds.proxy import own, until_equal
from tests.support.worlds.site import Site
from wsproxy.logins import principals
from wsproxy.wamp import messages as wamp_messages
from wsproxy.wamp.topics import topic_of

UNKNOWN = 10**12
"""Ids that no row has."""


def growth(name: str) -> Callable[[], int]:
    """How many more tasks of this name there are than now."""

    def count() -> int:
        return sum(task.get_name() == name for task in asyncio.all_tasks())

    before = count()
    return lambda: count() - before


async def test_for_whom_nobody_knows_no_row_is_looked_for(site: Site, alice: Actor) -> None:
    """A row is looked for in thousands of messages of the stream, for sixty bytes of a command."""
    async with own(site) as (base, services), v0_client(f"{base}/websocket", None) as guest:
        before = services.nats._client.stats["out_msgs"]
        for number in range(100):
            await guest.socket.send(
                json.dumps({"method": "subscribe", "last_log_id": UNKNOWN + number})
            )
            assert await guest.status() == 200
        async with (
            v0_client(f"{base}/websocket", alice.token) as known,
            api(site.api.url, alice.token) as own_api,
        ):
            await known.subscribe(last_log_id=1)
            made = await own_api.post("collections", name="after the search")
            await known.event_about(made["uuid"])
        assert services.nats._client.stats["out_msgs"] - before < 100


async def test_a_search_ends_with_the_wish_for_it(site: Site, alice: Actor) -> None:
    """While it has no turn, or NATS no answer, they would gather."""
    async with own(site) as (base, services):
        async with v0_client(f"{base}/websocket", alice.token) as socket:
            await until_equal(lambda: services.logins.sessions_of(alice.uuid), 1)
            more = growth("v0")
            async with services.events.places._searches.turn(alice.uuid):
                for number in range(60):
                    await socket.subscribe(last_log_id=UNKNOWN + number)
                    assert await socket.unsubscribe() == 200
                await until_equal(lambda: more() <= 1, True)


@pytest.mark.parametrize("door", ["v1", "wamp"])
async def test_a_subscription_that_waits_for_arvados_ends_with_the_wish_for_it(
    site: Site, cluster: Cluster, alice: Actor, door: str
) -> None:
    """Each would ask it in the end, for nobody."""
    request = await cluster.container_request("slow", owner=alice)
    async with own(site) as (base, _):
        more = growth(door)
        with site.backend.faults.hanging("GET /arvados/v1/container_requests"):
            if door == "v1":
                async with clients.connected(base, alice) as client:
                    for number in range(60):
                        target = {"object": {"uuid": request.uuid}}
                        await client.send("subscribe", {"id": str(number), **target})
                        await client.send("unsubscribe", {"id": str(number)})
                        await client.until("unsubscribed", id=str(number))
                    await until_equal(lambda: more() <= 1, True)
            else:
                async with wamp.connected(base, alice) as session:
                    topic = f"arvados.object.{request.uuid}"
                    message = wamp_messages.decode(json.dumps([32, 1, {}, topic]))
                    assert isinstance(message, wamp_messages.Subscribe)
                    for _ in range(60):
                        await session.ask(32, {}, topic)
                        assert (await session.answer(34, topic_of(message).id))[0] == 35
                    await until_equal(lambda: more() <= 1, True)


async def test_rows_about_a_project_ask_once_for_all_who_read_below_it(
    site: Site, cluster: Cluster, alice: Actor
) -> None:
    """Anybody may post them, true or not, and each is a reason to look where the project is."""
    project = await cluster.project("crowded", owner=alice)
    requests = [
        await cluster.container_request(f"one of {number}", owner=project, by=alice)
        for number in range(30)
    ]
    asked = 0

    async def count(_: Message) -> None:
        nonlocal asked
        asked += 1

    async with own(site) as (base, _), clients.connected(base, alice) as client:
        for request in requests:
            await client.subscribe(request.uuid, object={"uuid": request.uuid})
        await client.subscribe("rows", events={"objects": [project.uuid]})
        counting = await site.nats.subscribe(subjects.PLACES_GET, count)
        async with api(site.api.url, alice.token) as own_api:
            for _ in range(20):
                await own_api.post("logs", object_uuid=project.uuid, event_type="update")
            await own_api.put("groups", project.uuid, name="of another name")
        await client.until_true(lambda: len(client.of("event")) > 20)
        await counting.unsubscribe()
    assert asked <= 3 * 20


async def test_one_user_has_few_readers_with_scopes_of_their_own(
    site: Site, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each judges every event by itself; tokens that may do the same share one."""
    monkeypatch.setattr(principals, "MOST_OF_USER", 2)
    scoped = [
        await site.cluster.token(alice, scopes=[f"GET /arvados/v1/{kind}/"])
        for kind in ("collections", "groups", "workflows")
    ]
    again = await site.cluster.token(alice, scopes=["GET /arvados/v1/groups/"])
    async with own(site) as (base, _):
        async with clients.connected(base, scoped[0]), clients.connected(base, scoped[1]):
            async with clients.connected(base, again):
                pass
            async with connect_raw(f"{base}/v1/stream") as socket:
                await socket.send(json.dumps({"auth": {"token": scoped[2].token}}))
                await socket.wait_closed()
                assert socket.close_code == 4429
        async with clients.connected(base, scoped[2]):
            pass


@pytest.mark.parametrize(
    ("path", "behind"),
    [
        ("/arvados/v1/container_requests/{uuid}/log_events", "Transfer-Encoding: chunked"),
        ("/arvados/v1/container_requests/{uuid}/log_events", "Content-Length: 1000000000"),
        ("/v1/search", "Transfer-Encoding: chunked"),
        ("/v1/processes", "Content-Length: 5"),
    ],
)
async def test_nothing_is_read_behind_the_headers(
    site: Site, cluster: Cluster, alice: Actor, path: str, behind: str
) -> None:
    """While a long answer is sent it would be, however much and fast it comes."""
    request = await cluster.container_request("followed", owner=alice)
    address = httpx.URL(site.http_url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        head = f"GET {path.format(uuid=request.uuid)} HTTP/1.1\r\nHost: {address.host}\r\n"
        writer.write(f"{head}Authorization: Bearer {alice.token}\r\n{behind}\r\n\r\n".encode())
        async with asyncio.timeout(60):
            assert (await reader.readline()).split()[1] == b"400"
    finally:
        writer.transport.abort()
