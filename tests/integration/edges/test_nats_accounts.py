# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The six accounts on the real nats-server: what each identity may, and what never crosses.

The callout service here is as small as the protocol allows, so that what is tested is the
server's configuration and nothing else: it gives every token the permissions of `GRANTS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeout

from arvados_nats.contract import accounts, streams
from arvados_nats.nats import accounts_config
from arvados_nats.nats import client as nats_client
from arvados_nats.service import keys
from authcallout.admissions import USER_INFO
from tests.support.worlds.accounts import (
    INBOX,
    LAST_CHUNK,
    OTHER_INBOX,
    OWN_LOG,
    World,
    open_world,
)


@pytest.fixture
async def world(keys_folder: Path) -> AsyncIterator[World]:
    """A server, and a callout service that is as small as can be."""
    async with open_world(keys_folder) as opened:
        yield opened


async def test_a_reader_hears_what_is_granted_and_nothing_else(world: World) -> None:
    """Live messages reach the grant across the account border; other subjects are refused."""
    reader = await world.user("reader")
    granted = await reader.subscribe("arvados.live.alice.>")
    await reader.flush()
    publisher = await world.service("publisher")
    await publisher.publish("arvados.live.bob.x", b"not for alice")
    await publisher.publish("arvados.live.alice.x", b"for alice")
    assert (await granted.next_msg(timeout=5)).data == b"for alice"
    for subject in ("arvados.live.>", "arvados.live.bob.>", "arvados.events.>", "_INBOX.>", ">"):
        await reader.subscribe(subject)
        assert "permissions violation for subscription" in await world.refusal()


@pytest.mark.parametrize("who", ["reader", "asker"])
async def test_what_users_may_not_publish(world: World, who: str) -> None:
    """No events, no logs, no streams, no server questions, no other's inbox; no request either by
    who listens."""
    reader = await world.user(who)
    requests = ("arvados.api.whoami", USER_INFO) if who == "reader" else ()
    for subject in (
        *requests,
        "arvados.live.alice.forged",
        "arvados.events.container.x.update",
        "arvados.logs.x.stdout_txt",
        "$JS.API.STREAM.NAMES",
        "$JS.API.CONSUMER.CREATE.X.y",
        "$SYS.REQ.SERVER.PING.CONNZ",
        "_INBOX.someone",
    ):
        await reader.publish(subject, b"{}")
        assert "permissions violation for publish" in await world.refusal()


async def test_requests_cross_with_a_header_the_server_wrote(world: World) -> None:
    """The service learns account and user name from the server, not from the caller."""
    service = await world.service("callout-service")
    seen: list[dict[str, str] | None] = []

    async def answer(message: Msg) -> None:
        seen.append(message.headers)
        for part in (b"1", b"2", b"3"):
            await service.publish(message.reply, part)

    await service.subscribe("arvados.api.echo", cb=answer)
    await service.flush()
    reader = await world.user("asker")
    inbox = reader.new_inbox()
    answers = await reader.subscribe(inbox)
    forged = {"Nats-Request-Info": '{"acc":"ARVADOS","user":"root"}'}
    await reader.publish("arvados.api.echo", b"", reply=inbox, headers=forged)
    assert [(await answers.next_msg(timeout=5)).data for _ in range(3)] == [b"1", b"2", b"3"]
    caller = json.loads((seen[0] or {})["Nats-Request-Info"])
    assert (caller["acc"], caller["user"]) == (accounts.REQUESTS, "test")
    assert isinstance(caller["id"], int)


async def test_a_users_message_is_bounded(world: World) -> None:
    """A user may send 64 KiB; our services in ARVADOS up to 8 MiB."""
    largest, limit = (
        accounts_config.AccountLimits().payload,
        accounts_config.AccountLimits().user_payload,
    )
    publisher = await world.service("publisher")
    await publisher.publish("arvados.live.bob.x", bytes(largest))
    await publisher.flush()
    reader, closed = await world.user_until_closed("asker")
    await reader.publish("arvados.api.echo", bytes(limit))
    await reader.flush()
    await reader.publish("arvados.api.echo", bytes(limit + 1))
    await closed
    assert "maximum payload exceeded" in world.server.log


