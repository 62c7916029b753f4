# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Take back what a change of permission took: the connections that were let in before it.

Every replica hears of every change, drops what it remembers and only then cuts what was admitted
with older grants, since a client that is cut is back in milliseconds. A login that was being decided
meanwhile may come in with the old grants: it carries their generation in its name, so a second sweep
finds it (facts/nats-callout.md 2, races 1 to 4).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from arvados_nats.grant_book import GrantBook

from arvados_nats import subjects
from arvados_nats.identities import Identities
from arvados_nats.nats_client import Message, Nats
from arvados_nats.request_info import holder
from authcallout.callout_response import Admission
from authcallout.connections import Connection, Connections

logger = logging.getLogger(__name__)

SWEEP_AGAIN = 3.0
"""Seconds after which a login that was under way during a change is certainly in the index."""


class Revocation:
    """Reacts to changes; `admitted` is to be told of every connection that is let in here."""

    def __init__(self, connections: Connections, identities: Identities, grants: GrantBook) -> None:
        self._connections = connections
        self._identities = identities
        self._grants = grants
        self._sweeps: set[asyncio.Task[None]] = set()

    def admitted(self, connection: Connection, admission: Admission) -> None:
        """Index a connection that we let in, before the server tells of it."""
        owner = holder(admission.name)
        if owner:
            self._connections.add(connection, owner)

    async def watch(self, nats: Nats, ready: Callable[[], None]) -> None:
        """React to what the permission publisher tells, until cancelled."""
        await nats.subscribe(f"{subjects.GRANTS_CHANGED}.*", self._grants_changed)
        await nats.subscribe(f"{subjects.TOKENS_GONE}.*", self._token_gone)
        await nats.flush()
        ready()
        try:
            await nats.until_closed()
        finally:
            for sweep in self._sweeps:
                sweep.cancel()

    async def _grants_changed(self, message: Message) -> None:
        user_uuid = message.subject.rpartition(".")[2]
        generation = int(json.loads(message.data)["generation"])
        self._grants.forget(user_uuid, generation)
        await self._twice(lambda: self._cut_older(user_uuid, generation))

    async def _token_gone(self, message: Message) -> None:
        token_uuid = message.subject.rpartition(".")[2]
        self._identities.forget(token_uuid)
        await self._twice(lambda: self._cut_token(token_uuid))

    async def _cut_older(self, user_uuid: str, generation: int) -> None:
        for connection, owner in self._connections.of_user(user_uuid):
            if owner.generation < generation:
                await self._connections.cut(connection, "grants changed")

    async def _cut_token(self, token_uuid: str) -> None:
        for connection in self._connections.of_token(token_uuid):
            await self._connections.cut(connection, "token gone")

    async def _twice(self, sweep: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Sweep now, and once more for logins that were under way."""
        await sweep()

        async def later() -> None:
            await asyncio.sleep(SWEEP_AGAIN)
            await sweep()

        task = asyncio.create_task(later())
        self._sweeps.add(task)
        task.add_done_callback(self._sweeps.discard)
