# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Follow what a token may subscribe to on NATS.

The server cuts a connection whose permissions change, and the client comes back with others: so a
connection that listens shows every change, and what it is comes over one that asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec

from arvados_nats.commands import nats_login
from arvados_nats.commands.nats_login import Granted
from arvados_nats.commands.watch.events import Watch
from arvados_nats.errors import BadInput, Unavailable
from arvados_nats.nats.client import Nats

_BACK_SECONDS = 5.0
"""A client whose permissions changed is back sooner."""


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
    who = await nats_login.holder_of(watch.settings)
    before: frozenset[str] | None = None
    token = watch.settings.token
    async with (
        nats_login.login(nats_url, token, who) as nats,
        nats_login.login(nats_url, token, who, asks=True) as asking,
    ):
        changed = asyncio.Event()
        nats.on_change(lambda _: changed.set())
        while True:
            await _connected(watch, nats)
            changed.clear()
            try:
                granted = await nats_login.ask(asking, token, who)
            except Unavailable:
                continue  # cut again meanwhile
            before = _tell(watch, granted, before)
            await changed.wait()


async def _connected(watch: Watch, nats: Nats) -> None:
    """Wait until the connection stands; Refused if the token is why it does not."""
    while True:
        try:
            async with asyncio.timeout(_BACK_SECONDS):
                return await nats.until_connected()
        except TimeoutError:
            with contextlib.suppress(Unavailable, BadInput):
                await nats_login.holder_of(watch.settings)
            watch.notes.tell("NATS lets nobody in now; trying again")


def _tell(watch: Watch, granted: Granted, before: frozenset[str] | None) -> frozenset[str]:
    """Show the difference, and all at first; what there is now."""
    now, was = frozenset(granted.subscribe), before or frozenset()
    if before is None or now != was:
        change = PermissionChange(
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            granted.account,
            tuple(sorted(now - was)),
            tuple(sorted(was - now)),
        )
        watch.show(_lines(change), change)
    return now


def _lines(change: PermissionChange) -> list[str]:
    gained = [f"{change.at} + {subject}" for subject in change.gained]
    return gained + [f"{change.at} - {subject}" for subject in change.lost]
