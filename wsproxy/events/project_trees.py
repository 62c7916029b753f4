# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Projects at any depth below others, kept current in the order of the stream.

For subscriptions to a whole tree of projects. A tree is read from Arvados' database, by way of the
permission publisher, and follows the events of projects: a new one is in it with its next object,
and where one was moved with all that is in it the tree is read again while its followers wait. It
says nothing of who may see what.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.errors import BadInput, Unavailable
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client import grants_messages
from wsproxy.events.router import Router
from wsproxy.events.stored_event import DELETE, StoredEvent

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_uuids = msgspec.json.Decoder(list[str])

Follower = Callable[[], None]
"""Called when a tree is being read again. Never waits, never raises."""


class Tree:
    """All projects below `owners`, and these themselves."""

    def __init__(self, nats: Nats, owners: frozenset[str]) -> None:
        self.owners = owners
        self.members: set[str] = set(owners)
        self.followers: list[Follower] = []
        self._nats = nats
        self._wanted = 0
        self._loading: asyncio.Task[None] | None = None

    async def loaded(self) -> None:
        """Return when the members are those of now."""
        while self._loading is not None:
            await asyncio.wait((self._loading,))

    def reload(self) -> None:
        """Read the tree again; whoever follows it has to wait."""
        self._wanted += 1
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(), name="project tree")
        for follower in tuple(self.followers):
            follower()

    def change(self, stored: StoredEvent) -> None:
        """Follow what happened to a project."""
        event = stored.event
        uuid = event.object_uuid or ""
        inside = event.object_owner_uuid in self.members
        if uuid in self.owners or not (inside or uuid in self.members):
            return
        if self._loading is not None or event.verified is None:
            self.reload()
        elif event.event_type == DELETE:
            self.members.discard(uuid)
        elif event.event_type == "create":
            self.members.add(uuid)
        elif inside != (uuid in self.members):
            self.reload()

    def end(self) -> None:
        """Nobody follows it any more."""
        if self._loading is not None:
            self._loading.cancel()
            self._loading = None

    async def _load(self) -> None:
        done = 0
        while done != self._wanted:
            wanted = self._wanted
            try:
                self.members = {*self.owners, *await self._below()}
                done = wanted
            except (Unavailable, BadInput) as error:
                logger.warning(
                    "projects cannot be read now",
                    extra={"action": "project_trees.wait", "error": str(error)},
                )
                await asyncio.sleep(_RETRY_SECONDS)
        self._loading = None

    async def _below(self) -> set[str]:
        asked = msgspec.json.encode(sorted(self.owners))
        answer = await self._nats.request(subjects.PROJECTS_BELOW, asked)
        below = grants_messages.answer(answer.headers, answer.data, _uuids, "projects")
        return set(below)


class ProjectTrees:
    """Trees that somebody follows; those who want the same share one."""

    def __init__(self, nats: Nats, router: Router) -> None:
        self._nats = nats
        self._trees: dict[frozenset[str], Tree] = {}
        router.before_dispatch.append(self._dispatch)

    def open(self, owners: frozenset[str], follower: Follower) -> Tree:
        """A tree that is being read; `close` must follow."""
        tree = self._trees.get(owners)
        if tree is None:
            tree = self._trees[owners] = Tree(self._nats, owners)
            tree.reload()
        tree.followers.append(follower)
        return tree

    def close(self, tree: Tree, follower: Follower) -> None:
        """One follower less."""
        tree.followers.remove(follower)
        if not tree.followers:
            del self._trees[tree.owners]
            tree.end()

    def _dispatch(self, stored: StoredEvent) -> None:
        if not self._trees or stored.kind is None or stored.kind.name != "group":
            return
        if stored.event.verified is not False:
            for tree in tuple(self._trees.values()):
                tree.change(stored)
