# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Keep the grants of connected readers up to date, and tell what each of them lost and gained.

Changes are heard of on `arvados.grants.changed.<user>`. Core NATS may lose a message, and a
publisher that starts knows nobody, so every user in use is asked about again at intervals and
whenever a publisher takes over; that question is also what makes publishers watch the user.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from itertools import islice
from typing import NoReturn

from arvados_nats.contract import subjects
from arvados_nats.errors import BadInput, Unavailable
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client import grants_messages
from arvados_nats.permission_client.grants_cache import GrantsCache
from arvados_nats.permissions.grant_subjects import Change
from arvados_nats.permissions.grants import Grants

logger = logging.getLogger(__name__)

_RETRY = 1.0
_AT_ONCE = 50
"""Users of a round in one question."""

Moved = Callable[[Change, Grants], Awaitable[None]]
"""Told what a user lost and gained since it was last told, and the grants that hold now."""


async def follow(
    nats: Nats,
    grants_cache: GrantsCache,
    in_use: Callable[[], Collection[str]],
    moved: Moved,
    ready: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Run until cancelled. `in_use` gives the users with readers connected, looked at often."""
    due: set[str] = set()
    round_: set[str] = set()  # who have heard of no change wait for who have
    wake = asyncio.Event()

    def changed(user_uuid: str) -> None:
        if user_uuid in in_use():
            due.add(user_uuid)
            wake.set()

    def again() -> None:
        round_.update(in_use())
        wake.set()

    await hear(nats, grants_cache, changed, again)
    await nats.flush()
    ready()
    next_round = 0.0
    while True:
        if time.monotonic() >= next_round:
            next_round = time.monotonic() + grants_cache.refresh
            round_.update(in_use())
            grants_cache.drop_unused(in_use())
        users = [*due] or [*islice(round_, _AT_ONCE)]
        due.clear()
        round_.difference_update(users)
        pause = 0.0 if round_ else next_round - time.monotonic()
        wake.clear()
        if not await _renew(grants_cache, users, moved):
            round_.update(users)
            pause = min(next_round - time.monotonic(), _RETRY)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(pause, 0)):
                await wake.wait()


async def hear(
    nats: Nats,
    grants_cache: GrantsCache,
    changed: Callable[[str], None],
    again: Callable[[], None],
) -> None:
    """From now on `changed` is told each user whose grants changed, after the cache; `again`, that
    changes of anybody may have gone unheard."""

    async def told(message: Message) -> None:
        user_uuid = message.subject.rpartition(".")[2]
        grants_cache.forget(user_uuid, *grants_messages.told(message.data))
        changed(user_uuid)

    async def started(_: Message) -> None:
        grants_cache.begin_anew()
        again()

    def connection_changed(connected: bool) -> None:
        if connected:
            again()

    nats.on_change(connection_changed)
    await nats.subscribe(f"{subjects.GRANTS_CHANGED}.*", told)
    await nats.subscribe(subjects.GRANTS_STARTED, started)


async def _renew(grants_cache: GrantsCache, users: list[str], moved: Moved) -> bool:
    try:
        await grants_cache.renew(users)
    except (Unavailable, BadInput) as error:
        logger.warning(
            "grants not renewed",
            extra={"action": "grants.stale", "users": len(users), "error": str(error)},
        )
        return False
    for user in users:
        if change := grants_cache.take_change(user):
            await moved(change, grants_cache.held(user) or Grants(user))
    return True
