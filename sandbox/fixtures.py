# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""People, projects and runs in few words, for tests, the demo and bench/.

Made of the same writes as the API's, so every call leaves the rows, tables and NOTIFYs that a
real cluster would. Who acts is the owner of what is made, unless `by` names somebody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from typing import Any

from sandbox.logs.container_logs import ContainerLogs
from sandbox.model import records
from sandbox.model.actors import Actor
from sandbox.model.crunch import lifecycle
from sandbox.model.kinds import collections, links, tokens, trash, users
from sandbox.model.records import Record
from sandbox.model.unit_of_work import Unit
from sandbox.writes import Named, uuid_of

IMAGE = ". d41d8cd98f00b204e9800998ecf8427e+0 0:0:sha256:sandbox.tar\n"
"""Manifest of the docker image collection that requests run in."""
_BETWEEN = "link_class = 'permission' AND tail_uuid = $1 AND head_uuid = $2 ORDER BY id"


class Scenes:
    """What a cluster, or one transaction on it, can be told to do."""

    logs: ContainerLogs
    root: Actor

    def unit(self, actor: Actor) -> AbstractAsyncContextManager[Unit]:
        """A unit of writes for the actor."""
        raise NotImplementedError

    async def user(
        self, name: str, *, active: bool = True, admin: bool = False, set_up: bool = True
    ) -> Actor:
        """A new user with a token; whose name is taken gets a number behind it, as in Arvados."""
        async with self.unit(self.root) as unit:
            user = await _new_user(unit, name, set_up=set_up)
            if active:
                await unit.update(user, is_active=True)
            if admin:
                await unit.update(user, is_admin=True)
            return await _actor_with_token(unit, user, ("all",), None)

    async def foreign_token(self, user: Actor, *, lives: float = 300.0) -> Actor:
        """The same user with a token of another cluster, about which Arvados asks there again after
        `lives` seconds: `known_elsewhere` says what it hears."""
        async with self.unit(self.root) as unit:
            actor = await _actor_with_token(unit, await users.one(unit, user.uuid), ("all",), None)
            uuid = f"zyyyy-{str(actor.token_uuid)[6:]}"
            time = "refreshes_at" if unit.config.has_refreshes_at else "expires_at"
            await unit.connection.execute(
                f"UPDATE api_client_authorizations SET uuid = $2, {time} = clock_timestamp()"
                " AT TIME ZONE 'UTC' + $3 * interval '1 second' WHERE uuid = $1",
                actor.token_uuid,
                uuid,
                lives,
            )
        return replace(actor, token_uuid=uuid, token=f"v2/{uuid}/{actor.token.split('/')[2]}")

    async def token(
        self,
        user: Named,
        *,
        scopes: Sequence[str] = ("all",),
        expires_at: datetime | None = None,
    ) -> Actor:
        """The same user with one more token."""
        async with self.unit(self.root) as unit:
            return await _actor_with_token(
                unit, await users.one(unit, uuid_of(user)), scopes, expires_at
            )

    async def project(
        self, name: str | None = None, *, owner: Named, by: Actor | None = None
    ) -> Record:
        """A project of a user, or in another project."""
        return await self._owned("group", owner, by, {"name": name, "group_class": "project"})

    async def role(self, name: str, *members: Named, level: str = "can_read") -> Record:
        """A role and its members; whose name is taken gets the time behind it, as in Arvados."""
        async with self.unit(self.root) as unit:
            given = {"name": name, "group_class": "role"}
            role = await unit.create("group", given, unique_name=True)
            for member in members:
                await links.create(unit, _grant(uuid_of(member), level, role.uuid))
            return role

    async def collection(
        self,
        name: str | None = None,
        *,
        owner: Named,
        manifest: str = "",
        by: Actor | None = None,
    ) -> Record:
        """A collection of a user, or in a project."""
        return await self._owned("collection", owner, by, {"name": name, "manifest_text": manifest})

    async def container_request(
        self,
        name: str | None = None,
        *,
        owner: Named,
        by: Actor | None = None,
        **given: Any,
    ) -> Record:
        """A request, committed with priority 500 unless told otherwise; its command is its own."""
        async with self.unit(self.root) as unit:
            image = await _image(unit)
        attributes = {
            "name": name,
            "command": ["echo", records.random_name(8)],
            "container_image": image,
            "output_path": "/out",
            "cwd": "/out",
            "mounts": {"/out": {"kind": "tmp", "capacity": 1000}},
            "runtime_constraints": {"vcpus": 1, "ram": 268435456},
            "use_existing": False,
            "state": "Committed",
            "priority": 500,
        }
        return await self._owned("container_request", owner, by, {**attributes, **given})

    async def _owned(
        self, kind: str, owner: Named, by: Actor | None, given: Mapping[str, Any]
    ) -> Record:
        actor = by or (owner if isinstance(owner, Actor) else self.root)
        async with self.unit(actor) as unit:
            return await unit.create(kind, {"owner_uuid": uuid_of(owner), **given})

    async def share(
        self, what: Named, who: Named, level: str = "can_read", *, by: Actor | None = None
    ) -> Record:
        """A permission link from `who` (a user or role) to `what`."""
        async with self.unit(by or self.root) as unit:
            return await links.create(unit, _grant(uuid_of(who), level, uuid_of(what)))

    async def unshare(self, what: Named, who: Named, *, by: Actor | None = None) -> None:
        """Take away what `share` gave."""
        async with self.unit(by or self.root) as unit:
            for link in await unit.where("link", _BETWEEN, uuid_of(who), uuid_of(what)):
                await unit.destroy(link)

    async def move(self, what: Named, to: Named, *, by: Actor | None = None) -> Record:
        """Give an object another owner."""
        async with self.unit(by or self.root) as unit:
            return await unit.update(await lifecycle.existing(unit, what), owner_uuid=uuid_of(to))

    async def expire(self, what: Named, at: datetime, *, by: Actor | None = None) -> Record:
        """Let a project or collection go to the trash at that time, which then passes silently."""
        async with self.unit(by or self.root) as unit:
            return await unit.update(await lifecycle.existing(unit, what), trash_at=at)

    async def deactivate(self, user: Named) -> Record:
        """Unsetup, as the button of Workbench does."""
        async with self.unit(self.root) as unit:
            return await users.unsetup(unit, await users.one(unit, uuid_of(user)))

    async def logout(self, actor: Actor) -> None:
        """End a token as arvados-controller does: raw SQL, no log row, no NOTIFY."""
        async with self.unit(self.root) as unit:
            await tokens.end_silently(unit.connection, actor.token_uuid)

    async def sweep(self) -> None:
        """What the API server does every minute with the trash."""
        async with self.unit(self.root) as unit:
            await trash.sweep(unit)

    async def reload(self, what: Named) -> Record:
        """The object as it is stored now."""
        async with self.unit(self.root) as unit:
            return await lifecycle.existing(unit, what)