async def test_a_users_subscriptions_are_bounded(world: World) -> None:
    """One connection in USERS cannot fill the server's memory with subscriptions."""
    reader, closed = await world.user_until_closed("reader")
    for _ in range(world.limits.user_subscriptions + 1):
        await reader.subscribe("arvados.live.alice.x")
    await closed
    assert "maximum subscriptions exceeded" in str(reader.last_error)


async def test_a_dispatcher_is_placed_beside_the_streams(world: World) -> None:
    """A client placed in ARVADOS reaches the one stream it is granted, and may not make one."""
    publisher = await world.service("publisher")
    await publisher.jetstream().add_stream(name="X", subjects=["x.>"])
    dispatcher = await world.user("dispatcher")
    answer = await dispatcher.request("$JS.API.STREAM.INFO.X", timeout=5)
    assert json.loads(answer.data)["config"]["name"] == "X"
    await dispatcher.publish("$JS.API.STREAM.DELETE.X", b"")
    assert "permissions violation for publish" in await world.refusal()


ARVADOS_VICTIMS = (
    "arvados.events.container.zzzzz-dz642-000000000000001.update",
    "arvados.stored.events.container.zzzzz-dz642-000000000000001.update",
    "arvados.live.alice.x",
    "arvados.logs.other.stdout_txt",
    "arvados.syslog.other.sshd_service",
    "arvados.grants.changed.alice",
    "arvados.tokens.gone.alice",
    "arvados.api.whoami",
    "$KV.ARVADOS_QUEUE.zzzzz-dz642-000000000000001",
    "_INBOX.victim",
    f"{INBOX}.victim",
)
"""What our services and administrators subscribe to."""
REPLIES = (
    *ARVADOS_VICTIMS,
    "$JS.API.STREAM.PURGE.ARVADOS_EVENTS",
    "$SYS.REQ.USER.AUTH",
    "$SYS.REQ.SERVER.PING",
    "_R_.victim",
    f"{OTHER_INBOX}.x",
    f"{OTHER_INBOX}.*",
    f"{OTHER_INBOX}.*.*",
    f"{OTHER_INBOX}.>",
    "arvados.live.>",
    ">",
)
"""Where a sender has the answer go."""
SPEAK = {
    "reader": ("arvados.api.echo", "arvados.api.nobody", USER_INFO, "arvados.live.alice.x"),
    "asker": ("arvados.api.echo", "arvados.api.nobody", USER_INFO),
    "container": (OWN_LOG, f"{LAST_CHUNK}.{OWN_LOG}"),
    "machine": (
        "arvados.syslog.host.unit",
        f"$JS.API.DIRECT.GET.{streams.SYSTEM_LOGS}.arvados.syslog.host.unit",
    ),
}
"""All that makes the server or a service speak, by who may, or tries to, say it."""
QUESTION = b'{"seq": 1}'


async def _make_streams(publisher: Client) -> None:
    for config in (
        *(streams.event_stream(), streams.log_stream()),
        *(streams.system_log_stream(), streams.queue_stream()),
    ):
        call = f"$JS.API.STREAM.CREATE.{config['name']}"
        made = await publisher.request(call, json.dumps(config).encode())
        assert "error" not in json.loads(made.data)


async def _victims(world: World, heard: list[str]) -> list[Client]:
    """In each account somebody who listens as its libraries do."""

    async def hear(message: Msg) -> None:
        heard.append(message.subject)

    publisher = await world.service("publisher")
    for victim in ARVADOS_VICTIMS:
        await publisher.subscribe(victim, cb=hear)
    reader = await world.user("reader")
    await reader.subscribe("arvados.live.alice.>", cb=hear)
    clients = [publisher, reader]
    for token in ("other-asker", "other-container"):
        client = await world.user(token, OTHER_INBOX)
        await client.subscribe(f"{client.new_inbox()}.*", cb=hear)
        clients.append(client)
    for client in clients:
        await client.flush()
    return clients


