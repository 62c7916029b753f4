# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Giving what one user has to another: nearly all of it by bulk updates, without log rows.

app/models/user.rb, merge (docs/facts/arvados.md 1, 9).
"""

from __future__ import annotations

from sandbox.model.derived import permission_graph as graph
from sandbox.model.derived import permission_table
from sandbox.model.derived.permission_graph import Change
from sandbox.model.kinds.users import OWNED, clear_permissions
from sandbox.model.records import Record
from sandbox.model.refusal import invalid, raised
from sandbox.model.writer import Writer


async def merge(
    unit: Writer, old_uuid: str, new_uuid: str, owner: str, *, redirect: bool
) -> Record:
    """All of `old_uuid` becomes `new_uuid`'s, objects `owner`'s; `redirect` lets tokens live on."""
    old, new = await unit.find(old_uuid), await unit.find(new_uuid)
    if old is None or new is None:
        raise invalid(f"User in {'old' if old is None else 'new'}_user_uuid not found")
    if old.uuid == new.uuid:
        raise invalid("cannot merge user to self")
    if old["redirect_to_user_uuid"] or new["redirect_to_user_uuid"]:
        raise raised("RuntimeError", "cannot merge an already merged user")
    with unit.acting_as(unit.system):
        await clear_permissions(unit, old.uuid)
        await clear_permissions(unit, new.uuid)
        await (_hand_over_links(unit, old, new) if redirect else _drop_keys(unit, old, new))
        await _hand_over_objects(unit, old.uuid, owner)
        if redirect:
            await unit.update(old, redirect_to_user_uuid=new.uuid, username=None)
        for origin, user in (
            (old.uuid, old.uuid),
            (new.uuid, new.uuid),
            (new["owner_uuid"], new.uuid),
            (old["owner_uuid"], old.uuid),
        ):
            change = Change(origin, user, graph.MANAGE, user)
            await permission_table.update(unit.connection, change, all_users=True)
    return old


async def _hand_over_links(unit: Writer, old: Record, new: Record) -> None:
    await unit.connection.execute(
        "UPDATE api_client_authorizations SET user_id = $2 WHERE user_id = $1",
        old["id"],
        new["id"],
    )
    for table, column in (
        ("authorized_keys", "owner_uuid"),
        ("authorized_keys", "authorized_user_uuid"),
        ("links", "owner_uuid"),
        ("links", "tail_uuid"),
        ("links", "head_uuid"),
    ):
        await _rename(unit, table, column, old.uuid, new.uuid)


async def _drop_keys(unit: Writer, old: Record, new: Record) -> None:
    tokens = "user_id = $1 ORDER BY id"
    for token in await unit.where("api_client_authorization", tokens, old["id"]):
        await unit.destroy(token)
    keys = "$1 IN (owner_uuid, authorized_user_uuid) ORDER BY id"
    for key in await unit.where("authorized_key", keys, old.uuid):
        await unit.destroy(key)
    for column in ("owner_uuid", "tail_uuid"):
        await _rename(unit, "links", column, old.uuid, new.uuid)


async def _hand_over_objects(unit: Writer, old: str, owner: str) -> None:
    kept = ("links", "logs", "authorized_keys")
    for table in (table for table in OWNED if table not in kept):
        await _rename(unit, table, "owner_uuid", old, owner)


async def _rename(unit: Writer, table: str, column: str, old: str, new: str) -> None:
    await unit.connection.execute(f"UPDATE {table} SET {column} = $2 WHERE {column} = $1", old, new)
