# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""WAMP, as its specification has it: what is sent for each message, with which URI."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from sandbox import raw_rows
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from tests.support.clients import wamp
from tests.support.worlds.proxy import own
from tests.support.worlds.site import Site
from wsproxy.native_api import events as native_events
from wsproxy.wamp import calls

NOT_AUTHORIZED = "wamp.error.not_authorized"


def joined(site: Site, who: Actor | str | None = None) -> AbstractAsyncContextManager[wamp.Client]:
    return wamp.connected(site.websocket_url.removesuffix("/websocket"), who)


async def test_a_token_is_the_ticket(site: Site, alice: Actor) -> None:
    """HELLO, CHALLENGE, AUTHENTICATE, WELCOME, and GOODBYE answered; a line end does not matter."""
    async with joined(site) as client:
        code, session, details = await client.join(f"{alice.token}\n")
        assert (code, details["authid"], details["authmethod"]) == (2, alice.uuid, "ticket")
        assert 1 <= session <= 2**53
        await client.send(6, {}, "wamp.close.close_realm")
        assert await client.next() == [6, {}, "wamp.close.goodbye_and_out"]
        assert await client.closed() == 1000


@pytest.mark.parametrize(
    ("said", "uri", "code"),
    [
        (["nonsense", [1, "arvados", {"authmethods": ["ticket"]}]], "protocol_violation", 4500),
        ([[32, 1, {}, "arvados.event.a.b.c"]], "protocol_violation", 4500),
        ([[1, "elsewhere", {"authmethods": ["ticket"]}]], "no_such_realm", 4500),
        ([[1, "arvados", {"authmethods": ["anonymous"]}]], "no_matching_auth_method", 4500),
        ([[1, "arvados", {}]], "no_matching_auth_method", 4500),
        ([wamp.HELLO, [5, "v2/nobody/secret", {}]], "authentication_failed", 4501),
    ],
)
async def test_who_does_not_join_is_told_why(
    site: Site, said: list[Any], uri: str, code: int
) -> None:
    """ABORT with the specification's URI, and a close code that says whether to come back."""
    async with joined(site) as client:
        for message in said:
            await client.socket.send(json.dumps(message))
        abort = await client.until(lambda message: message[0] == 3)
        assert abort[2] == f"wamp.error.{uri}"
        assert await client.closed() == code


@pytest.mark.parametrize(
    ("request_", "uri"),
    [
        ([16, {"acknowledge": True}, "arvados.event.x", []], NOT_AUTHORIZED),
        ([64, {}, "com.mine"], NOT_AUTHORIZED),
        ([66, 1], "wamp.error.no_such_registration"),
        ([34, 17], "wamp.error.no_such_subscription"),
        ([48, {}, "com.nobody"], "wamp.error.no_such_procedure"),
        ([48, {}, "arvados.api.whoami", [1]], "wamp.error.invalid_argument"),
        ([48, {}, "arvados.api.events", [], {"nonsense": 1}], "wamp.error.invalid_argument"),
        ([48, {}, "arvados.api.events", [], {"max_bytes": "1"}], "wamp.error.invalid_argument"),
        ([48, {}, "arvados.api.object.zzzzz-4zz18-000000000000000"], NOT_AUTHORIZED),
        ([48, {}, "wamp.subscription.get_events", [1]], "wamp.error.invalid_argument"),
        ([32, {}, "com.mine"], "wamp.error.invalid_uri"),
        ([32, {}, "arvados.event"], "wamp.error.invalid_uri"),
        ([32, {}, "arvados.event..collection.update"], "wamp.error.invalid_uri"),
        ([32, {"match": "prefix"}, "arvados"], "wamp.error.invalid_uri"),
        ([32, {"match": "prefix"}, "arvados.event.zzzzz-j7d0g"], "wamp.error.invalid_uri"),
        ([32, {"match": "wildcard"}, "arvados.event..nonsense."], "wamp.error.invalid_uri"),
        ([32, {"match": "prefix"}, "arvados.log."], "wamp.error.invalid_uri"),
        ([32, {}, "arvados.log.zzzzz-4zz18-000000000000000"], "wamp.error.invalid_argument"),
        ([32, {}, "arvados.log.zzzzz-dz642-000000000000000"], NOT_AUTHORIZED),
        ([32, {}, "arvados.object.zzzzz-4zz18-000000000000000"], NOT_AUTHORIZED),
        ([32, {}, "arvados.object.zzzzz-4zz18-000000000000000?no"], "wamp.error.invalid_argument"),
        (
            [32, {"match": "prefix", "x_arvados": {"tial": 3}}, "arvados.event."],
            "wamp.error.invalid_argument",
        ),
    ],
    ids=str,
)
async def test_what_is_refused(site: Site, alice: Actor, request_: list[Any], uri: str) -> None:
    """An ERROR with a URI of the specification and a text; the session goes on."""
    async with joined(site, alice) as client:
        answer = await client.answer(*request_)
        assert (answer[0], answer[4]) == (8, uri), answer
        assert answer[5][0]
        assert (await client.call("arvados.api.whoami"))[0] == 50


