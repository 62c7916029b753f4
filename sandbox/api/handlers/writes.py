# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Requests that change something: each is one call of the cluster, then the object's API form."""

from __future__ import annotations

from typing import Any

from sandbox.api import parameters
from sandbox.api.calls import Call
from sandbox.api.handlers import forms
from sandbox.api.queries import listing
from sandbox.model.records import Record, kind_named
from sandbox.model.refusal import not_found

Form = dict[str, Any]

_LOCK = ("uuid", "locked_by_uuid", "priority", "state", "auth_uuid")


async def create(call: Call) -> Form:
    """POST of a new object."""
    unique = parameters.flag(call.parameters, "ensure_unique_name")
    actor = call.caller.actor
    made = await call.backend.cluster.create(
        call.resource, _attributes(call), actor, unique_name=unique
    )
    return await _answer(call, made)


async def update(call: Call) -> Form:
    """PUT or PATCH of attributes."""
    unique = parameters.flag(call.parameters, "ensure_unique_name")
    given, actor = _attributes(call), call.caller.actor
    return await _answer(
        call, await call.backend.cluster.update(_named(call), given, actor, unique_name=unique)
    )


async def destroy(call: Call) -> Form:
    """DELETE, which only trashes groups and collections."""
    return await _answer(call, await call.backend.cluster.delete(_named(call), call.caller.actor))


async def trash(call: Call) -> Form:
    """Move a group or a collection to the trash."""
    return await _answer(call, await call.backend.cluster.trash(_named(call), call.caller.actor))


async def untrash(call: Call) -> Form:
    """Take it back."""
    unique = parameters.flag(call.parameters, "ensure_unique_name")
    actor = call.caller.actor
    found = await call.backend.cluster.untrash(_named(call), actor, unique_name=unique)
    return await _answer(call, found)


async def lock(call: Call) -> Form:
    """A dispatcher takes a container; the answer is reduced."""
    container = await call.backend.cluster.lock(_named(call), call.caller.actor)
    return {name: container.row[name] for name in _LOCK}


async def unlock(call: Call) -> Form:
    """A dispatcher gives a container back."""
    container = await call.backend.cluster.unlock(_named(call), call.caller.actor)
    return {name: container.row[name] for name in _LOCK}


async def update_priority(call: Call) -> Form:
    """Compute a container's priority anew."""
    actor = call.caller.actor
    return await _answer(call, await call.backend.cluster.update_priority(_named(call), actor))


async def set_up_user(call: Call) -> Form:
    """Give a user what every user has; the answer lists the links and the user."""
    uuid = call.uuid or str(call.parameters.get("uuid", ""))
    made = await call.backend.cluster.setup_user(uuid, call.caller.actor)
    items = [(await _forms(call, record))[0] for record in made]
    return {"kind": "arvados#HashList", "items": items}


async def unset_up_user(call: Call) -> Form:
    """Deactivate a user."""
    return await _answer(
        call, await call.backend.cluster.unsetup_user(call.uuid, call.caller.actor)
    )


async def activate_user(call: Call) -> Form:
    """Activate a user who is invited."""
    return await _answer(
        call, await call.backend.cluster.activate_user(call.uuid, call.caller.actor)
    )


async def merge_users(call: Call) -> Form:
    """Merge one user into another."""
    given = call.parameters
    merged = await call.backend.cluster.merge_users(
        str(given.get("old_user_uuid")),
        str(given.get("new_user_uuid")),
        call.caller.actor,
        owner=str(given.get("new_owner_uuid")),
        redirect=parameters.flag(given, "redirect_to_new_user"),
    )
    return await _answer(call, merged)


def _attributes(call: Call) -> Form:
    wrapper = kind_named(call.resource).name
    return parameters.attributes(call.parameters, wrapper, call.table.columns)


def _named(call: Call) -> str:
    if forms.table_of(call.uuid) != call.resource:
        raise not_found()
    return call.uuid


async def _forms(call: Call, record: Record) -> list[Form]:
    return await forms.present(call, call.backend.tables[record.table.name], [record.row])


async def _answer(call: Call, record: Record) -> Form:
    form = (await _forms(call, record))[0]
    return listing.selected(form, parameters.array(call.parameters, "select"))
