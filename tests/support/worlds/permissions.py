# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A pretend cluster, event and permission publishers, and somebody who hears what they tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client import tokens_watch
from arvados_nats.permission_client.grants_cache import GrantsCache
from arvados_nats.permission_client.grants_messages import GrantsChanged, TokenGone
from arvados_nats.permission_client.own_tokens import OwnTokens
from arvados_nats.permissions.grants import Grants
from arvados_nats.service import keys
from arvados_nats.service.ops import Health
from publishers.events import publisher as events
from publishers.permissions import publisher as permissions
from publishers.postgres import database as postgres
from sandbox.cluster import Cluster, open_cluster
from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.background import background
from tests.support.waiting import until
from tests.support.worlds.events import QUICK

SLOW = permissions.Options(round=3600, sweep=3600)
"""Nothing is found by the clock, so that what is told was noticed by events and timers."""
FAST = permissions.Options(round=0.3, sweep=0.2)


class PermissionWorld:
    """What the tests of the permission publisher stand on; get it from `world`."""

    def __init__(
        self, cluster: Cluster, nats: Nats, reader: Nats, database: Database, canary: Actor
    ) -> None:
        self.cluster = cluster
        self.nats = nats
        self.reader = reader
        self.database = database
        self.own = OwnTokens(self._cluster_id, reader)
        self.health = Health()
        self.grants_cache = GrantsCache(reader, refresh=3600)
        self.changed: list[GrantsChanged] = []
        self.gone: list[TokenGone] = []
        self.starts = 0
        self.canary = canary
        self._settled = 0

    async def _cluster_id(self) -> str:
        return self.cluster.config.cluster_id

    async def listen(self) -> None:
        """Hear all that is told from now on."""

        async def changed(message: Message) -> None:
            told = msgspec.json.decode(message.data, type=GrantsChanged)
            assert message.subject == subjects.grants_changed(told.user_uuid)
            self.grants_cache.forget(told.user_uuid, told.generation)
            self.changed.append(told)

        async def gone(message: Message) -> None:
            told = msgspec.json.decode(message.data, type=TokenGone)
            assert message.subject == subjects.token_gone(told.token_uuid)
            self.gone.append(told)

        async def started(_: Message) -> None:
            self.starts += 1

        await self.reader.subscribe(f"{subjects.GRANTS_CHANGED}.*", changed)
        await self.reader.subscribe(f"{subjects.TOKENS_GONE}.*", gone)
        await self.reader.subscribe(subjects.GRANTS_STARTED, started)
        await self.reader.flush()

    @asynccontextmanager
    async def publishing(
        self, options: permissions.Options = SLOW, *, leads: bool = True, with_events: bool = True
    ) -> AsyncIterator[None]:
        """A replica of the publishers; with `leads` it leads when the body begins."""
        ready = asyncio.Event()
        async with postgres.connect(self.database.reader_dsn, size=6) as database:
            work = [permissions.run(self.nats, database, self.health, options, ready=ready.set)]
            if with_events:
                quick = events.Options(scans=QUICK)
                work.append(events.run(self.nats, database, self.health, quick))
            async with background(*work):
                if leads:
                    await asyncio.wait_for(ready.wait(), 60)
                yield

    async def watch(self, *users: Actor) -> dict[str, Grants]:
        """Rely on these users' grants, and on the canary's, as a service does for its readers."""
        everybody = [*users, self.canary]
        found = {user.uuid: await self.grants_cache.of(user.uuid) for user in everybody}
        await self.settled()
        return found

    async def ask(self, *holders: Actor | str) -> None:
        """Ask about these tokens, as a service does for those that it has let in."""
        named = [one if isinstance(one, str) else str(one.token_uuid) for one in holders]
        await tokens_watch.live(self.reader, named)

    async def use(self, *holders: Actor | str) -> None:
        """Ask about these tokens, and wait for the look that finds them."""
        witness = await self.cluster.token(self.canary)
        await self.ask(*holders, witness)
        await self.cluster.logout(witness)
        await self.nats.publish(event_of(witness))

        def told() -> bool:
            return any(gone.token_uuid == witness.token_uuid for gone in self.gone)

        await until(told, "the witness is told gone")
        self.gone = [gone for gone in self.gone if gone.token_uuid != witness.token_uuid]

    async def settled(self) -> None:
        """Everything that was done before has been told: a later change is."""
        self._settled += 1
        before = len(self._told_about(self.canary))
        cage = await self.cluster.project(f"canary {self._settled}", owner=self.cluster.root)
        await self.cluster.share(cage, self.canary)
        await until(
            lambda: len(self._told_about(self.canary)) > before, "the canary's change is told"
        )
        await self.grants_cache.of(self.canary.uuid)

    async def told(self, *users: Actor) -> set[str]:
        """Wait until these users' changes are told; whose were, up to a change made afterwards."""
        await until(
            lambda: {user.uuid for user in users} <= {c.user_uuid for c in self.changed},
            f"changes of {len(users)} users are told, not only {self.changed}",
        )
        await self.settled()
        return {c.user_uuid for c in self.changed} - {self.canary.uuid}

    def forget(self) -> None:
        """Begin to listen anew."""
        self.changed.clear()
        self.gone.clear()

    def _told_about(self, user: Actor) -> list[GrantsChanged]:
        return [change for change in self.changed if change.user_uuid == user.uuid]


def event_of(holder: Actor) -> str:
    """The subject of an event of a token, which makes the sweep look."""
    return f"{subjects.STORED_EVENTS}.api_client_authorization.{holder.token_uuid}.update"


def uuids(users: Iterable[Actor]) -> set[str]:
    return {user.uuid for user in users}


@asynccontextmanager
async def world(
    database: Database,
    server: NatsServer,
    keys_folder: Path,
    config: ClusterConfig | None = None,
) -> AsyncIterator[PermissionWorld]:
    """A world over running servers; no publisher runs in it yet."""
    publisher = keys.load(keys_folder, "publisher").text
    wsproxy = keys.load(keys_folder, "wsproxy").text
    async with (
        open_cluster(database.dsn, config) as cluster,
        nats_client.connect([server.url], name="publishers", seed=publisher) as nats,
        nats_client.connect([server.url], name="reader", seed=wsproxy) as reader,
    ):
        made = PermissionWorld(cluster, nats, reader, database, await cluster.user("canary"))
        await made.listen()
        yield made