async def _new_user(unit: Unit, name: str, *, set_up: bool) -> Record:
    email = f"{name}@example.com"
    given = {"email": email, "username": name, "first_name": name, "last_name": "Sandbox"}
    user = await unit.create("user", given)
    if set_up:
        await users.set_up(unit, user)
    return user


async def _actor_with_token(
    unit: Unit, user: Record, scopes: Sequence[str], expires_at: datetime | None
) -> Actor:
    given = {"user_id": user["id"], "scopes": list(scopes), "expires_at": expires_at}
    token = await unit.create("api_client_authorization", given)
    admin, active = bool(user["is_admin"]), bool(user["is_active"])
    return Actor(user.uuid, user["id"], admin, active, token.uuid, tokens.v2(token), tuple(scopes))


def _grant(tail: str, level: str, head: str) -> dict[str, Any]:
    return {"link_class": "permission", "name": level, "tail_uuid": tail, "head_uuid": head}


async def _image(unit: Unit) -> str:
    """The hash of the image collection, made on first use and readable for all users."""
    image = collections.data_hash(IMAGE)
    # Others may be about to make it too: they wait here, and then find it.
    await unit.connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", image)
    if not await unit.where("collection", "portable_data_hash = $1 LIMIT 1", image):
        made = await unit.create("collection", {"name": "docker image", "manifest_text": IMAGE})
        await links.create(unit, _grant(unit.config.all_users, "can_read", made.uuid))
    return image
