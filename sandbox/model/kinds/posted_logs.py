# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Log rows that users post: anybody may, with almost anything in them
(docs/facts/arvados.md 0.3)."""

from __future__ import annotations

from sandbox.model import audit_log, owners, records
from sandbox.model.records import Record
from sandbox.model.refusal import denied
from sandbox.model.rules import Rules
from sandbox.model.writer import Writer


class LogRules(Rules):
    """app/models/log.rb: no references are checked, posting needs no active user."""

    checks_references = False
    logged = False

    async def prepare(self, unit: Writer, record: Record) -> None:
        """Now, unless the poster says when."""
        record["event_at"] = record["event_at"] or records.now()

    async def permit_save(self, unit: Writer, record: Record) -> None:
        """Only admins change rows that are there."""
        if not record.is_new and not unit.actor.is_admin:
            raise denied()

    async def permit_owner(self, unit: Writer, record: Record) -> None:
        """The owner must be writable for the poster."""
        if record.is_new or record.changed("owner_uuid"):
            await owners.permit(unit, record)

    async def after_write(self, unit: Writer, record: Record) -> None:
        """Each save tells the channel again, with the same id."""
        await audit_log.notify(unit.connection, record["id"])
