# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the rules of a kind see of the unit of work that they are part of: what it reads, and what
it can write (`unit_of_work.Unit`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import asyncpg

from arvados_nats.contract.subjects import kind_of
from sandbox.model import access, records
from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.model.database import Connection
from sandbox.model.records import Record, Table


class Writer(ABC):
    """One transaction that writes as `actor`."""

    system: Actor
    ours: set[str]

    def __init__(
        self,
        connection: Connection,
        tables: Mapping[str, Table],
        config: ClusterConfig,
        actor: Actor,
    ) -> None:
        self.connection = connection
        self.tables = tables
        self.config = config
        self.actor = actor

    @contextmanager
    def acting_as(self, actor: Actor) -> Iterator[None]:
        """Be somebody else for a while; the token stays (as in Rails)."""
        was = self.actor
        self.actor = actor
        try:
            yield
        finally:
            self.actor = was

    async def where(self, kind: str, condition: str, *args: Any, **options: Any) -> list[Record]:
        """Objects whose rows meet an SQL condition; `lock=True` locks them."""
        table = self.tables[kind]
        lock = " FOR UPDATE" if options.get("lock") else ""
        query = f"SELECT * FROM {table.name} WHERE {condition}{lock}"
        return [self._loaded(table, row) for row in await self.connection.fetch(query, *args)]

    async def find(self, uuid: str | None, *, lock: bool = False) -> Record | None:
        """An object of any kind by its uuid, whoever may see it."""
        kind = kind_of(uuid)
        if kind is None or kind.name not in self.tables:
            return None
        found = await self.where(kind.name, "uuid = $1", uuid, lock=lock)
        return found[0] if found else None

    async def readable(self, kind: str, uuid: str, *, include_trash: bool = False) -> bool:
        """Whether the actor may GET the object."""
        condition = self._readable(kind, include_trash)
        return await self._is_one(self.tables[kind], uuid, condition)

    async def all_readable(self, *kinds: str, include_trash: bool = False) -> set[str]:
        """The uuids of all objects of these kinds that the actor may GET."""
        queries = [
            f"SELECT uuid FROM {self.tables[kind].name}"
            f" WHERE $1 = $1 AND {self._readable(kind, include_trash)}"
            for kind in kinds
        ]
        rows = await self.connection.fetch(" UNION ALL ".join(queries), self.actor.uuid)
        return {row[0] for row in rows}

    def _readable(self, kind: str, include_trash: bool) -> str:
        table = self.tables[kind]
        condition = access.readable(table, self.actor, self.config, include_trash=include_trash)
        if kind == "user" and not self.actor.is_admin:
            condition += " AND (users.is_active OR users.uuid = $1)"
        return condition

    async def may_refer_to(self, kind: str, uuid: str) -> bool:
        """Whether the actor may name the object in another; inactive users too."""
        table = self.tables[kind]
        return await self._is_one(table, uuid, access.readable(table, self.actor, self.config))

    async def _is_one(self, table: Table, uuid: str, condition: str) -> bool:
        query = f"SELECT true FROM {table.name} WHERE uuid = $2 AND $1 = $1 AND {condition}"
        return bool(await self.connection.fetchval(query, self.actor.uuid, uuid))

    async def can(self, action: str, uuid: str, owner: str | None = None) -> bool:
        """User#can?: may the actor read, write or manage the object?"""
        if uuid == self.actor.uuid:
            return True
        frozen = await self.is_frozen(uuid, owner)
        if action == "write" and frozen:
            return False
        if action == "unfreeze" and owner and await self.is_frozen(owner, None):
            return False
        if self.actor.is_admin:
            return True
        query, level = access.can(action)
        return bool(await self.connection.fetchval(query, self.actor.uuid, uuid, level, owner))

    async def is_frozen(self, uuid: str, owner: str | None = None) -> bool:
        """Whether the object or its owner is frozen."""
        return bool(
            await self.connection.fetchval(
                "SELECT true FROM frozen_groups WHERE uuid IN ($1, $2) LIMIT 1", uuid, owner
            )
        )

    def _loaded(self, table: Table, stored: asyncpg.Record) -> Record:
        row = table.decode(stored)
        return Record(table, row, records.copied(row))

    # What writes.

    @abstractmethod
    def leaving_modified_by(self) -> AbstractContextManager[None]: ...

    @abstractmethod
    def new(self, kind: str, given: Mapping[str, Any]) -> Record: ...

    @abstractmethod
    def new_uuid(self, table: Table) -> str: ...

    @abstractmethod
    async def create(self, kind: str, given: Mapping[str, Any], **options: Any) -> Record: ...

    @abstractmethod
    async def update(self, record: Record, **given: Any) -> Record: ...

    @abstractmethod
    async def save(self, record: Record, *, unique_name: bool = False) -> None: ...

    @abstractmethod
    async def insert_logged(self, record: Record) -> None: ...

    @abstractmethod
    async def destroy(self, record: Record) -> None: ...
