# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Native clients: who gets in, with what, and what is refused (docs/facts/nats-callout.md 9)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from arvados_nats.contract import answers as answer_headers
from arvados_nats.errors import Refused, Unavailable
from arvados_nats.nats import client as nats_client
from authcallout.admissions import USER_INFO
from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.support.clients.forbidden import FORBIDDEN_PUBLISHES, FORBIDDEN_SUBSCRIPTIONS
from tests.support.clients.native import Native, connected
from tests.support.waiting import until


@pytest.fixture
async def alice(stack: Stack) -> AsyncIterator[Actor]:
    yield await stack.sandbox.cluster.user("alice")


async def whoami(client: Native) -> dict[str, object]:
    found: dict[str, object] = json.loads((await client.nats.request("arvados.api.whoami")).data)
    return found


async def test_a_token_gets_what_its_user_may_read(stack: Stack, alice: Actor) -> None:
    """Live patterns for home and shared projects; whoami says which and whose."""
    cluster = stack.sandbox.cluster
    bob = await cluster.user("bob")
    shared = await cluster.project("shared with alice", owner=bob)
    await cluster.share(shared, alice)
    async with connected(stack, alice, asks=True) as client:
        found = await whoami(client)
    assert found["user_uuid"] == alice.uuid
    assert found["token_uuid"] == alice.token_uuid
    subscribe = found["subscribe"]
    assert isinstance(subscribe, list)
    assert {f"arvados.live.{alice.uuid}.>", f"arvados.live.{shared.uuid}.>"} <= set(subscribe)


@pytest.mark.parametrize(
    "token",
    ["", "undefined", "v2/zzzzz-gj3su-000000000000001/wrong", "with space", "x" * 3000],
    ids=["none", "undefined", "unknown", "space", "long"],
)
async def test_bad_tokens_are_refused_with_a_reason_in_our_log(stack: Stack, token: str) -> None:
    """The client hears a plain no; the service's log says why, without the token."""
    before = stack.services["authcallout"].output.count("callout.refused")
    with pytest.raises(Refused):
        async with nats_client.connect(
            [stack.sandbox.nats.url], name="bad", token=token or " ", timeout=5
        ):
            raise AssertionError("let in")
    log = stack.services["authcallout"].output
    assert log.count("callout.refused") > before
    assert "/wrong" not in log
    assert "x" * 100 not in log


@pytest.mark.parametrize("kind", ["expired", "scopes", "logged out"])
async def test_tokens_that_read_nothing_are_refused(stack: Stack, alice: Actor, kind: str) -> None:
    """Expired, out of scope, logged out: each is a no."""
    cluster = stack.sandbox.cluster
    match kind:
        case "expired":
            past = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1)
            actor = await cluster.token(alice, expires_at=past)
        case "scopes":
            actor = await cluster.token(alice, scopes=["POST /arvados/v1/none"])
        case _:
            actor = await cluster.token(alice)
            await cluster.logout(actor)
    with pytest.raises(Refused):
        async with connected(stack, actor, again=False):
            raise AssertionError("let in")


