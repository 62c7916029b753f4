# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Carry events and logs from NATS to sockets: open what is shared, serve, and drain at the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NoReturn

from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.identities import Identities
from arvados_nats.errors import ConfigError
from arvados_nats.nats.client import Nats
from arvados_nats.nats.responder import IN_TURN
from arvados_nats.permission_client.grants_cache import GrantsCache
from arvados_nats.permission_client.own_tokens import OwnTokens
from arvados_nats.service import http_server, ops, publisher_health
from arvados_nats.service.arvados_health import ArvadosHealth
from arvados_nats.service.ops import Health
from wsproxy import metrics
from wsproxy.app import App
from wsproxy.cursors import Codec
from wsproxy.events.event_source import EventSource
from wsproxy.events.permission_check import PermissionCheck
from wsproxy.events.record_check import RecordCheck
from wsproxy.events.router import Router
from wsproxy.events.row_positions import RowPositions
from wsproxy.logins.logins import Logins
from wsproxy.logins.readable import Readable
from wsproxy.logins.whereabouts import Whereabouts
from wsproxy.logs.hubs import LogHubs
from wsproxy.native_api.answers import Answers
from wsproxy.native_api.events import NativeEvents
from wsproxy.native_api.logs import NativeLogs
from wsproxy.native_api.objects import NativeObjects
from wsproxy.native_api.requests import NativeApi
from wsproxy.objects.hub import ObjectHubs
from wsproxy.page import site
from wsproxy.services import Events, Services, Transport
from wsproxy.settings import Settings
from wsproxy.transport import gc_tuning
from wsproxy.transport.connections import Connections
from wsproxy.transport.limits import Tally
from wsproxy.transport.send_buffers import SendBuffers
from wsproxy.transport.websocket import Socket
from wsproxy.v0.connection import MAX_MESSAGE

_NATS, _LIFE = "nats", "wsproxy"
_START_SECONDS = 5.0
"""How long connections wait at the start for the event stream before they are sent away."""
_ORIGINS_SECONDS = 2.0
"""And for Arvados to tell whose pages may connect."""
_SEED_SECONDS = 2.0
"""Between two looks whether wsproxy's key is another one."""

SERVER_OPTIONS: dict[str, Any] = {
    "ws": Socket,
    "ws_max_size": MAX_MESSAGE,
}
"""What uvicorn must be told for `transport.websocket`."""


def cursor_keys(settings: Settings) -> list[bytes]:
    """What cursors are sealed with, and what else they may have been sealed with."""
    return [settings.seed("wsproxy").encode(), *settings.seeds_beside("wsproxy")]


async def _follow_seed(settings: Settings, cursors: Codec) -> NoReturn:
    while True:
        await asyncio.sleep(_SEED_SECONDS)
        with contextlib.suppress(ConfigError):  # whoever logs in to NATS with it says so
            cursors.renew(*cursor_keys(settings))


def services(
    settings: Settings, nats: Nats, arvados: Arvados, own: OwnTokens, health: Health
) -> Services:
    """All that connections share, not yet running."""
    router, record_check = Router(), RecordCheck(arvados, settings.max_calls)
    grants = GrantsCache(nats)
    source = EventSource(nats, router, health, grants.now)
    whereabouts = Whereabouts(nats, router, grants.now)
    cursors = Codec(*cursor_keys(settings))
    logs = LogHubs(nats, arvados, health)
    places = RowPositions(nats, source.recent)
    logins = Logins(
        nats,
        Identities(arvados, own, calls=settings.max_calls),
        grants,
        router,
        PermissionCheck(record_check),
        settings.limits,
    )
    transport = Transport(
        SendBuffers(settings.queue_budget),
        Connections(),
        settings.limits,
        Tally(settings.limits),
        send_timeout=settings.send_timeout,
        silent_seconds=settings.silent_seconds,
        max_age=settings.max_age,
        allowed_origins={origin.lower() for origin in settings.allowed_origins},
    )
    metrics.queue_cap.set(settings.queue_budget)
    return Services(
        nats=nats,
        arvados=arvados,
        events=Events(source, router, places),
        logs=logs,
        objects=ObjectHubs(source, nats, arvados),
        logins=logins,
        grants=grants,
        whereabouts=whereabouts,
        readable=Readable(record_check, whereabouts),
        cursors=cursors,
        answers=Answers(
            NativeEvents(nats, source, cursors),
            NativeLogs(nats, logs.stored),
            NativeObjects(nats, source, cursors),
        ),
        transport=transport,
    )


