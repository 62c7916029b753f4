# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where groups are now: the owners above each, what is shared there, and the state of it all.

Read for the owners of what somebody asks about, so the cost goes with them and with how deep they
are, not with how many projects or readers there are (`arvados_nats.permissions.share_points`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from arvados_nats.contract.places import GROUP_INFIX, USER_INFIX, Place
from arvados_nats.errors import Unavailable
from arvados_nats.permissions.object_facts import ObjectFacts
from publishers.postgres.database import Database

_DEEPEST = 200
"""Projects inside one another that are followed; Arvados allows no circle."""
_MOST_HIDDEN = 200
_HIDDEN_TIMEOUT = 1.0
"""Seconds: rows wait for it."""
_ABOVE = f"""
WITH RECURSIVE up(start, uuid, depth) AS (
    SELECT asked, asked, 0 FROM unnest($1::varchar[]) AS asked
    UNION ALL
    SELECT up.start, groups.owner_uuid, depth + 1
    FROM up JOIN groups ON groups.uuid = up.uuid WHERE depth < {_DEEPEST}
)
SELECT start AS uuid, array_remove(array_agg(up.uuid ORDER BY depth), start) AS above,
       (SELECT extract(epoch FROM min(trash_at))::float8 FROM trashed_groups
        WHERE group_uuid = start) AS trash_at,
       EXISTS (SELECT 1 FROM frozen_groups WHERE frozen_groups.uuid = start) AS frozen
FROM up GROUP BY start
"""
_SEEN_BY = """
SELECT head_uuid, array_agg(DISTINCT tail_uuid ORDER BY tail_uuid) AS tails FROM links
WHERE link_class = 'permission' AND head_uuid = ANY($1::varchar[])
  AND name IN ('can_read', 'can_login', 'can_write', 'can_manage')
GROUP BY head_uuid
"""
_SEEN_BY_NEWEST = """
SELECT head_uuid, array_agg(DISTINCT tail_uuid ORDER BY tail_uuid) AS tails
FROM (SELECT uuid FROM users ORDER BY id DESC LIMIT $1) AS newest
JOIN links ON links.head_uuid = newest.uuid
WHERE link_class = 'permission' AND name IN ('can_read', 'can_login', 'can_write', 'can_manage')
GROUP BY head_uuid
"""
_HIDDEN = f"""
WITH RECURSIVE below(uuid, depth) AS (
    SELECT $1::varchar, 0
    UNION ALL
    SELECT groups.uuid, depth + 1
    FROM below JOIN groups ON groups.owner_uuid = below.uuid WHERE depth < {_DEEPEST}
)
SELECT DISTINCT object.uuid, object.owner_uuid
FROM below JOIN container_requests AS object ON object.owner_uuid = below.uuid
JOIN links ON links.head_uuid = object.uuid AND links.link_class = 'permission'
ORDER BY object.uuid LIMIT {_MOST_HIDDEN}
"""
_HIDDEN_BETWEEN = f"""
WITH RECURSIVE below(uuid, depth) AS (
    SELECT uuid, 0 FROM groups WHERE trash_at > to_timestamp($1) AT TIME ZONE 'UTC'
    AND trash_at <= to_timestamp($2) AT TIME ZONE 'UTC'
    UNION ALL
    SELECT groups.uuid, depth + 1
    FROM below JOIN groups ON groups.owner_uuid = below.uuid WHERE depth < {_DEEPEST}
), inside(uuid) AS (
    SELECT uuid FROM below WHERE depth > 0
    UNION SELECT object.uuid
    FROM below JOIN container_requests AS object ON object.owner_uuid = below.uuid
    UNION SELECT object.uuid FROM below JOIN workflows AS object ON object.owner_uuid = below.uuid
)
SELECT DISTINCT inside.uuid FROM inside
JOIN links ON links.head_uuid = inside.uuid AND links.link_class = 'permission'
ORDER BY inside.uuid LIMIT {_MOST_HIDDEN}
"""
_SHARED = """
SELECT DISTINCT head_uuid FROM links
WHERE link_class = 'permission' AND head_uuid = ANY($1::varchar[])
"""

Places = Mapping[str, Place]


async def read(database: Database, groups: Iterable[str]) -> Places:
    """Where these groups are; what is no group is left out."""
    asked = sorted({uuid for uuid in groups if uuid[5:12] == GROUP_INFIX})
    if not asked:
        return {}
    return {
        uuid: Place(uuid, tuple(above), trash_at, frozen)
        for uuid, above, trash_at, frozen in await database.fetch(_ABOVE, asked)
    }


async def seen_by(database: Database, users: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """From where links lead to each of these users; those without any are left out."""
    asked = sorted({uuid for uuid in users if uuid[5:12] == USER_INFIX})
    if not asked:
        return {}
    return {head: tuple(tails) for head, tails in await database.fetch(_SEEN_BY, asked)}


async def seen_by_newest(database: Database, most: int) -> Mapping[str, tuple[str, ...]]:
    """The same of the newest users."""
    return {head: tuple(tails) for head, tails in await database.fetch(_SEEN_BY_NEWEST, most)}


async def hidden(database: Database, project: str) -> list[tuple[str, str]]:
    """(uuid, owner) of requests below a project that were shared by themselves: in the trash they
    are hidden from who cannot see the project. None of a project that is too large to look through.
    """
    try:
        return [*map(tuple, await database.fetch(_HIDDEN, project, timeout=_HIDDEN_TIMEOUT))]
    except Unavailable:
        return []


async def hidden_between(database: Database, since: float, until: float) -> frozenset[str]:
    """What was shared by itself below projects whose trash time came between these."""
    found = await database.fetch(_HIDDEN_BETWEEN, since, until, timeout=_HIDDEN_TIMEOUT)
    return frozenset(row[0] for row in found)


async def shared(database: Database, uuids: Iterable[str]) -> frozenset[str]:
    """The ones among these that a permission link leads to."""
    asked = sorted(set(uuids))
    rows = await database.fetch(_SHARED, asked) if asked else ()
    return frozenset(row[0] for row in rows)


async def placed(database: Database, found: Sequence[ObjectFacts]) -> list[ObjectFacts]:
    """The facts of objects with where they are now."""
    groups = await read(database, (uuid for facts in found for uuid in facts.owners()))
    users = await seen_by(database, (facts.uuid for facts in found))
    return [
        msgspec.structs.replace(
            facts,
            places=tuple(groups[uuid] for uuid in dict.fromkeys(facts.owners()) if uuid in groups),
            seen_by=users.get(facts.uuid, ()) if facts.kind == "user" else None,
        )
        for facts in found
    ]
