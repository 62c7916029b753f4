# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What differs from kind to kind when an object is saved or destroyed: hooks, all empty here.

The order in which `Unit` calls them is Rails': prepare, validate, resolve, permit, (stamp,
`before_write`), write, log, `after_write`. A kind's rules override what it needs.
"""

from __future__ import annotations

from sandbox.model import owners
from sandbox.model.records import Record
from sandbox.model.refusal import denied, invalid
from sandbox.model.writer import Writer


class Problems:
    """Validation messages of one object, in the order found."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def add(self, attribute: str, message: str) -> None:
        """Say what is wrong with an attribute, with its name made readable as Rails does."""
        self.messages.append(f"{humanized(attribute)} {message}")

    def refuse(self) -> None:
        """Refuse with everything that was found (422), if anything was."""
        if self.messages:
            raise invalid(*self.messages)


def humanized(attribute: str) -> str:
    """`owner_uuid` is shown as `Owner uuid`."""
    return attribute.replace("_", " ").capitalize()


class Rules:
    """The rules of a kind that has none of its own."""

    checks_references = True
    """Whether objects named by `*_uuid` columns must exist."""
    logged = True
    """Whether changes of this kind are logged at all."""

    async def prepare(self, unit: Writer, record: Record) -> None:
        """Fill defaults and derived values before anything is checked."""

    async def validate(self, unit: Writer, record: Record, problems: Problems) -> None:
        """Add what is wrong with the object."""

    async def resolve(self, unit: Writer, record: Record) -> None:
        """Do what belongs to a valid object before it is written."""

    async def permit_save(self, unit: Writer, record: Record) -> None:
        """May the actor create or update objects of this kind at all?"""
        if not unit.actor.is_active:
            raise denied()

    async def permit_owner(self, unit: Writer, record: Record) -> None:
        """May the actor write the old and the new owner, or the object itself?"""
        await owners.permit(unit, record)

    async def before_write(self, unit: Writer, record: Record) -> None:
        """Just before an existing row is changed."""

    async def before_log(self, unit: Writer, record: Record) -> None:
        """After the row is written, before it is logged."""

    async def after_write(self, unit: Writer, record: Record) -> None:
        """After the row is written and logged; `record.was` still holds the old row."""

    async def before_destroy(self, unit: Writer, record: Record) -> None:
        """Before the object's links and the row itself go."""

    async def after_destroy(self, unit: Writer, record: Record) -> None:
        """After the row is gone and logged."""

    def stamps(self, unit: Writer, record: Record) -> bool:
        """Whether this save renews modified_at and modified_by_user_uuid."""
        return record.is_new or bool(record.changes())

    def logs_update(self, record: Record) -> bool:
        """Arvados logs an update even when nothing changed."""
        return True

    async def logged_owner(self, unit: Writer, record: Record) -> str | None:
        """The owner as log rows name it."""
        owner: str | None = record.row.get("owner_uuid")
        return owner
