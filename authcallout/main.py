# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Answer NATS auth callouts for Arvados tokens, and cut connections whose permission is gone."""

from __future__ import annotations

import asyncio
from functools import partial

from arvados_nats.arvados.identities import Identities
from arvados_nats.arvados.tokens import Token
from arvados_nats.nats.responder import IN_TURN
from arvados_nats.permission_client.grants_cache import GrantsCache
from arvados_nats.permission_client.own_tokens import OwnTokens
from arvados_nats.permissions.request_info import holder
from arvados_nats.permissions.rule import Identity
from arvados_nats.service import ops, publisher_health
from arvados_nats.service.arvados_health import ArvadosHealth
from arvados_nats.service.ops import STARTING, Health
from authcallout import whoami
from authcallout.callout import Callout, LoginLimits
from authcallout.callout_response import Admission
from authcallout.connections import Connection, Connections
from authcallout.desk import Desk
from authcallout.keyring import Keyring
from authcallout.login_health import LoginHealth
from authcallout.revocation import Revocation
from authcallout.settings import Settings
from authcallout.token_cache import TokenCache

_PARTS = ("callouts", "connections", "revocation")


async def main(settings: Settings) -> None:
    """Run until cancelled. Logins are answered once the index and the change feed are followed."""
    health = Health({**dict.fromkeys(_PARTS, STARTING), "nats": "not connected yet"})
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(
            ops.serve(settings.ops_listen, health, settings.management_secret)
        )
        try:
            await _serve(settings, health)
        finally:
            serving.cancel()


async def _serve(settings: Settings, health: Health) -> None:
    keyring = Keyring(settings.keys_dir)
    servers, watched, logins = settings.nats_servers, ArvadosHealth(health), LoginHealth(health)
    async with (
        settings.connect_nats("authcallout", "callout") as auth,
        settings.connect_nats("authcallout-service", "callout-service") as service,
        settings.connect_nats("authcallout-requests", "callout-service", IN_TURN) as requests,
        settings.connect_nats("authcallout-sys", "sys") as system,
        settings.connect_arvados(ended=watched.ended) as arvados,
        asyncio.TaskGroup() as tasks,
    ):
        health.well("nats")
        named = {"auth": auth, "service": service, "requests": requests, "system": system}
        for name, nats in named.items():
            nats.on_change(partial(_connection_changed, health, f"nats, {name}"))
        own = OwnTokens(arvados.cluster_id, service)
        identities = Identities(arvados, own, calls=settings.arvados_calls)
        grants, tokens, connections = GrantsCache(service), TokenCache(service), Connections(system)
        limit, gains = settings.callout_patterns, settings.callout_gain_seconds

        def admitted(
            connection: Connection, token: Token, identity: Identity, admission: Admission
        ) -> None:
            tokens.learn(identity, token)
            if owner := holder(admission.name):
                connections.add(connection, owner)

        async def undecided(connection: Connection) -> None:
            await connections.cut([connection], "not decided")

        decider = Callout(
            identities,
            grants,
            limits=LoginLimits(budget=settings.callout_budget, patterns=limit),
            admitted=admitted,
            room=partial(connections.room, per_user=settings.max_connections_per_user),
            made_for_a_machine=keyring.made_for_a_machine,
        )
        at_once = settings.callout_at_once
        desk = Desk(auth, decider, keyring, logins.outcome, undecided, at_once=at_once)
        revocation = Revocation(connections, identities, grants, tokens, limit=limit, gains=gains)

        async def complete() -> None:
            await revocation.check_all()
            health.well("connections")

        def ready() -> None:
            health.well("callouts")
            tasks.create_task(logins.probe(servers, settings.nats_ca_file))

        tasks.create_task(watched.probe(arvados))
        tasks.create_task(publisher_health.probe(service, own, health))
        tasks.create_task(connections.follow(complete))
        tasks.create_task(revocation.watch(service, lambda: health.well("revocation")))
        tasks.create_task(whoami.answer(requests, grants, tokens, limit))
        tasks.create_task(desk.serve(ready))


def _connection_changed(health: Health, part: str, connected: bool) -> None:
    if connected:
        health.well(part)
    else:
        health.fault(part, "no connection")
