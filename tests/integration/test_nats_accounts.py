# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The six accounts on the real nats-server: what each identity may, and what never crosses.

The callout service here is as small as the protocol allows, so that what is tested is the
server's configuration and nothing else: it gives every token the permissions of `GRANTS`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nacl.public import Box, PrivateKey, PublicKey
from nacl.signing import SigningKey
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeout

from arvados_nats.contract import accounts, streams
from arvados_nats.nats import client as nats_client
from arvados_nats.nats import server_config
from arvados_nats.service import keys
from authcallout.admissions import USER_INFO
from sandbox import nats_server as sandbox

INBOX, OTHER_INBOX = "_INBOX_test", "_INBOX_victim"
LAST_CHUNK = f"$JS.API.DIRECT.GET.{streams.LOGS}"
OWN_LOG = "arvados.logs.own.stdout_txt"
GRANTS: dict[str, dict[str, Any]] = {
    "reader": {
        "aud": accounts.USERS,
        "sub": {"allow": ["arvados.live.alice.>"]},
        "pub": {"deny": [">"]},
    },
    "asker": {
        "aud": accounts.REQUESTS,
        "sub": {"allow": [f"{INBOX}.>"]},
        "pub": {"allow": ["arvados.api.>", USER_INFO]},
    },
    "other-asker": {
        "aud": accounts.REQUESTS,
        "sub": {"allow": [f"{OTHER_INBOX}.>"]},
        "pub": {"allow": ["arvados.api.>", USER_INFO]},
    },
    "other-container": {
        "aud": accounts.SENDERS,
        "sub": {"allow": [f"{OTHER_INBOX}.>"]},
        "pub": {"allow": ["arvados.logs.other.>"]},
    },
    "container": {
        "aud": accounts.SENDERS,
        "sub": {"allow": [f"{INBOX}.>"]},
        "pub": {"allow": ["arvados.logs.own.>", f"{LAST_CHUNK}.arvados.logs.own.>"]},
    },
    "no-lists": {"aud": accounts.USERS, "sub": {}, "pub": {}},
    "dispatcher": {
        "aud": accounts.ARVADOS,
        "sub": {"allow": [f"{INBOX}.>"]},
        "pub": {"allow": ["$JS.API.STREAM.INFO.X"]},
    },
}


def _sign(seed: keys.Seed, claims: dict[str, Any]) -> str:
    body = {"iat": int(time.time()), "iss": seed.public, "jti": "test", **claims}
    parts = [_b64({"typ": "JWT", "alg": "ed25519-nkey"}), _b64(body)]
    signature = SigningKey(seed.raw).sign(".".join(parts).encode()).signature
    return ".".join((*parts, _unpadded(signature)))


def _b64(value: dict[str, Any]) -> str:
    return _unpadded(json.dumps(value).encode())


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _answerer(folder: Path) -> Callable[[Msg], Awaitable[None]]:
    issuer, xkey = keys.load(folder, "issuer"), keys.load(folder, "xkey")

    async def answer(message: Msg) -> None:
        _, server = keys.decode_public((message.headers or {})["Nats-Server-Xkey"])
        box = Box(PrivateKey(xkey.raw), PublicKey(server))
        opened = box.decrypt(message.data.removeprefix(b"xkv1")).split(b".")[1]
        request = json.loads(base64.urlsafe_b64decode(opened + b"=" * (-len(opened) % 4)))["nats"]
        subject, grant = request["user_nkey"], GRANTS[request["connect_opts"]["auth_token"]]
        user = {"pub": grant["pub"], "sub": grant["sub"], "subs": -1, "data": -1, "payload": -1}
        jwt = _sign(
            issuer,
            {
                "sub": subject,
                "aud": grant["aud"],
                "name": "test",
                "nats": {"type": "user", "version": 2, **user},
            },
        )
        response = _sign(
            issuer,
            {
                "sub": subject,
                "aud": request["server_id"]["id"],
                "nats": {"type": "authorization_response", "version": 2, "jwt": jwt},
            },
        )
        await message.respond(b"xkv1" + bytes(box.encrypt(response.encode())))

    return answer


class World:
    """A server with a callout service, and clients that say what they were not allowed."""

    limits = server_config.Limits(user_subscriptions=100)

    def __init__(self, server: sandbox.NatsServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self._clients: list[Client] = []
        self.refusals: asyncio.Queue[str] = asyncio.Queue()

    async def service(self, name: str, inbox: str = "_INBOX") -> Client:
        """A client with a static identity."""
        seed = keys.load(self.folder, name).text
        return await self._connect(nkeys_seed_str=seed, inbox_prefix=inbox)

    async def user(self, token: str, inbox: str = INBOX, **options: Any) -> Client:
        """A client with a token."""
        return await self._connect(token=token, inbox_prefix=inbox, **options)

    async def user_until_closed(self, token: str) -> tuple[Client, asyncio.Future[None]]:
        """A client that stays away once the server closed it, and the moment when it does."""
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def close() -> None:
            closed.set_result(None)

        return await self.user(token, allow_reconnect=False, closed_cb=close), closed

    async def _connect(self, **options: Any) -> Client:
        async def refused(error: Exception) -> None:
            self.refusals.put_nowait(str(error).lower())

        client = await nats.connect(self.server.url, error_cb=refused, **options)
        self._clients.append(client)
        return client

    async def refusal(self, within: float = 5) -> str:
        """The server's next word about something that was not allowed."""
        async with asyncio.timeout(within):
            return await self.refusals.get()

    async def close(self) -> None:
        """Close all clients."""
        for client in self._clients:
            await client.close()


@pytest.fixture
async def world(keys_folder: Path) -> AsyncIterator[World]:
    """A server with the callout service of this module at work."""
    async with sandbox.run(keys_folder, limits=World.limits) as server:
        world = World(server, keys_folder)
        callout = await world.service("callout")
        await callout.subscribe("$SYS.REQ.USER.AUTH", queue="callout", cb=_answerer(keys_folder))
        await callout.flush()
        yield world
        await world.close()


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


@pytest.mark.xfail(
    strict=False,
    reason="nats-server 2.15.1 loses default_permissions of accounts without users at start "
    "(accounts.go shallowCopy): the callout service must write both sides itself",
)
async def test_a_grant_without_lists_allows_nothing(world: World) -> None:
    """The account's own deny closes what a user JWT forgot to close."""
    user = await world.user("no-lists")
    await user.subscribe("arvados.live.alice.>")
    assert "permissions violation for subscription" in await world.refusal(within=1)


async def test_a_users_message_is_bounded(world: World) -> None:
    """A user may send 64 KiB; our services in ARVADOS up to 8 MiB."""
    largest, limit = server_config.Limits().payload, server_config.Limits().user_payload
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
        await world.service("system-logs", "_INBOX_system-logs")
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
    async with asyncio.timeout(5):
        await back.wait()
    assert reader.client_id != client
