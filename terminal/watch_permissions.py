# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Follow what a token may subscribe to on NATS.

The server cuts a connection whose permissions change, and the client comes back with others: so a
connection that is there shows every change.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from arvados_nats import arvados_client
from arvados_nats.errors import ArvadosNatsError, Refused, Unavailable
from arvados_nats.nats_client import Nats
from terminal import nats_login
from terminal.arvados_settings import ArvadosSettings
from terminal.nats_login import Holder
from terminal.watch import Watch


class PermissionChange(msgspec.Struct, frozen=True):
    """Subjects that may be subscribed to from now on, and no longer."""

    at: str
    account: str
    gained: tuple[str, ...]
    lost: tuple[str, ...]


async def watch_permissions(watch: Watch, nats_url: str) -> None:
    """Show what the token may subscribe to, and each change, until it is let in no more.

    Then raises Refused with the most likely reason.
    """
    who = await _holder(watch.settings)
    async with nats_login.login(nats_url, watch.settings.token, who) as nats:
        connection = asyncio.Event()
        connection.set()
        nats.on_change(lambda _: connection.set())
        showing = asyncio.create_task(_show(watch, nats, who, connection))
        try:
            await nats.until_closed()
        except Unavailable as error:
            raise Refused(await _why_ended(watch.settings)) from error
        finally:
            showing.cancel()


async def _show(watch: Watch, nats: Nats, who: Holder, connection: asyncio.Event) -> None:
    before: frozenset[str] | None = None
    while True:
        await connection.wait()
        connection.clear()
        await nats.until_connected()
        try:
            granted = await nats_login.granted(nats, watch.settings.token, who)
        except Unavailable:
            continue  # cut again meanwhile, which is told
        now = frozenset(granted.subscribe)
        change = PermissionChange(
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            granted.account,
            tuple(sorted(now - (before or frozenset()))),
            tuple(sorted((before or frozenset()) - now)),
        )
        if before is None or change.gained or change.lost:
            watch.show(_lines(change), change)
        before = now


def _lines(change: PermissionChange) -> list[str]:
    gained = [f"{change.at} + {subject}" for subject in change.gained]
    return gained + [f"{change.at} - {subject}" for subject in change.lost]


async def _holder(settings: ArvadosSettings) -> Holder:
    async with arvados_client.connect(
        settings.url, ca_file=settings.ca_file, insecure=settings.insecure
    ) as arvados:
        return await nats_login.holder(arvados, settings.token)


async def _why_ended(settings: ArvadosSettings) -> str:
    try:
        who = await _holder(settings)
    except ArvadosNatsError as error:
        return str(error)
    return f"NATS lets the token in no more: {nats_login.why_refused(who, 0)}"
