# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Read which tokens live: the SQL of the token sweep, on the columns that hold no secret.

A token lives while `expires_at` and `refreshes_at` are both null or to come, by the database's
clock (api_client_authorization.rb; facts/arvados.md 2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import yaml

from arvados_nats.errors import MALFORMED
from arvados_nats.grants_wire import TokensAnswer, TokenState
from publishers.postgres import Database

_NOW = "(statement_timestamp() AT TIME ZONE 'UTC')"
_LIVES = f"""
(a.expires_at IS NULL OR a.expires_at > {_NOW})
AND (a.refreshes_at IS NULL OR a.refreshes_at > {_NOW})
"""
_HASH = "hashtextextended(concat(uuid, user_id, scopes), 0)"
_DIGEST = f"""
SELECT extract(epoch FROM statement_timestamp())::float8 AS now,
       concat_ws(' ', count(*), sum({_HASH})) AS digest,
       extract(epoch FROM min(least(expires_at, refreshes_at)))::float8 AS next_end
FROM api_client_authorizations AS a WHERE {_LIVES}
"""
_ALL = f"""
SELECT uuid, user_id, coalesce(scopes, '') AS scopes,
       concat_ws(' ', count(*) OVER (), sum({_HASH}) OVER ()) AS digest
FROM api_client_authorizations AS a WHERE {_LIVES}
"""
_SOME = f"""
SELECT a.uuid, u.uuid AS user_uuid, coalesce(a.scopes, '') AS scopes,
       extract(epoch FROM least(a.expires_at, a.refreshes_at))::float8 AS expires_at
FROM api_client_authorizations AS a JOIN users AS u ON u.id = a.user_id
WHERE a.uuid = ANY($1::varchar[]) AND {_LIVES}
"""
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
_ROWS_LEFT = "SELECT uuid FROM api_client_authorizations WHERE uuid = ANY($1::varchar[])"


@dataclass(frozen=True, slots=True)
class Digest:
    """All live tokens in one text; `next_end` is when the first of them ends, if any does."""

    now: float
    digest: str
    next_end: float | None


class TokenQuery:
    """Reads `api_client_authorizations`. Everything raises Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def digest(self) -> Digest:
        """Whether anything is different from last time, without fetching any token."""
        row = (await self._database.fetch(_DIGEST))[0]
        return Digest(row["now"], row["digest"], row["next_end"])

    async def all_live(self) -> tuple[dict[str, tuple[int, str]], str]:
        """Every live token's uuid, with the user's id and the scopes as stored; and their digest.

        In one statement: a token that lived between two would be in the one and not in the other.
        """
        rows = await self._database.fetch(_ALL)
        digest = rows[0]["digest"] if rows else "0"
        return {uuid: (user_id, scopes) for uuid, user_id, scopes, _ in rows}, digest

    async def live(self, uuids: Iterable[str]) -> TokensAnswer:
        """The live ones among these tokens."""
        rows = await self._database.fetch(_SOME, sorted(set(uuids)))
        now: float = await self._database.fetch_value(_CLOCK)
        tokens = [
            TokenState(row["uuid"], row["user_uuid"], scopes_of(row["scopes"]), row["expires_at"])
            for row in rows
        ]
        return TokensAnswer(now, tokens)

    async def left(self, uuids: Iterable[str]) -> set[str]:
        """The ones among these tokens that still have a row, live or not."""
        return {row["uuid"] for row in await self._database.fetch(_ROWS_LEFT, sorted(uuids))}


def scopes_of(text: str) -> tuple[str, ...]:
    """The scopes in the column: JSON, or YAML in old rows. What is neither allows nothing."""
    try:
        found = msgspec.json.decode(text) if text else []
    except MALFORMED:
        try:
            found = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError):
            found = []
    return tuple(map(str, found)) if isinstance(found, list) else ()
