# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A NATS server with its six accounts, and a callout service that is as small as can be.

It gives every token the permissions of `GRANTS`, so that what is tested is the server's
configuration and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nacl.public import Box, PrivateKey, PublicKey
from nacl.signing import SigningKey
from nats.aio.client import Client
from nats.aio.msg import Msg

from arvados_nats.contract import accounts, streams
from arvados_nats.nats import accounts_config
from arvados_nats.service import keys, machine_keys
from authcallout import admissions
from authcallout.admissions import USER_INFO
from sandbox.servers import nats_server as sandbox

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


def _grant(token: str) -> dict[str, Any]:
    """Of a machine's key what the product gives it."""
    host = machine_keys.named(token)
    if host is None:
        return GRANTS[token]
    found = admissions.machine(host)
    return {
        "aud": found.account,
        "sub": {"allow": [*found.subscribe]},
        "pub": {"allow": [*found.publish]},
    }


def answerer(folder: Path) -> Callable[[Msg], Awaitable[None]]:
    """Seals and signs what each token gets."""
    issuer, xkey = keys.load(folder, "issuer"), keys.load(folder, "xkey")

    async def answer(message: Msg) -> None:
        _, server = keys.decode_public((message.headers or {})["Nats-Server-Xkey"])
        box = Box(PrivateKey(xkey.raw), PublicKey(server))
        opened = box.decrypt(message.data.removeprefix(b"xkv1")).split(b".")[1]
        request = json.loads(base64.urlsafe_b64decode(opened + b"=" * (-len(opened) % 4)))["nats"]
        subject, grant = request["user_nkey"], _grant(request["connect_opts"]["auth_token"])
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

    limits = accounts_config.AccountLimits(user_subscriptions=100)

    def __init__(self, server: sandbox.NatsServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self._clients: list[Client] = []
        self.refusals: asyncio.Queue[str] = asyncio.Queue()

    async def service(self, name: str, inbox: str = "_INBOX") -> Client:
        """A client with a static identity."""
        seed = keys.load(self.folder, name).text
        return await self._connect(nkeys_seed_str=seed, inbox_prefix=inbox)

    def machine_key(self, host: str) -> str:
        return machine_keys.make(keys.load(self.folder, "system-logs"), host)

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

    async def refusal(self) -> str:
        """The server's next word about something that was not allowed."""
        async with asyncio.timeout(60):
            return await self.refusals.get()

    async def close(self) -> None:
        """Close all clients."""
        for client in self._clients:
            await client.close()


@asynccontextmanager
async def open_world(keys_folder: Path) -> AsyncIterator[World]:
    """A server with the callout service of this module at work."""
    async with sandbox.run(keys_folder, limits=World.limits) as server:
        world = World(server, keys_folder)
        callout = await world.service("callout")
        await callout.subscribe("$SYS.REQ.USER.AUTH", queue="callout", cb=answerer(keys_folder))
        await callout.flush()
        yield world
        await world.close()