@pytest.mark.parametrize("asks", [False, True], ids=["listens", "asks"])
@pytest.mark.parametrize("subject", FORBIDDEN_SUBSCRIPTIONS)
async def test_forbidden_subscriptions(
    stack: Stack, alice: Actor, subject: str, asks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is refused by the server, with its name (docs/facts/nats-callout.md 9.6)."""
    other = await stack.sandbox.cluster.user("bob")
    async with connected(stack, alice, asks=asks) as client:
        await client.listen(subject.format(other=other.uuid))
        await client.flush()
    assert _refusals(caplog), subject


@pytest.mark.parametrize(
    ("subject", "asks"),
    [(subject, asks) for subject in FORBIDDEN_PUBLISHES for asks in (False, True)]
    + [("arvados.api.whoami", False), ("arvados.api.events", False), (USER_INFO, False)],
)
async def test_forbidden_publishes(
    stack: Stack, alice: Actor, subject: str, asks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing but the API is open to who asks, and nothing at all to who listens."""
    async with connected(stack, alice, asks=asks) as client:
        await client.nats.publish(subject.format(alice=alice.uuid), b"{}")
        await client.flush()
    assert _refusals(caplog), subject


def _refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    errors = [str(getattr(record, "error", "")) for record in caplog.records]
    return [error for error in errors if "permissions violation" in error.lower()]


async def test_nobody_joins_anothers_queue_group(stack: Stack) -> None:
    """A plain allow permits queue groups on one's own subjects only; nothing is taken."""
    cluster = stack.sandbox.cluster
    bob = await cluster.user("bob")
    worker = await cluster.user("worker")
    project = await cluster.project("queue", owner=worker)
    async with connected(stack, worker) as mine, connected(stack, bob) as theirs:
        await mine.listen(f"arvados.live.{worker.uuid}.>", queue="workers")
        await theirs.listen(f"arvados.live.{worker.uuid}.>", queue="workers")
        made = [await cluster.collection(f"c{n}", owner=project, by=worker) for n in range(20)]
        await until(
            lambda: all(mine.heard_of(one.uuid) for one in made), "every event comes to its reader"
        )
        assert not theirs.heard


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-Request-Info": '{"acc":"REQUESTS","user":"forged"}'},
        {"nats-request-info": '{"acc":"REQUESTS","user":"forged"}'},
        {"NATS-REQUEST-INFO": '{"acc":"ARVADOS","user":"forged"}'},
    ],
    ids=["same", "lower", "upper"],
)
async def test_a_forged_sender_is_not_believed(
    stack: Stack, alice: Actor, headers: dict[str, str]
) -> None:
    """The server's header stands; one that only looks like it is refused."""
    async with connected(stack, alice, asks=True) as client:
        answer = json.loads((await client.nats.request("arvados.api.whoami", headers=headers)).data)
    assert answer.get("user_uuid", alice.uuid) == alice.uuid
    assert "forged" not in json.dumps(answer)


async def test_whoami_ends_as_every_answer_does(stack: Stack, alice: Actor) -> None:
    """A client that is written from docs/clients.md reads until the end is told (V8)."""
    async with connected(stack, alice, asks=True) as client:
        answers = [answer async for answer in client.nats.request_all("arvados.api.whoami")]
    assert json.loads(answers[0].data)["user_uuid"] == alice.uuid
    assert answer_headers.END in answers[-1].headers
    assert answers[-1].data == b""


@pytest.mark.parametrize("what", ["whoami", "events", "logs", "object.zzzzz-4zz18-000000000000000"])
async def test_what_no_request_knows_is_refused_by_name(
    stack: Stack, alice: Actor, what: str
) -> None:
    """Whoever gives the answer, an error has the same fields (C1, C6)."""
    async with connected(stack, alice, asks=True) as client:
        answer = await client.nats.request(f"arvados.api.{what}", b'{"tial": 3}')
    assert answer.headers[answer_headers.ERROR] == "bad_request"
    failure = json.loads(answer.data)
    assert set(failure) == {"error", "code", "temporary"}
    assert (failure["code"], failure["temporary"]) == ("bad_request", False)
    assert "tial" in failure["error"] or "no fields" in failure["error"]


async def test_who_has_more_shares_than_a_login_carries_is_told(stack: Stack, alice: Actor) -> None:
    """They are let in, whoami says what to do, and so does our log (C2)."""
    await stack.sandbox.cluster.pool.execute(
        "INSERT INTO materialized_permissions"
        " SELECT $1::varchar, 'zzzzz-4zz18-' || left(md5($1::varchar || g), 15), 1, true"
        " FROM generate_series(1, 8001) AS g",
        alice.uuid,
    )
    async with connected(stack, alice), connected(stack, alice, asks=True) as client:
        found = await whoami(client)
    assert found["overflow"] is True
    assert found["subscribe"] == []
    assert isinstance(found["subscriptions"], int)
    assert found["subscriptions"] > 8000
    assert "WebSocket proxy" in str(found["advice"])
    said = [json.loads(line) for line in stack.services["authcallout"].output.splitlines()]
    (noted,) = [line for line in said if line.get("user_uuid") == alice.uuid]
    assert noted["action"] == "callout.overflow"
    assert noted["patterns"] == found["subscriptions"]


