# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The write methods of the pretend cluster, the same on a cluster and inside one transaction.

Every method takes the acting user; `Cluster` opens a transaction per call, a `Transaction`
writes in the one that is open. Objects come back as `Record`; refusals are raised as `Refusal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from sandbox.model import presentation
from sandbox.model.actors import Actor
from sandbox.model.crunch import containers
from sandbox.model.kinds import links, trash, user_merge, users
from sandbox.model.records import Record, Row, kind_named
from sandbox.model.refusal import denied, not_found
from sandbox.model.unit_of_work import Unit

Named = Record | Actor | str
"""An object, by itself or by its uuid."""
_TRASHABLE = ("group", "collection")


def uuid_of(named: Named) -> str:
    """The uuid of an object that is given by itself or by its uuid."""
    return named if isinstance(named, str) else named.uuid


class Writes:
    """What can be written to a cluster."""

    def unit(self, actor: Actor) -> AbstractAsyncContextManager[Unit]:
        """A unit of writes for the actor."""
        raise NotImplementedError

    async def create(
        self, kind: str, given: Mapping[str, Any], actor: Actor, *, unique_name: bool = False
    ) -> Record:
        """POST of an object; `kind` is a singular or plural REST name."""
        name = kind_named(kind).name
        async with self.unit(actor) as unit:
            if name == "link":
                return await links.create(unit, given)
            return await unit.create(name, given, unique_name=unique_name)

    async def update(
        self, named: Named, given: Mapping[str, Any], actor: Actor, *, unique_name: bool = False
    ) -> Record:
        """PUT of an object that the actor can see."""
        async with self.unit(actor) as unit:
            record = await found(unit, named)
            for column, value in unit.new(record.kind.name, given).row.items():
                if column in given:
                    record[column] = value
            await unit.save(record, unique_name=unique_name)
            return record

    async def delete(self, named: Named, actor: Actor) -> Record:
        """DELETE of an object; groups and collections go to the trash."""
        async with self.unit(actor) as unit:
            record = await found(unit, named)
            if record.kind.name in _TRASHABLE:
                return await trash.delete(unit, record)
            await unit.destroy(record)
            return record

    async def trash(self, named: Named, actor: Actor) -> Record:
        """POST .../trash."""
        async with self.unit(actor) as unit:
            return await trash.trash(unit, await found(unit, named))

    async def untrash(self, named: Named, actor: Actor, *, unique_name: bool = False) -> Record:
        """POST .../untrash."""
        async with self.unit(actor) as unit:
            record = await found(unit, named, include_trash=True)
            return await trash.untrash(unit, record, unique_name=unique_name)

    async def trash_sweep(self, actor: Actor) -> None:
        """POST /sys/trash_sweep."""
        if not actor.is_admin:
            raise denied("Forbidden")
        async with self.unit(actor) as unit:
            await trash.sweep(unit)

    async def lock(self, container: Named, actor: Actor) -> Record:
        """POST .../lock."""
        async with self.unit(actor) as unit:
            return await containers.lock(unit, await found(unit, container))

    async def unlock(self, container: Named, actor: Actor) -> Record:
        """POST .../unlock."""
        async with self.unit(actor) as unit:
            return await containers.unlock(unit, await found(unit, container))

    async def update_priority(self, container: Named, actor: Actor) -> Record:
        """POST .../update_priority."""
        async with self.unit(actor) as unit:
            return await containers.update_priority(unit, await found(unit, container))

    async def setup_user(self, user: Named, actor: Actor) -> list[Record]:
        """POST /users/setup of a user who is there; returns the links and the user."""
        _admin_only(actor)
        async with self.unit(actor) as unit:
            record = await users.one(unit, uuid_of(user))
            return [*await users.set_up(unit, record), record]

    async def unsetup_user(self, user: Named, actor: Actor) -> Record:
        """POST .../unsetup, what Workbench calls deactivate."""
        _admin_only(actor)
        async with self.unit(actor) as unit:
            return await users.unsetup(unit, await users.one(unit, uuid_of(user)))

    async def activate_user(self, user: Named, actor: Actor) -> Record:
        """POST .../activate; others than admins activate themselves, whom they name or not."""
        async with self.unit(actor) as unit:
            uuid = uuid_of(user) if actor.is_admin else actor.uuid
            return await users.activate(unit, await users.one(unit, uuid))

    async def merge_users(
        self, old: Named, new: Named, actor: Actor, *, owner: Named, redirect: bool = False
    ) -> Record:
        """POST /users/merge by an admin."""
        if not actor.is_admin:
            raise denied("Must be admin to use old_user_uuid/new_user_uuid")
        async with self.unit(actor) as unit:
            return await user_merge.merge(
                unit, uuid_of(old), uuid_of(new), uuid_of(owner), redirect=redirect
            )

    async def log(self, actor: Actor, **given: Any) -> Record:
        """POST of a log row: anything a user may forge (docs/facts/arvados.md 0.3)."""
        return await self.create("log", given, actor)

    async def to_api(self, record: Record, actor: Actor) -> Row:
        """The object as the API shows it to the actor."""
        async with self.unit(actor) as unit:
            return await presentation.to_api(unit, record)


async def found(unit: Unit, named: Named, *, include_trash: bool = False) -> Record:
    """The object as the actor may see it, locked; 404 otherwise."""
    record = await unit.find(uuid_of(named), lock=True)
    if record is None:
        raise not_found()
    name = record.kind.name
    if not await unit.readable(name, record.uuid, include_trash=include_trash):
        raise not_found()
    return record


def _admin_only(actor: Actor) -> None:
    if not actor.is_admin:
        raise denied("Forbidden")