def _own_options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {"trusted_proxies": settings.trusted_proxies}
    if settings.tls_certificate and settings.tls_key:
        options["ssl_certfile"] = str(settings.tls_certificate)
        options["ssl_keyfile"] = str(settings.tls_key)
    return options


@asynccontextmanager
async def running(settings: Settings, health: Health) -> AsyncIterator[Services]:
    """The shared parts, at work; they end when the context does."""
    watched = ArvadosHealth(health)
    async with (
        settings.connect_nats("wsproxy", "wsproxy") as nats,
        # What users ask must not stand before what all readers hear.
        settings.connect_nats("wsproxy-requests", "wsproxy", IN_TURN) as requests,
        settings.connect_arvados(
            connections=2 * settings.max_calls, ended=watched.ended
        ) as arvados,
        asyncio.TaskGroup() as tasks,
    ):
        nats.on_change(partial(_connection_changed, health, _NATS))
        requests.on_change(partial(_connection_changed, health, f"{_NATS}, requests"))
        own = OwnTokens(arvados.cluster_id, nats)
        shared = services(settings, nats, arvados, own, health)
        background = [
            tasks.create_task(part)
            for part in (
                nats.until_closed(),
                requests.until_closed(),
                watched.probe(arvados),
                shared.events.source.run(),
                shared.logins.run(),
                shared.whereabouts.run(),
                shared.logs.run(),
                NativeApi(requests, nats, own, shared.grants, shared.answers).serve(),
                publisher_health.probe(nats, own, health),
                _follow_seed(settings, shared.cursors),
                shared.transport.connections.run(),
                shared.transport.send_buffers.watch(cut=_count_cut, queued=metrics.queue_len.set),
            )
        ]
        learning = tasks.create_task(site.learn_origins(arvados, shared.transport.allowed_origins))
        background.append(learning)
        try:
            # Pages come once; where Arvados does not answer, nobody is let in anyway.
            await asyncio.wait([learning], timeout=_ORIGINS_SECONDS)
            yield shared
        finally:
            for task in background:
                task.cancel()


def _connection_changed(health: Health, part: str, connected: bool) -> None:
    if connected:
        health.well(part)
    else:
        health.fault(part, "not connected")


def _count_cut(number: int) -> None:
    metrics.cut_sockets.labels("stuck").inc(number)


async def serve(
    settings: Settings,
    sock: socket.socket | None = None,
    ready: Callable[[Services], None] = lambda _: None,
) -> None:
    """Serve until cancelled; then drain, and stop. Without NATS nothing but health answers."""
    health, secret = Health({_LIFE: "starting"}), settings.management_secret
    async with asyncio.TaskGroup() as tasks:
        operations = tasks.create_task(ops.serve(settings.ops_listen, health, secret))
        async with running(settings, health) as shared:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_START_SECONDS):
                    await shared.events.source.ready.wait()
            options = {**SERVER_OPTIONS, **_own_options(settings)}
            leisure, full = settings.leisure_seconds, asyncio.Event()
            listening = sock or http_server.listen(settings.listen, shared=leisure > 0)
            serving = tasks.create_task(
                http_server.serve(App(shared, health, secret), listening, full=full, **options)
            )
            health.well(_LIFE)
            ready(shared)
            try:
                await asyncio.Event().wait()
            finally:
                health.faults[_LIFE] = ops.STOPPING
                if leisure:
                    full.set()
                    with contextlib.suppress(asyncio.CancelledError):
                        await shared.transport.connections.linger(leisure)
                await shared.transport.connections.drain(settings.drain_seconds)
                serving.cancel()
                operations.cancel()
                await asyncio.wait((serving,))


async def main(settings: Settings) -> None:
    """Run wsproxy until cancelled."""
    await serve(
        settings, ready=lambda shared: gc_tuning.collect_seldom(shared.transport.connections)
    )
