# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A unit of writes: one transaction, one actor, and the steps by which an object is saved.

The steps and their order are Rails' (app/models/arvados_model.rb): what is wrong with the object
is said before what the actor may not do, and every row is logged in the writer's transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import asyncpg

from sandbox.model import attributes, audit_log, records, references
from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.model.database import Connection
from sandbox.model.records import Record, Table
from sandbox.model.refusal import Refusal, denied, not_found, raised
from sandbox.model.rules import Problems, Rules
from sandbox.model.writer import Writer


class Unit(Writer):
    """Everything one transaction needs to write as `actor`."""

    def __init__(
        self,
        connection: Connection,
        tables: Mapping[str, Table],
        rules: Mapping[str, Rules],
        config: ClusterConfig,
        actor: Actor,
        system: Actor,
    ) -> None:
        super().__init__(connection, tables, config, actor)
        self.system = system
        self._rules = rules
        self._leave_modified_by = False
        self.ours: set[str] = set()
        """Uuids that this unit gave; whoever acts need not be allowed to choose one."""

    @contextmanager
    def leaving_modified_by(self) -> Iterator[None]:
        """Keep modified_by_user_uuid as it is for a while."""
        was, self._leave_modified_by = self._leave_modified_by, True
        try:
            yield
        finally:
            self._leave_modified_by = was

    def new(self, kind: str, given: Mapping[str, Any]) -> Record:
        """An object that is not stored yet, with the attributes of a request."""
        table = self.tables[kind]
        record = Record(table, dict.fromkeys(table.columns))
        for column, empty in table.json_in_text.items():
            record[column] = empty()
        attributes.assign(record, given)
        return record

    async def create(self, kind: str, given: Mapping[str, Any], **options: Any) -> Record:
        """Make an object; `unique_name=True` changes a name that is taken already."""
        record = self.new(kind, given)
        await self.save(record, **options)
        return record

    async def update(self, record: Record, **given: Any) -> Record:
        """Change attributes of an object and save it."""
        attributes.assign(record, given)
        await self.save(record)
        return record

    async def save(self, record: Record, *, unique_name: bool = False) -> None:
        """Check, write and log the object; raises Refusal."""
        if not unique_name:
            await self._save(record)
            return
        try:
            async with self.connection.transaction():
                await self._save(record)
        except Refusal as refusal:
            if "_on_owner_uuid_and_name" not in refusal.messages[0]:
                raise
            self._rename(record)
            await self._save(record)

    def _rename(self, record: Record) -> None:
        if record.is_new:
            record["uuid"] = self.new_uuid(record.table)
            if "current_version_uuid" in record.table.columns:
                record["current_version_uuid"] = None
        record["name"] = f"{record['name'][:237]} ({record.uuid[-15:]})"

    def new_uuid(self, table: Table) -> str:
        """A random uuid for an object of the table."""
        uuid = self.config.uuid(table.kind.infix, records.random_name())
        self.ours.add(uuid)
        return uuid

    async def _save(self, record: Record) -> None:
        rules = self._rules[record.kind.name]
        problems = Problems()
        if record.is_new and "owner_uuid" in record.table.columns:
            record["owner_uuid"] = record["owner_uuid"] or self.actor.uuid
        await rules.prepare(self, record)
        references.check_uuid(self, record, problems)
        if rules.checks_references:
            await references.check(self, record, problems)
        await rules.validate(self, record, problems)
        problems.refuse()
        await rules.resolve(self, record)
        await rules.permit_save(self, record)
        await rules.permit_owner(self, record)
        self._stamp(rules, record)
        await rules.before_write(self, record)
        await (self._insert(record) if record.is_new else self._update(record))
        await rules.before_log(self, record)
        if record.is_new or rules.logs_update(record):
            await self._log("create" if record.is_new else "update", record)
        await rules.after_write(self, record)
        record.was = records.copied(record.row)

    async def insert_logged(self, record: Record) -> None:
        """Write a new row exactly as it is, and log it: no rule is asked, no time renewed."""
        await self._insert(record)
        await self._log("create", record)

    def _stamp(self, rules: Rules, record: Record) -> None:
        row, columns = record.row, record.table.columns
        if record.is_new:
            row["uuid"] = row["uuid"] or self.new_uuid(record.table)
            row["created_at"] = row["created_at"] or records.now()
        if not rules.stamps(self, record):
            return
        time = records.now()
        if "updated_at" in columns:
            row["updated_at"] = time
        if "modified_at" in columns:
            row["modified_at"] = time
        if "modified_by_user_uuid" in columns and not self._leave_modified_by:
            row["modified_by_user_uuid"] = self.actor.uuid

    async def _insert(self, record: Record) -> None:
        given = {k: v for k, v in record.row.items() if v is not None and k in record.table.columns}
        names = ", ".join(given)
        places = ", ".join(f"${n}" for n in range(1, len(given) + 1))
        query = f"INSERT INTO {record.table.name} ({names}) VALUES ({places}) RETURNING *"
        stored = await self._write(query, [record.table.encode(k, v) for k, v in given.items()])
        defaults = record.table.decode(stored)
        record.row.update({k: v for k, v in defaults.items() if k not in given})

    async def _update(self, record: Record) -> None:
        changes = [c for c in record.changes() if c in record.table.columns]
        if not changes or record.was is None:
            return
        sets = ", ".join(f"{column} = ${n}" for n, column in enumerate(changes, 2))
        query = f"UPDATE {record.table.name} SET {sets} WHERE uuid = $1 RETURNING uuid"
        values = [record.table.encode(c, record[c]) for c in changes]
        await self._write(query, [record.was["uuid"], *values])

    async def _write(self, query: str, values: list[Any]) -> asyncpg.Record:
        try:
            row = await self.connection.fetchrow(query, *values)
        except asyncpg.UniqueViolationError as error:
            text = f"PG::UniqueViolation: ERROR:  {error.message}\nDETAIL:  {error.detail}\n"
            raise raised("ActiveRecord::RecordNotUnique", text) from error
        if row is None:
            raise not_found()
        return row

    async def destroy(self, record: Record) -> None:
        """Delete the object and its links, each logged."""
        rules = self._rules[record.kind.name]
        await rules.permit_owner(self, record)
        await self._permit_destroy(rules, record)
        await rules.before_destroy(self, record)
        await self._destroy_links(record)
        query = f"DELETE FROM {record.table.name} WHERE uuid = $1"
        await self.connection.execute(query, record.uuid)
        await self._log("delete", record)
        await rules.after_destroy(self, record)

    async def _permit_destroy(self, rules: Rules, record: Record) -> None:
        config = self.config
        kept = (
            config.system_user, config.system_group, config.anonymous_group,
            config.anonymous_user, config.public_favorites,
        )  # fmt: skip
        if record.uuid in kept:
            raise denied()
        await rules.permit_save(self, record)

    async def _destroy_links(self, record: Record) -> None:
        for condition in (
            "link_class = 'permission' AND (head_uuid = $1 OR tail_uuid = $1)",
            "link_class <> 'permission' AND (head_uuid = $1 OR tail_uuid = $1)",
        ):
            for link in await self.where("link", f"{condition} ORDER BY id", record.uuid):
                await self.destroy(link)

    async def _log(self, event_type: str, record: Record) -> None:
        rules = self._rules[record.kind.name]
        if not rules.logged:
            return
        owner = await rules.logged_owner(self, record)
        await audit_log.write(
            self.connection,
            self.config,
            self.actor,
            event_type,
            record,
            owner,
            signed=not self._leave_modified_by,
        )
