# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Arvados' tokens, never their secrets: which of some live, and digests that tell whether any of
them changed. No query reads a token that nobody named: a site may have a million.

By the database's clock a token lives while `expires_at` is null or to come. `refreshes_at` is when
Arvados asks the cluster or the identity provider that a token came from once more: the token lives
on if they still know it (api_client_authorization.rb). Before Arvados 3.1 that time stands in
`expires_at` of tokens with another cluster's uuid. Since nobody but the holder's service can ask,
such a token counts for `GRACE` seconds more, as `stale`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from arvados_nats.contract import serialized
from arvados_nats.errors import MALFORMED, BadInput
from arvados_nats.permission_client.grants_messages import TokensAnswer, TokenState
from arvados_nats.permissions.rule import MAX_SCOPES
from arvados_nats.postgres.arvados_tables import CLUSTER_ID, REFRESHES_AT
from publishers.postgres.database import Database

GRACE = 300.0
"""Seconds; as long as `identities.Lifetimes.stale`."""
_NOW = "(statement_timestamp() AT TIME ZONE 'UTC')"
_SCOPES = f"CASE WHEN octet_length(scopes) <= {2 * MAX_SCOPES} THEN scopes END AS scopes"
"""A user writes them; with more no token gets in, and one answer tells of many tokens."""
_ROWS = f"SELECT uuid, user_id, {_SCOPES}, expires_at, refreshes_at FROM api_client_authorizations"
_ROWS_BEFORE_3_1 = f"""
SELECT t.uuid, t.user_id, t.scopes, CASE WHEN t.foreign_one THEN NULL ELSE t.expires_at END
         AS expires_at, CASE WHEN t.foreign_one THEN t.expires_at END AS refreshes_at
FROM (SELECT uuid, user_id, {_SCOPES}, expires_at,
             left(uuid, 5) <> ({CLUSTER_ID}) AS foreign_one
      FROM api_client_authorizations) AS t
"""
_LIVES = f"""
(a.expires_at IS NULL OR a.expires_at > {_NOW})
AND (a.refreshes_at IS NULL OR a.refreshes_at > {_NOW} - interval '{{grace}} s')
"""
_STALE = f"coalesce(refreshes_at <= {_NOW}, false)"
_STALE_SINCE = f"CASE WHEN {_STALE} THEN extract(epoch FROM refreshes_at)::float8 END"
_HASH = f"hashtextextended(concat(uuid, user_id, scopes, {_STALE_SINCE}), 0)"
_DIGEST = f"""
SELECT extract(epoch FROM statement_timestamp())::float8 AS now,
       concat_ws(' ', count(*), sum({_HASH})) AS digest,
       extract(epoch FROM min(least(
         expires_at,
         refreshes_at + CASE WHEN {_STALE} THEN interval '{{grace}} s' ELSE '0' END
       )))::float8 AS next_end
FROM ({{rows}}) AS a WHERE a.uuid = ANY($1::varchar[]) AND {_LIVES}
"""
_LIVE = f"""
SELECT uuid, user_id, coalesce(scopes, '') AS scopes, {_STALE_SINCE} AS stale_since,
       concat_ws(' ', count(*) OVER (), sum({_HASH}) OVER ()) AS digest
FROM ({{rows}}) AS a WHERE a.uuid = ANY($1::varchar[]) AND {_LIVES}
"""
_STATES = f"""
SELECT a.uuid, u.uuid AS user_uuid, coalesce(a.scopes, '') AS scopes,
       extract(epoch FROM a.expires_at)::float8 AS expires_at,
       extract(epoch FROM a.refreshes_at)::float8 AS refreshes_at
FROM ({{rows}}) AS a JOIN users AS u ON u.id = a.user_id
WHERE a.uuid = ANY($1::varchar[]) AND {_LIVES}
"""
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
_ROWS_LEFT = "SELECT uuid FROM api_client_authorizations WHERE uuid = ANY($1::varchar[])"


class LiveToken(NamedTuple):
    """What is remembered of a live token between two looks."""

    user_id: int
    scopes: str
    stale_since: float | None = None


@dataclass(frozen=True, slots=True)
class Digest:
    """The live ones among some tokens in one text; `next_end` is when the first of them ends or
    becomes stale, if any does."""

    now: float
    digest: str
    next_end: float | None


class TokenQuery:
    """Reads `api_client_authorizations`. Everything raises Unavailable."""

    def __init__(self, database: Database, *, grace: float = GRACE) -> None:
        self._database = database
        self._grace = grace

    async def digest(self, uuids: Iterable[str]) -> Digest:
        """Whether anything about these is different from last time, without fetching any."""
        row = (await self._database.fetch(await self._sql(_DIGEST), sorted(uuids)))[0]
        return Digest(row["now"], row["digest"], row["next_end"])

    async def alive(self, uuids: Iterable[str]) -> tuple[dict[str, LiveToken], str]:
        """The live ones among these tokens by uuid, and the digest of them.

        In one statement: a token that lived between two would be in the one and not in the other.
        """
        rows = await self._database.fetch(await self._sql(_LIVE), sorted(uuids))
        digest = rows[0]["digest"] if rows else "0"
        return {uuid: LiveToken(*token) for uuid, *token, _ in rows}, digest

    async def states(self, uuids: Iterable[str]) -> TokensAnswer:
        """What is told of the live ones among these tokens."""
        rows = await self._database.fetch(await self._sql(_STATES), sorted(set(uuids)))
        now: float = await self._database.fetch_value(_CLOCK)
        tokens = [
            TokenState(uuid, user_uuid, scopes_of(scopes), expires_at, refreshes_at)
            for uuid, user_uuid, scopes, expires_at, refreshes_at in rows
        ]
        return TokensAnswer(now, tokens)

    async def _sql(self, template: str) -> str:
        has_refresh = await self._database.columns.has(REFRESHES_AT)
        rows = _ROWS if has_refresh else _ROWS_BEFORE_3_1
        return template.format(rows=rows, grace=self._grace)

    async def left(self, uuids: Iterable[str]) -> set[str]:
        """The ones among these tokens that still have a row, live or not."""
        return {row["uuid"] for row in await self._database.fetch(_ROWS_LEFT, sorted(uuids))}


def scopes_of(text: str) -> tuple[str, ...]:
    """The scopes in the column: JSON, or YAML in old rows. What is neither allows nothing."""
    try:
        found = msgspec.json.decode(text) if text else []
    except MALFORMED:
        try:
            found = serialized.from_yaml(text)
        except BadInput:
            found = []
    return tuple(map(str, found)) if isinstance(found, list) else ()
