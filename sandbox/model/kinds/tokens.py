# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Tokens: rows of `api_client_authorizations`, and who acts with one (docs/facts/arvados.md 2)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection

import asyncpg

from sandbox.model import actors, records
from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.model.database import Connection
from sandbox.model.records import Record
from sandbox.model.refusal import denied, not_logged_in
from sandbox.model.rules import Rules
from sandbox.model.writer import Writer

_UNLOGGED = {"last_used_at", "last_used_by_ip_address", "updated_at"}
_NOW = "clock_timestamp() AT TIME ZONE 'UTC'"
_REMOTE_REFRESH = "interval '5 minutes'"
"""Login.RemoteTokenRefresh."""
_BY_TOKEN = (
    "SELECT a.uuid AS token_uuid, a.api_token, a.scopes, u.uuid, u.id, u.is_admin, u.is_active,"
    " u.redirect_to_user_uuid,"
    " (SELECT c.uuid FROM containers c WHERE c.auth_uuid = a.uuid LIMIT 1) AS container_uuid"
    " FROM api_client_authorizations a JOIN users u ON u.id = a.user_id"
    " WHERE {match} AND {valid}"
)
_FINAL_USER = """
WITH RECURSIVE chain(uuid, next) AS (
    SELECT uuid, redirect_to_user_uuid FROM users WHERE uuid = $1
    UNION SELECT u.uuid, u.redirect_to_user_uuid FROM users u JOIN chain ON u.uuid = chain.next)
SELECT u.uuid, u.id, u.is_admin, u.is_active FROM chain JOIN users u ON u.uuid = chain.uuid
WHERE chain.next IS NULL
"""
_CONTAINER = "SELECT uuid, state, auth_uuid, runtime_token FROM containers WHERE uuid = $1"


class TokenRules(Rules):
    """app/models/api_client_authorization.rb."""

    checks_references = False

    async def prepare(self, unit: Writer, record: Record) -> None:
        """A secret, and the number of the user whom `owner_uuid` names."""
        if record["api_token"] is None:
            record["api_token"] = secrets.token_hex(25)
        owner = record.row.pop("owner_uuid", None)
        if record["user_id"] is None or owner:
            user = await unit.find(owner) if owner else None
            record["user_id"] = user["id"] if user else unit.actor.id
        if record.is_new:
            record["api_client_id"] = 0
            record["scopes"] = record["scopes"] or ["all"]

    async def permit_save(self, unit: Writer, record: Record) -> None:
        """One's own, or an admin's business."""
        mine = record["user_id"] == unit.actor.id and not record.changed("uuid")
        if not unit.actor.is_admin and not (record.is_new or mine):
            raise denied()
        if not unit.actor.is_admin and record["user_id"] != unit.actor.id:
            raise denied()

    async def permit_owner(self, unit: Writer, record: Record) -> None:
        """There is no owner_uuid in the row."""

    def logs_update(self, record: Record) -> bool:
        """Uses are not logged."""
        return bool(set(record.changes()) - _UNLOGGED)

    async def logged_owner(self, unit: Writer, record: Record) -> str | None:
        """The user's uuid, which the row itself does not hold."""
        query = "SELECT uuid FROM users WHERE id = $1"
        owner: str | None = await unit.connection.fetchval(query, record["user_id"])
        return owner


def v2(record: Record) -> str:
    """The token as a client sends it."""
    return f"v2/{record.uuid}/{record['api_token']}"


async def end_silently(connection: Connection, uuid: str | None) -> None:
    """Logout in arvados-controller: no log row tells of it (docs/facts/arvados.md 1)."""
    await connection.execute(
        "UPDATE api_client_authorizations SET expires_at = clock_timestamp() AT TIME ZONE 'UTC'"
        " WHERE uuid = $1",
        uuid,
    )


def _valid(config: ClusterConfig) -> str:
    times = ("expires_at", "refreshes_at") if config.has_refreshes_at else ("expires_at",)
    return " AND ".join(f"(a.{time} IS NULL OR a.{time} > {_NOW})" for time in times)