async def test_a_doubled_sender_is_not_believed(stack: Stack, alice: Actor) -> None:
    """Two forged headers in one message, which no client library sends, change nothing."""
    inbox = f"_INBOX_{alice.token_uuid}.raw"
    forged = (
        b'{"acc":"REQUESTS","user":"zzzzz-tpzed-000000000000001/zzzzz-gj3su-000000000000001/ab"}'
    )
    header = b"NATS/1.0\r\n" + 2 * (b"Nats-Request-Info: " + forged + b"\r\n") + b"\r\n"
    reader, writer = await _raw_connection(stack, alice)
    writer.write(f"SUB {inbox} 1\r\n".encode())
    writer.write(f"HPUB arvados.api.whoami {inbox} {len(header)} {len(header)}\r\n".encode())
    writer.write(header + b"\r\nPING\r\n")
    answer = b""
    while b"}" not in answer:
        answer += await asyncio.wait_for(reader.read(65536), 60)
    writer.close()
    assert alice.uuid.encode() in answer or b"error" in answer
    assert b"zzzzz-tpzed-000000000000001" not in answer


async def _raw_connection(
    stack: Stack, actor: Actor
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = stack.sandbox.nats.url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    login = {"user": "api", "pass": actor.token}
    options = {**login, "headers": True, "verbose": False, "pedantic": False}
    writer.write(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
    assert await asyncio.wait_for(reader.readline(), 60) == b"PONG\r\n"
    return reader, writer


async def test_an_admin_reads_the_streams_and_changes_none(stack: Stack) -> None:
    """Placed in ARVADOS: history and stored subjects, no call that changes a stream."""
    cluster = stack.sandbox.cluster
    admin = await cluster.user("admin", admin=True)
    made = await cluster.collection("seen by admin", owner=admin)
    async with connected(stack, admin) as client:
        await client.listen("arvados.stored.events.>")
        await cluster.share(made, await cluster.user("bob"))
        await until(lambda: client.heard, "an event arrives")
        events = [stored.subject async for stored in client.nats.history("ARVADOS_EVENTS", ">")]
        assert any(made.uuid in subject for subject in events)
        with pytest.raises(Unavailable):
            await client.nats.request("$JS.API.STREAM.PURGE.ARVADOS_EVENTS", timeout=0.5)
        with pytest.raises(Unavailable):
            await client.nats.request("$JS.API.STREAM.DELETE.ARVADOS_EVENTS", timeout=0.5)


async def test_a_container_publishes_its_own_logs_only(
    stack: Stack, alice: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    """While it is Running; afterwards its token is refused and its connection is cut."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("pushes", owner=alice)
    container = await cluster.run(request)
    async with cluster.unit(cluster.root) as unit:
        secret = await unit.connection.fetchval(
            "SELECT api_token FROM api_client_authorizations WHERE uuid = $1",
            container["auth_uuid"],
        )
    token = f"v2/{container['auth_uuid']}/{secret}/{container.uuid}"
    own = replace(alice, token=token, token_uuid=container["auth_uuid"])
    async with connected(stack, own) as client:
        ack = await client.nats.publish_stored(
            f"arvados.logs.{container.uuid}.mine_txt",
            b"hello\n",
            {"Arvados-File": "mine.txt", "Arvados-Offset": "0", "Arvados-Epoch": "0"},
        )
        assert (await asyncio.wait_for(ack, 60))["stream"] == "ARVADOS_LOGS"
        await client.nats.publish("arvados.logs.zzzzz-dz642-000000000000001.stdout_txt", b"x")
        await client.listen(f"arvados.live.{alice.uuid}.>")
        await client.flush()
        assert len(_refusals(caplog)) == 2
        await cluster.finish(container)
        await until(lambda: client.cuts, "its connection is cut")
    with pytest.raises(Refused):
        async with connected(stack, own, again=False):
            raise AssertionError("let in")


async def test_the_name_of_a_strange_container_gives_no_right(
    stack: Stack, alice: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    """Arvados takes any token with the uuid of a container it does not have; here it is alice's
    token and no more."""
    strange = "zzzzz-dz642-nobodyhasthis00"
    named = replace(alice, token=f"{alice.token}/{strange}")
    async with connected(stack, named) as client:
        await client.listen(f"arvados.live.{alice.uuid}.>")
        assert _refusals(caplog) == []
        await client.nats.publish(f"arvados.logs.{strange}.stdout_txt", b"forged")
        await client.flush()
        assert len(_refusals(caplog)) == 1