async def test_an_object_comes_as_it_is_where_that_is_asked_for(
    site: Site, cluster: Cluster, alice: Actor
) -> None:
    """Retained; without it only what changes."""
    made = await cluster.collection("one", owner=alice)
    topic = f"arvados.object.{made.uuid}"
    async with joined(site, alice) as client, joined(site, alice) as other:
        mine = await client.subscribe(topic, get_retained=True)
        assert await other.subscribe(topic) == mine, "the same id in every session"
        event = await client.until(lambda message: message[0] == 36)
        assert event[1] == mine and event[3] == {"retained": True}
        assert event[5]["object"]["record"]["name"] == "one"
        await cluster.update(made, {"name": "two"}, alice)
        for each in (client, other):
            event = await each.until(lambda message: message[0] == 36)
            assert event[3:5] == [{}, []]
            assert event[5]["object"]["record"]["name"] == "two"


async def test_topics_match_by_words(site: Site, cluster: Cluster, alice: Actor) -> None:
    """Exact, by prefix and by wildcard: each subscription hears what it names, once."""
    project = await cluster.project("p", owner=alice)
    exact = f"arvados.event.{project.uuid}.collection.create"
    async with joined(site, alice) as client:
        ids = [
            await client.subscribe(exact),
            await client.subscribe(f"arvados.event.{project.uuid}", match="prefix"),
            await client.subscribe("arvados.event..collection.update", match="wildcard"),
        ]
        assert len({*ids}) == 3
        made = await cluster.collection("one", owner=project, by=alice)
        await cluster.update(made, {"name": "two"}, alice)
        last = await cluster.collection("last", owner=project, by=alice)
        ends = {*zip(ids, (last.uuid, last.uuid, made.uuid), strict=True)}
        await client.until(lambda _: ends <= {(m[1], _object(m)) for m in client.seen})
        told = [message for message in client.seen if _object(message)]
        found = [(ids.index(m[1]), m[3].get("topic"), _object(m)) for m in told]
        update = exact.replace("create", "update")
        assert sorted(found) == sorted(
            [
                (0, None, made.uuid),
                (1, exact, made.uuid),
                (1, update, made.uuid),
                (2, update, made.uuid),
                (0, None, last.uuid),
                (1, exact, last.uuid),
            ]
        )
        publications = [message[2] for message in told if message[1] == ids[1]]
        assert publications == sorted({*publications})


def _object(message: list[Any]) -> str | None:
    if message[0] != 36 or "event" not in message[5]:
        return None
    return str(message[5]["event"]["object_uuid"])


@pytest.mark.parametrize("where", ["option", "query"])
async def test_a_cursor_resumes(site: Site, cluster: Cluster, alice: Actor, where: str) -> None:
    """In the options, or behind the topic for libraries that have no room for it there."""
    topic = f"arvados.event.{alice.uuid}.collection.create"

    async def subscribe(client: wamp.Client, given: dict[str, Any]) -> None:
        if where == "query":
            await client.subscribe(f"{topic}?{quote(json.dumps(given))}")
        else:
            await client.subscribe(topic, x_arvados=given)

    async with joined(site, alice) as client:
        await client.subscribe(topic)
        first = await cluster.collection("first", owner=alice)
        cursor = (await client.told("event", object_uuid=first.uuid))["cursor"]
    missed = await cluster.collection("missed", owner=alice)
    async with joined(site, alice) as client:
        await subscribe(client, {"cursor": cursor})
        assert (await client.told("event"))["object_uuid"] == missed.uuid


async def test_a_topic_has_a_history(site: Site, cluster: Cluster, alice: Actor) -> None:
    """What was told live, under the same publication ids, from any of them or its cursor on."""
    project = await cluster.project("p", owner=alice)
    async with joined(site, alice) as client:
        id = await client.subscribe(f"arvados.event.{project.uuid}.collection", match="prefix")
        made = [await cluster.collection(str(n), owner=project, by=alice) for n in range(3)]
        await client.told("event", object_uuid=made[-1].uuid)
        live = {m[2]: (m[3], _but_cursor(m[5])) for m in client.seen if _object(m)}
        _, _, _, (events,) = (await client.call("wamp.subscription.get_events", id, 10))[:4]
        told = {e["publication"]: (e["details"], _but_cursor(e["kwargs"])) for e in events}
        assert told == live
        assert [e["subscription"] for e in events] == [id] * 3
        first, *rest = events
        places = {
            "after_publication": first["publication"],
            "cursor": first["kwargs"]["event"]["cursor"],
        }
        for name, place in places.items():
            answer = await client.call("wamp.subscription.get_events", id, **{name: place})
            assert [e["publication"] for e in answer[3][0]] == [e["publication"] for e in rest]
        for wrong in (places, {"cursor": "made-up"}, {"cursor": 1}):
            answer = await client.call("wamp.subscription.get_events", id, **wrong)
            assert answer[4] == "wamp.error.invalid_argument"


