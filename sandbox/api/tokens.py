# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Token -> caller, as the recorded server decides it (facts/arvados.md 2 and 9).

Each request asks the database anew: a token that was deleted, expired or whose container ended is
refused with the next request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import asyncpg

from arvados_nats import subjects
from sandbox.api import parameters
from sandbox.api.callers import Caller
from sandbox.model.config import ClusterConfig

_NOW = "(clock_timestamp() AT TIME ZONE 'UTC')"
_USER = """
u.*, ARRAY(SELECT p.perm_level || p.target_uuid FROM materialized_permissions p
           WHERE p.user_uuid = u.uuid AND p.traverse_owned
             AND p.target_uuid LIKE '_____-tpzed-%') AS reach"""
_TOKEN = f"""
SELECT a.uuid AS token_uuid, a.api_token AS token_secret, a.scopes AS token_scopes,
       a.expires_at AS token_expires_at, {_USER}
FROM api_client_authorizations a JOIN users u ON u.id = a.user_id
WHERE a.{{column}} = $1 AND coalesce(a.expires_at > {_NOW}, true)
  AND coalesce(a.refreshes_at > {_NOW}, true)"""
_BY_UUID = _TOKEN.format(column="uuid")
_BY_SECRET = _TOKEN.format(column="api_token")
_BY_USER = f"SELECT {_USER} FROM users u WHERE u.uuid = $1"
_CONTAINER = """
SELECT uuid FROM containers WHERE auth_uuid = $1 AND state IN ('Locked', 'Running')"""
_MOST_REDIRECTS = 5


def presented(headers: Mapping[str, str], given: Mapping[str, Any]) -> list[str]:
    """The token strings that a request carries, best first."""
    scheme, _, text = headers.get("authorization", "").partition(" ")
    found = [text.strip()] if scheme.lower() in ("bearer", "oauth2") else []
    found += [str(given[name]) for name in ("api_token", "oauth_token") if given.get(name)]
    found += [str(token) for token in parameters.array(given, "reader_tokens") or []]
    return [token for token in found if token]


async def caller(
    pool: asyncpg.Pool, config: ClusterConfig, token: str, remote: str | None = None
) -> Caller | None:
    """Who the token is, None when it is not valid. `remote` asks for a token salted for it."""
    if hmac.compare_digest(token.encode(), config.system_root_token.encode()):
        return await _configured(pool, config.system_user, config.root_token_uuid, token, ["all"])
    parts = token.split("/")
    if parts[-1] == config.anonymous_user_token and (
        len(parts) == 1 or parts[:-1] == ["v2", config.anonymous_token_uuid]
    ):
        uuid = config.anonymous_token_uuid
        return await _configured(pool, config.anonymous_user, uuid, parts[-1], ["GET /"])
    if len(parts) >= 3 and parts[0] == "v2":
        return await _v2(pool, parts, remote)
    row = await pool.fetchrow(_BY_SECRET, token)
    return await _caller(pool, row) if row else None


async def _configured(
    pool: asyncpg.Pool, user_uuid: str, token_uuid: str, secret: str, scopes: list[str]
) -> Caller | None:
    user = await pool.fetchrow(_BY_USER, user_uuid)
    if user is None:
        return None
    root = token_uuid.endswith("-000000000000000")
    return Caller(
        token_uuid=token_uuid,
        secret=secret,
        scopes=scopes,
        expires_at=None,
        user=dict(user),
        is_root=root,
        container_uuid=None,
        reach=_reach(dict(user)),
    )


def _reach(user: Mapping[str, Any]) -> dict[str, int]:
    return {user["uuid"]: 3} | {item[1:]: int(item[0]) for item in user["reach"]}


async def _v2(pool: asyncpg.Pool, parts: list[str], remote: str | None) -> Caller | None:
    row = await pool.fetchrow(_BY_UUID, parts[1])
    if row is None:
        return None
    secret = row["token_secret"]
    if remote:
        secret = hmac.new(secret.encode(), remote.encode(), hashlib.sha1).hexdigest()
    if not hmac.compare_digest(secret.encode(), parts[2].encode()):
        return None
    kind = subjects.kind_of(parts[3]) if len(parts) > 3 else None
    if kind is None or kind.name != "container":
        return await _caller(pool, row, salted=bool(remote))
    running = await pool.fetchval(_CONTAINER, parts[1])
    return await _caller(pool, row, container=running) if running == parts[3] else None


async def _caller(
    pool: asyncpg.Pool, row: asyncpg.Record, *, container: str | None = None, salted: bool = False
) -> Caller | None:
    user: asyncpg.Record | None = row
    for _ in range(_MOST_REDIRECTS):
        if user is None or not user["redirect_to_user_uuid"]:
            break
        user = await pool.fetchrow(_BY_USER, user["redirect_to_user_uuid"])
    if user is None:
        return None
    return Caller(
        token_uuid=row["token_uuid"],
        secret=None if salted else row["token_secret"],
        scopes=json.loads(row["token_scopes"] or "[]"),
        expires_at=row["token_expires_at"],
        user=dict(user),
        is_root=False,
        container_uuid=container,
        reach=_reach(dict(user)),
    )