async def _refresh(connection: Connection, config: ClusterConfig, uuid: str) -> None:
    """Another cluster has just said that it knows the token."""
    time = "refreshes_at" if config.has_refreshes_at else "expires_at"
    await connection.execute(
        f"UPDATE api_client_authorizations SET {time} = {_NOW} + {_REMOTE_REFRESH}"
        f" WHERE uuid = $1 AND {time} <= {_NOW}",
        uuid,
    )


async def authenticate(
    connection: Connection,
    config: ClusterConfig,
    token: str,
    remote: str | None = None,
    known_elsewhere: Collection[str] = (),
) -> Actor:
    """Who acts with this token; raises Refusal 401. `remote` accepts a salted one, and
    `known_elsewhere` are the uuids of the tokens that other clusters say they know."""
    special = await _special(connection, config, token)
    if special:
        return special
    parts = token.split("/")
    if parts[0] == "v2" and len(parts) >= 3:
        if parts[1] in known_elsewhere:
            await _refresh(connection, config, parts[1])
        return await _v2(connection, config, parts, remote or config.cluster_id)
    hashed = hmac.new(config.system_root_token.encode(), token.encode(), hashlib.sha256)
    query = _BY_TOKEN.format(match="a.api_token IN ($1, $2)", valid=_valid(config))
    row = await connection.fetchrow(query, token, hashed.hexdigest())
    return await _actor(connection, row, token)


async def _special(connection: Connection, config: ClusterConfig, token: str) -> Actor | None:
    if token == config.system_root_token:
        return actors.system(config, await _user_id(connection, config.system_user))
    secret = token
    if token.startswith(f"v2/{config.anonymous_token_uuid}/"):
        secret = token.split("/")[2]
    if secret == config.anonymous_user_token:
        return actors.anonymous(config, await _user_id(connection, config.anonymous_user))
    return None


async def _user_id(connection: Connection, uuid: str) -> int:
    found: int = await connection.fetchval("SELECT id FROM users WHERE uuid = $1", uuid)
    return found


async def _v2(
    connection: Connection, config: ClusterConfig, parts: list[str], remote: str
) -> Actor:
    _, uuid, secret, *more = parts
    if more and not await _container_agrees(connection, more[0], f"v2/{uuid}/{secret}"):
        raise not_logged_in()
    query = _BY_TOKEN.format(match="a.uuid = $1", valid=_valid(config))
    row = await connection.fetchrow(query, uuid)
    if row is None or not _secret_fits(secret, row["api_token"], remote):
        raise not_logged_in()
    return await _actor(connection, row, "/".join(parts))


def _secret_fits(secret: str, stored: str, remote: str) -> bool:
    salted = hmac.new(stored.encode(), remote.encode(), hashlib.sha1).hexdigest()
    return hmac.compare_digest(secret, stored) or hmac.compare_digest(secret, salted)


async def _container_agrees(connection: Connection, uuid: str, token: str) -> bool:
    container = await connection.fetchrow(_CONTAINER, uuid)
    if container is None:
        return True
    if container["auth_uuid"] not in (None, token.split("/")[1]):
        return False
    if container["runtime_token"] not in (None, token):
        return False
    return container["state"] in ("Locked", "Running")


async def _actor(connection: Connection, row: asyncpg.Record | None, token: str) -> Actor:
    if row is None:
        raise not_logged_in()
    user: asyncpg.Record | None = row
    if row["redirect_to_user_uuid"]:
        user = await connection.fetchrow(_FINAL_USER, row["uuid"])
    if user is None:
        raise not_logged_in()
    scopes = records.load(row["scopes"], ["all"])
    return Actor(
        user["uuid"], user["id"], bool(user["is_admin"]), bool(user["is_active"]),
        row["token_uuid"], token, tuple(scopes), row["container_uuid"],
    )  # fmt: skip
