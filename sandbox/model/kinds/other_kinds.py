# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The kinds with few rules of their own: workflows, credentials, keys, virtual machines."""

from __future__ import annotations

from typing import Any

from sandbox.model.kinds import groups
from sandbox.model.records import Record
from sandbox.model.refusal import denied, raised
from sandbox.model.rules import Problems, Rules
from sandbox.model.writer import Writer


class WorkflowRules(Rules):
    """app/models/workflow.rb."""

    async def validate(self, unit: Writer, record: Record, problems: Problems) -> None:
        """Not linked to a collection by hand."""
        if record["collection_uuid"] is not None and record.changed("collection_uuid"):
            problems.add("collection_uuid", "must be null")


class CredentialRules(Rules):
    """app/models/credential.rb: belongs to the system, managed by who made it."""

    def __init__(self) -> None:
        self._managers: dict[str, str] = {}

    async def prepare(self, unit: Writer, record: Record) -> None:
        """No scopes is an empty list."""
        if record["scopes"] is None:
            record["scopes"] = []

    async def validate(self, unit: Writer, record: Record, problems: Problems) -> None:
        """What a credential cannot do without."""
        for column in ("name", "credential_class", "external_id", "secret", "expires_at"):
            if not record[column]:
                problems.add(column, "can't be blank")

    async def permit_owner(self, unit: Writer, record: Record) -> None:
        """The maker becomes manager by a link."""
        if record.is_new:
            record["uuid"] = record["uuid"] or unit.new_uuid(record.table)
            self._managers[record.uuid] = record["owner_uuid"]
            record["owner_uuid"] = unit.config.system_user
        elif record["owner_uuid"] != unit.config.system_user:
            raise raised("RuntimeError", "Owner uuid for credential must be system user")
        elif not await unit.can("write", record.uuid, record["owner_uuid"]):
            raise denied(f"Uuid  {record.uuid} is not writable by {unit.actor.uuid}")

    async def after_write(self, unit: Writer, record: Record) -> None:
        """The link of who made it."""
        manager = self._managers.pop(record.uuid, None)
        if manager:
            with unit.acting_as(unit.system):
                await unit.create("link", groups.manage_link(manager, record.uuid))


class AuthorizedKeyRules(Rules):
    """app/models/authorized_key.rb."""

    async def permit_save(self, unit: Writer, record: Record) -> None:
        """One's own keys, or an admin's business."""
        await super().permit_save(unit, record)
        if not unit.actor.is_admin and record["authorized_user_uuid"] != unit.actor.uuid:
            raise denied()


class VirtualMachineRules(Rules):
    """app/models/virtual_machine.rb: an admin's business."""

    async def permit_save(self, unit: Writer, record: Record) -> None:
        """Admins only."""
        if not unit.actor.is_admin:
            raise denied()


DDL = """
CREATE TABLE IF NOT EXISTS authorized_keys (
  id bigserial PRIMARY KEY, uuid varchar(255) NOT NULL UNIQUE, owner_uuid varchar(255) NOT NULL,
  modified_by_client_uuid varchar(255), modified_by_user_uuid varchar(255),
  modified_at timestamp, name varchar(255), key_type varchar(255),
  authorized_user_uuid varchar(255), public_key text, expires_at timestamp,
  created_at timestamp NOT NULL, updated_at timestamp NOT NULL);
CREATE TABLE IF NOT EXISTS virtual_machines (
  id bigserial PRIMARY KEY, uuid varchar(255) NOT NULL UNIQUE, owner_uuid varchar(255) NOT NULL,
  modified_by_client_uuid varchar(255), modified_by_user_uuid varchar(255),
  modified_at timestamp, hostname varchar(255),
  created_at timestamp NOT NULL, updated_at timestamp NOT NULL);
"""
"""Two tables that golden/schema.json leaves out, with the columns that log rows show of them."""


def all_rules() -> dict[str, Any]:
    """One object of rules per kind named in this module."""
    return {
        "workflow": WorkflowRules(),
        "credential": CredentialRules(),
        "authorized_key": AuthorizedKeyRules(),
        "virtual_machine": VirtualMachineRules(),
    }