async def _echo(world: World) -> None:
    service = await world.service("wsproxy")

    async def answer(message: Msg) -> None:
        """What the sender chose, as a service may be brought to say it."""
        for number in range(2 if message.reply else 0):
            headers = {"Nats-Sequence": f"{number}", "Arvados-Offset": "0"}
            await service.publish(message.reply, message.data, headers=headers)

    await service.subscribe("arvados.api.echo", cb=answer)
    await service.flush()


@pytest.mark.parametrize("who", SPEAK)
async def test_nobody_can_have_the_server_or_a_service_speak_for_them(
    world: World, who: str
) -> None:
    """They get their own back, and no answer goes where they like: no victim hears anything.

    No permission covers the reply subject of a message. In ARVADOS the server itself would publish
    there what a sender has stored, and in USERS the services what they are asked for: forged
    events, queue entries and other containers' logs.
    """
    await _make_streams(await world.service("publisher"))
    await _echo(world)
    heard: list[str] = []
    victims = await _victims(world, heard)
    sender = (
        await world.user(world.machine_key("host"), "_INBOX_system-logs-host")
        if who == "machine"
        else await world.user(who)
    )
    for subject in SPEAK[who]:
        for reply in ("", *REPLIES):
            await sender.publish(subject, QUESTION, reply=reply)
    await sender.flush()
    if who != "reader":
        await _answered(sender, SPEAK[who][0])
    for client in victims:
        await client.flush()
    assert heard == []
    refused = len(REPLIES) + 1 if who == "reader" else 1  # the server's own `_R_`
    assert world.refusals.qsize() == refused * len(SPEAK[who])


async def _answered(sender: Client, subject: str) -> None:
    """All that was said before is answered. With a reply that has wildcards nats-server 2.15.1
    forgets where other answers go, so a question may have to be asked again."""
    while True:
        with contextlib.suppress(NatsTimeout):
            assert (await sender.request(subject, QUESTION, timeout=1)).data
            return


async def test_the_callout_identity_hears_logins_alone(world: World) -> None:
    """Whoever has the callout's seed can answer logins, not read or send anything else."""
    callout = await world.service("callout")
    await callout.subscribe(">")
    assert "permissions violation for subscription" in await world.refusal()
    await callout.publish("arvados.live.alice.x", b"")
    assert "permissions violation for publish" in await world.refusal()


async def test_the_servers_own_answers_are_read(world: World) -> None:
    """They have a reply of no length; which connections there are is asked for in this way."""
    await world.user("reader")
    seed = keys.load(world.folder, "sys")
    async with nats_client.connect([world.server.url], name="t", seed=seed.text) as system:
        answer = await system.request("$SYS.REQ.SERVER.PING.CONNZ", b'{"acc": "USERS"}')
    assert len(json.loads(answer.data)["data"]["connections"]) == 1


async def test_only_the_system_identity_can_cut_connections(world: World) -> None:
    """A kick from ARVADOS does nothing; one from SYS disconnects, and the client comes back."""
    back = asyncio.Event()

    async def reconnected() -> None:
        back.set()

    reader = await world.user("reader", reconnected_cb=reconnected, reconnect_time_wait=0.01)
    server, client = reader._server_info["server_id"], reader.client_id
    kick, body = f"$SYS.REQ.SERVER.{server}.KICK", json.dumps({"cid": client}).encode()
    with pytest.raises((NatsTimeout, nats.errors.NoRespondersError)):
        await (await world.service("publisher")).request(kick, body, timeout=0.3)
    assert reader.client_id == client
    await (await world.service("sys")).request(kick, body, timeout=5)
    async with asyncio.timeout(60):
        await back.wait()
    assert reader.client_id != client
