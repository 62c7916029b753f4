# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Tokens and users of a peer cluster that are named like this cluster's own (security: S3)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.contract import accounts, subjects
from arvados_nats.nats.client import Message
from arvados_nats.permission_client.own_tokens import OwnToken, OwnTokens
from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.support.clients.native import connected, lets_in
from tests.support.clients.native_answers import EVENTS, ask, trusted

ROOT, ANONYMOUS = "000000000000000", "anonymouspublic"


@asynccontextmanager
async def peers(
    stack: Stack, uuid: str, name: str, user: str | None = None
) -> AsyncIterator[Actor]:
    """A user of a peer, with a token whose uuid that peer chose, and perhaps the user's own."""
    actor = await stack.sandbox.cluster.user(name)
    connection = await asyncpg.connect(stack.sandbox.database.dsn)
    named = "UPDATE api_client_authorizations SET uuid = $1 WHERE uuid = $2"
    try:
        await connection.execute(named, uuid, actor.token_uuid)
        if user:
            await connection.execute("UPDATE users SET uuid = $1 WHERE uuid = $2", user, actor.uuid)
        token = f"v2/{uuid}/{actor.token.split('/')[2]}"
        yield replace(actor, uuid=user or actor.uuid, token_uuid=uuid, token=token)
    finally:
        await connection.execute(named, actor.token_uuid, uuid)
        await connection.execute("UPDATE users SET uuid = $1 WHERE uuid = $2", actor.uuid, user)
        await connection.close()


CHOSEN = [
    ("bbbbb", ROOT, None),
    ("bbbbc", ROOT, f"bbbbc-tpzed-{ROOT}"),
    ("bbbbd", ANONYMOUS, None),
    ("zzzzz", ROOT, None),
    ("zzzzz", ANONYMOUS, None),
]
"""Cluster and end of the token's uuid, and the user's: the last two only a row can have."""


@pytest.mark.parametrize(("peer", "end", "user"), CHOSEN)
async def test_a_row_is_nobody_special(stack: Stack, peer: str, end: str, user: str | None) -> None:
    """It gets what its user may, and ends when it does."""
    cluster = stack.sandbox.cluster
    token_uuid = f"{peer}-gj3su-{end}"
    async with peers(stack, token_uuid, f"mallory{peer}{end[0]}", user) as mallory:
        async with (
            connected(stack, mallory) as client,
            connected(stack, mallory, asks=True) as asking,
        ):
            whoami = json.loads((await asking.nats.request(subjects.API_WHOAMI)).data)
            assert (whoami["account"], whoami["user_uuid"]) == (accounts.USERS, mallory.uuid)
            await client.listen(f"{subjects.STORED}.>")
            await cluster.collection(owner=cluster.root)
            assert (await ask(asking.nats, EVENTS)).error == {}
            assert client.heard == []
        async with trusted(stack) as nats:
            gone: asyncio.Queue[Message] = asyncio.Queue()
            await nats.subscribe(subjects.token_gone(token_uuid), gone.put)
            await nats.flush()
            await cluster.logout(mallory)
            await asyncio.wait_for(gone.get(), 60)
        async with asyncio.timeout(60):
            while await lets_in(stack, mallory.token):
                pass


async def test_who_the_own_tokens_are(stack: Stack) -> None:
    """The whole uuid of this cluster, of the token and of its user, and no row."""
    async with trusted(stack) as nats, arvados_client.connect(stack.sandbox.api.url) as arvados:
        own = OwnTokens(arvados.cluster_id, nats)
        for token in OwnToken:
            uuid, user = f"zzzzz-gj3su-{token.value}", f"zzzzz-tpzed-{token.value}"
            assert await own.of(uuid, user) is token
            assert await own.of(uuid, f"bbbbb-tpzed-{token.value}") is None
            assert await own.of(uuid, "zzzzz-tpzed-000000000000001") is None
            assert await own.of(f"bbbbb-gj3su-{token.value}", user) is None
            assert await own.of_uuid(f"bbbbb-gj3su-{token.value}") is None
            assert await own.of(f"zzzzz-4zz18-{token.value}", user) is None
            async with peers(stack, uuid, f"holder{token.value[:3]}"):
                assert await own.of_uuid(uuid) is None
                assert await own.of(uuid, user) is None
