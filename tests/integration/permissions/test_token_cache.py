# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Connections whose tokens another replica let in: asked about in batches, kept while unsure."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.identities import Identities, Lifetimes
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import Unavailable
from arvados_nats.permissions.request_info import Holder
from arvados_nats.permissions.rule import Identity
from authcallout.admissions import fingerprint
from authcallout.connections import Connection, Connections
from authcallout.revocation import Revocation
from authcallout.token_cache import TokenCache
from sandbox.api import calls
from sandbox.api.app import ApiApp
from sandbox.model.actors import Actor
from sandbox.servers import api_server
from tests.support.waiting import until
from tests.support.worlds.permissions import FAST, PermissionWorld

MANY = 1001
"""More than the publisher answers about at once."""


async def many_tokens(here: PermissionWorld, user: Actor, number: int) -> list[str]:
    """Uuids of as many live tokens of the user."""
    connection = await asyncpg.connect(here.database.dsn)
    rows = await connection.fetch(
        "INSERT INTO api_client_authorizations"
        " (uuid, api_token, user_id, scopes, created_at, updated_at)"
        " SELECT 'zzzzz-gj3su-' || lpad(n::text, 15, '0'), 'many' || n,"
        "        (SELECT id FROM users WHERE uuid = $1), '[\"all\"]', now(), now()"
        " FROM generate_series(1, $2::int) AS n RETURNING uuid",
        user.uuid,
        number,
    )
    await connection.close()
    return [row[0] for row in rows]


async def connect_all(here: PermissionWorld, user: Actor, tokens: list[str]) -> Connections:
    """An index in which each of the tokens has a connection, with what it may have now."""
    connections = Connections(here.reader)
    held = await here.grants_cache.of(user.uuid)
    for cid, token in enumerate(tokens):
        given = fingerprint(Identity(token, user.uuid), held) or ""
        connections.add(Connection("SERVER", cid), Holder(user.uuid, token, given))
    return connections


async def test_no_number_of_tokens_is_cut_that_live(here: PermissionWorld) -> None:
    """1,001 connections that another replica admitted, and no grants changed: none is cut."""
    alice = await here.cluster.user("alice")
    tokens = await many_tokens(here, alice, MANY)
    async with (
        here.publishing(FAST, with_events=False),
        arvados_client.connect("http://127.0.0.1:1") as arvados,
    ):
        connections = await connect_all(here, alice, tokens)
        revocation = Revocation(
            connections,
            Identities(arvados, here.own),
            here.grants_cache,
            TokenCache(here.reader),
            again=0.01,
        )
        await revocation.check_all()

    assert len(connections) == MANY


async def test_who_cannot_be_asked_about_is_kept_and_asked_about_again(
    here: PermissionWorld,
) -> None:
    """While no publisher answers nobody is cut for it; then whose token is gone is."""
    alice = await here.cluster.user("alice")
    tokens = await many_tokens(here, alice, 3)
    async with arvados_client.connect("http://127.0.0.1:1") as arvados:
        grants_cache = TokenCache(here.reader)
        async with here.publishing(FAST, with_events=False):
            gone = "zzzzz-gj3su-00000000000gone"
            connections = await connect_all(here, alice, [*tokens, gone])
            revocation = Revocation(
                connections,
                Identities(arvados, here.own),
                here.grants_cache,
                grants_cache,
                again=0.01,
            )
        with pytest.raises(Unavailable):
            await grants_cache.of(tokens)
        await revocation.check_all()
        kept = len(connections)
        async with here.publishing(FAST, with_events=False):
            await until(lambda: len(connections) == 3, "the dead token is found")

    assert kept == 4


async def test_arvados_is_not_asked_again_about_a_token_in_use(here: PermissionWorld) -> None:
    """The database says again and again that it lives on as it is, so after a restart of NATS all
    are back at once; a token that has no connection is asked about anew."""
    alice, bob = await here.cluster.user("alice"), await here.cluster.user("bob")
    backend = await calls.backend(here.cluster)
    async with (
        here.publishing(FAST, with_events=False),
        api_server.run(ApiApp(backend)) as api,
        arvados_client.connect(api.url) as arvados,
    ):
        identities = Identities(arvados, here.own, lifetimes=Lifetimes(known=0, confirmed=3600))

        async def asked(actor: Actor) -> int:
            before = backend.faults.count()
            await identities.of(Token(actor.token))
            return backend.faults.count() - before

        await asked(alice)
        await asked(bob)
        connections = Connections(here.reader)
        connections.add(Connection("SERVER", 1), Holder(alice.uuid, str(alice.token_uuid), "x"))
        revocation = Revocation(connections, identities, here.grants_cache, TokenCache(here.reader))
        watching = asyncio.create_task(revocation.watch(here.reader, lambda: None))
        confirmed = identities._answers.values
        await until(lambda: any(one.confirmed for one in confirmed()), "it lives on")
        assert not await asked(alice)
        assert await asked(bob)
        await here.cluster.logout(alice)
        await until(lambda: not identities.usable().get(str(alice.token_uuid)), "it is gone")
        watching.cancel()
