# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which connections are whose, and the means to cut them.

The index is built from the system account's CONNECT and DISCONNECT events and put right from CONNZ
now and then; the name that a connection was admitted with says all that is needed, so any replica
can cut any connection (docs/facts/nats-callout.md 2). A cut is a KICK by server and cid: the client
sees a closed TCP connection and is back within milliseconds, through a new callout.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from arvados_nats.contract import accounts
from arvados_nats.errors import ArvadosNatsError, Unavailable
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permissions.request_info import Holder, holder
from arvados_nats.permissions.rule import Identity
from authcallout import metrics
from authcallout.admissions import CONTAINER

logger = logging.getLogger(__name__)

ACCOUNTS = (accounts.USERS, accounts.REQUESTS, accounts.SENDERS, accounts.ARVADOS)

_PAGE = 1000
_RECONCILE_SECONDS = 300.0
_RECOUNT_SECONDS = 5.0
PER_CONTAINER = 100
"""Connections with the token of one container."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection of one server run."""

    server_id: str
    cid: int


class Connections:
    """The index; `follow` keeps it."""

    def __init__(self, system: Nats) -> None:
        self._system = system
        self._holders: dict[Connection, Holder] = {}
        self._of_user: defaultdict[str, set[Connection]] = defaultdict(set)
        self._alike: defaultdict[str, set[Connection]] = defaultdict(set)
        self._recounted_at = -_RECOUNT_SECONDS

    def __len__(self) -> int:
        return len(self._holders)

    def users(self) -> Collection[str]:
        """The users who have connections."""
        return self._of_user.keys()

    def tokens(self) -> Collection[str]:
        """The tokens that have connections."""
        return {owner.token_uuid for owner in self._holders.values()}

    def of_user(self, user_uuid: str) -> Iterator[tuple[Connection, Holder]]:
        """The user's connections, as far as they are known."""
        for connection in list(self._of_user.get(user_uuid, ())):
            yield connection, self._holders[connection]

    def of_token(self, token_uuid: str) -> Iterator[Connection]:
        """The token's connections, as far as they are known."""
        for connection, owner in list(self._holders.items()):
            if owner.token_uuid == token_uuid:
                yield connection

    async def room(self, identity: Identity, *, per_user: int) -> bool:
        """Whether one more connection of this user, or of this container, is not too many.

        Before anybody is refused the servers are asked: what went with one of them is not told.
        """
        most = PER_CONTAINER if identity.container_uuid else per_user
        key = identity.token_uuid if identity.container_uuid else identity.user_uuid
        if not most or len(self._alike.get(key, ())) < most:
            return True
        now = asyncio.get_running_loop().time()
        if now - self._recounted_at >= _RECOUNT_SECONDS:
            self._recounted_at = now
            await self.reconcile()
        return len(self._alike.get(key, ())) < most

    def add(self, connection: Connection, owner: Holder) -> None:
        self._remove(connection)
        self._holders[connection] = owner
        self._of_user[owner.user_uuid].add(connection)
        self._alike[_counted_as(owner)].add(connection)
        metrics.connections.set(len(self._holders))

    def _remove(self, connection: Connection) -> None:
        owner = self._holders.pop(connection, None)
        if owner is None:
            return
        _discard(self._of_user, owner.user_uuid, connection)
        _discard(self._alike, _counted_as(owner), connection)
        metrics.connections.set(len(self._holders))

    async def follow(self, compared: Callable[[], Awaitable[None]]) -> None:
        """Keep the index until cancelled; `compared` is awaited each time it is complete."""
        for account in ACCOUNTS:
            await self._system.subscribe(f"$SYS.ACCOUNT.{account}.CONNECT", self._connected)
            await self._system.subscribe(f"$SYS.ACCOUNT.{account}.DISCONNECT", self._disconnected)
        missed = asyncio.Event()
        self._system.on_change(lambda connected: missed.set() if connected else None)
        await self._system.flush()
        while True:
            missed.clear()
            try:
                await self.reconcile()
                await compared()
            except Unavailable as error:
                logger.warning(
                    "connections not compared",
                    extra={"action": "connections.reconcile", "error": str(error)},
                )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RECONCILE_SECONDS):
                    await missed.wait()  # what was told while we were away was not heard

    async def _connected(self, message: Message) -> None:
        event = json.loads(message.data)
        owner = holder(event["client"].get("user", ""))
        if owner:
            self.add(Connection(event["server"]["id"], event["client"]["id"]), owner)

    async def _disconnected(self, message: Message) -> None:
        event = json.loads(message.data)
        self._remove(Connection(event["server"]["id"], event["client"]["id"]))

    async def reconcile(self) -> None:
        """Compare with what the servers list: add what was missed, drop what is gone."""
        known = set(self._holders)
        listed: set[Connection] = set()
        async for connection, owner in self._listed():
            listed.add(connection)
            if connection not in self._holders:
                self.add(connection, owner)
        for connection in known - listed:
            self._remove(connection)

    async def _listed(self) -> AsyncIterator[tuple[Connection, Holder]]:
        """All connections of people and machines on all servers; pages are no snapshot."""
        offset, more = 0, True
        while more:
            query = {"auth": True, "limit": _PAGE, "offset": offset}
            more = False
            async for answer in self._system.request_all(
                "$SYS.REQ.SERVER.PING.CONNZ", json.dumps(query).encode()
            ):
                body = json.loads(answer.data)
                page = body.get("data", {}).get("connections") or ()
                more |= len(page) == _PAGE
                for listed in page:
                    owner = holder(listed.get("authorized_user", ""))
                    if owner and listed.get("account") in ACCOUNTS:
                        yield Connection(body["server"]["id"], listed["cid"]), owner
            offset += _PAGE

    async def cut(self, doomed: Iterable[Connection], cause: str) -> None:
        """Close these connections, side by side. That one is gone already is no fault."""
        await asyncio.gather(*(self._cut(connection, cause) for connection in doomed))

    async def _cut(self, connection: Connection, cause: str) -> None:
        owner = self._holders.get(connection)
        self._remove(connection)
        try:
            # The server ignores a KICK that nobody waits for an answer to.
            await self._system.request(
                f"$SYS.REQ.SERVER.{connection.server_id}.KICK",
                json.dumps({"cid": connection.cid}).encode(),
            )
        except ArvadosNatsError as error:
            logger.error(
                "connection not cut",
                extra={
                    "action": "connections.cut_failed",
                    "cid": connection.cid,
                    "error": str(error),
                },
            )
            return
        metrics.cut.labels(cause).inc()
        logger.info(
            "connection cut",
            extra={
                "action": "connections.cut",
                "cid": connection.cid,
                "user_uuid": owner.user_uuid if owner else None,
                "token_uuid": owner.token_uuid if owner else None,
                "cause": cause,
            },
        )


def _counted_as(owner: Holder) -> str:
    return owner.token_uuid if owner.fingerprint == CONTAINER else owner.user_uuid


def _discard(index: dict[str, set[Connection]], key: str, connection: Connection) -> None:
    index[key].discard(connection)
    if not index[key]:
        del index[key]