async def test_a_rare_event_is_found_among_many_others(
    site: Site, cluster: Cluster, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No event in the answer means that there is none; where finding it takes long, the error says
    where to go on."""
    project = await cluster.project("p", owner=alice)
    async with joined(site, alice) as client:
        id = await client.subscribe(f"arvados.event.{project.uuid}", match="prefix")
        first = await cluster.collection("first", owner=project, by=alice)
        cursor = (await client.told("event", object_uuid=first.uuid))["cursor"]
        connection = await asyncpg.connect(site.database.dsn)
        await raw_rows.insert(connection, [raw_rows.row() for _ in range(1100)])
        await connection.close()
        rare = await cluster.collection("rare", owner=project, by=alice)
        await client.told("event", object_uuid=rare.uuid)
        monkeypatch.setattr(native_events, "_EXAMINED", 1)

        async def asked(cursor: str) -> list[Any]:
            return await client.call("wamp.subscription.get_events", id, cursor=cursor)

        _, _, _, (found,) = await asked(cursor)
        assert [e["kwargs"]["event"]["object_uuid"] for e in found] == [rare.uuid]
        monkeypatch.setattr(calls, "SEARCH_SECONDS", -1.0)
        answer, places = await asked(cursor), [cursor]
        while answer[0] == 8:
            assert answer[4] == "wamp.error.unavailable"
            places.append(answer[6]["cursor"])
            answer = await asked(places[-1])
        assert answer[3] == [found]
        assert len({*places}) == len(places) > 2


def _but_cursor(said: dict[str, Any]) -> dict[str, Any]:
    """A cursor also says what was the newest event when it was made."""
    assert said["event"]["cursor"]
    return {**said, "event": {**said["event"], "cursor": None}}


async def test_a_session_has_a_topic_once(site: Site, alice: Actor) -> None:
    """Two handlers of a program are one subscription; other options are refused."""
    topic = f"arvados.event.{alice.uuid}"
    async with joined(site, alice) as client:
        id = await client.subscribe(topic, match="prefix")
        assert await client.subscribe(topic, match="prefix") == id
        other = {"match": "prefix", "x_arvados": {"begin": "oldest"}}
        assert (await client.answer(32, other, topic))[4] == "arvados.error.topic_in_use"
        assert (await client.answer(34, id))[0] == 35
        assert (await client.answer(34, id))[4] == "wamp.error.no_such_subscription"
        assert (await client.answer(32, other, topic))[0] == 33


async def test_what_may_not_be_read_any_more_is_unsubscribed(
    site: Site, cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """The router ends the subscription; nothing comes for it afterwards."""
    project = await cluster.project("shared", owner=alice)
    made = await cluster.collection("in it", owner=project, by=alice)
    await cluster.share(project, bob, by=alice)
    async with joined(site, bob) as client:
        id = await client.subscribe(f"arvados.object.{made.uuid}", get_retained=True)
        await cluster.unshare(project, bob, by=alice)
        gone = await client.until(lambda message: message[0] == 35)
        assert gone == [35, 0, {"subscription": id, "reason": NOT_AUTHORIZED}]
        assert (await client.answer(34, id))[4] == "wamp.error.no_such_subscription"


async def test_the_end_of_a_token_is_the_end_of_the_session(
    site: Site, cluster: Cluster, alice: Actor
) -> None:
    """GOODBYE, killed, and a close code that says not to come back with it."""
    async with joined(site, alice) as client:
        await cluster.logout(alice)
        goodbye = await client.until(lambda message: message[0] == 6)
        assert goodbye[2] == "wamp.close.killed"
        assert await client.closed() == 4501


async def test_a_drain_says_goodbye(site: Site, alice: Actor) -> None:
    """And that the client may come back."""
    async with own(site) as (base, services), wamp.connected(base, alice) as client:
        await services.transport.connections.drain(0.1)
        goodbye = await client.until(lambda message: message[0] == 6)
        assert goodbye[2] == "wamp.close.system_shutdown"
        assert await client.closed() == 4000


async def test_calls_are_those_of_native_clients(
    site: Site, cluster: Cluster, alice: Actor
) -> None:
    """The same messages and headers; more calls at once than there may be are refused."""
    made = await cluster.collection("one", owner=alice)
    async with joined(site, alice) as client:
        _, _, _, _, who = await client.answer(48, {}, "arvados.api.whoami", None, None)
        assert (who["user_uuid"], who["is_admin"]) == (alice.uuid, False)
        _, _, _, _, found = await client.call(f"arvados.api.object.{made.uuid}")
        assert found["messages"][0]["json"]["uuid"] == made.uuid
        assert found["end"]["Arvados-Etag"] == found["messages"][0]["headers"]["Arvados-Etag"]
        asked = [await client.ask(48, {}, "arvados.api.events", [], {}) for _ in range(12)]
        answers = [await client.until(lambda m: m[0] in (8, 50)) for _ in asked]
        refused = [answer[4] for answer in answers if answer[0] == 8]
        assert refused and {*refused} == {"wamp.error.unavailable"}
        assert any(answer[0] == 50 for answer in answers)
