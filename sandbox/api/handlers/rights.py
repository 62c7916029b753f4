# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the caller may do with groups and users: writable_by, can_write, can_manage.

One query for a whole page of objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.api.calls import Call

_WRITE, _MANAGE = 2, 3
_QUERY = """
SELECT 'held' AS what, user_uuid AS one, target_uuid AS two, perm_level AS level, traverse_owned
FROM materialized_permissions
WHERE user_uuid = ANY($1::text[]) AND target_uuid = ANY($2::text[])
UNION ALL
SELECT 'frozen', uuid, '', 0, false FROM frozen_groups WHERE uuid = ANY($2::text[])
UNION ALL
SELECT 'invited', user_uuid, '', 0, false FROM materialized_permissions
WHERE target_uuid = $4 AND user_uuid = ANY($3::text[])
UNION ALL
(SELECT 'writer', head_uuid, tail_uuid, 0, false FROM links
 WHERE link_class = 'permission' AND name IN ('can_write', 'can_manage')
   AND head_uuid = ANY($3::text[]) ORDER BY id)
"""


@dataclass(slots=True)
class Rights:
    """What was read about the objects of one page."""

    levels: dict[str, int] = field(default_factory=dict)
    """Target -> the caller's best level on it."""
    owned: dict[str, int] = field(default_factory=dict)
    """Target -> the caller's best level on what it owns."""
    frozen: set[str] = field(default_factory=set)
    invited: set[str] = field(default_factory=set)
    writers: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    async def read(cls, call: Call, rows: Sequence[Mapping[str, Any]]) -> Rights:
        """Ask the database about these objects and their owners."""
        uuids = [row["uuid"] for row in rows if row.get("uuid")]
        owners = [row["owner_uuid"] for row in rows if row.get("owner_uuid")]
        reach = call.caller.reach
        all_users = call.backend.cluster.config.all_users
        found = cls()
        query = (_QUERY, list(reach), [*uuids, *owners], uuids, all_users)
        for row in await call.backend.rows(*query):
            found._add(row, reach)
        return found

    def _add(self, row: Mapping[str, Any], reach: Mapping[str, int]) -> None:
        if row["what"] == "held":
            level = min(reach[row["one"]], row["level"])
            target = row["two"]
            self.levels[target] = max(level, self.levels.get(target, 0))
            if row["traverse_owned"]:
                self.owned[target] = max(level, self.owned.get(target, 0))
        elif row["what"] == "writer":
            self.writers.setdefault(row["one"], []).append(row["two"])
        else:
            (self.frozen if row["what"] == "frozen" else self.invited).add(row["one"])

    def of(self, call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
        """The three attributes of one object."""
        uuid, owner = row.get("uuid", ""), row.get("owner_uuid", "")
        level = self._level(call, uuid, owner)
        frozen = bool({uuid, owner} & self.frozen)
        return {
            "writable_by": self._writable_by(call, uuid, owner, 0 if frozen else level),
            "can_write": level >= _WRITE and not frozen,
            "can_manage": level >= _MANAGE,
        }

    def _level(self, call: Call, uuid: str, owner: str) -> int:
        caller = call.caller
        if caller.is_admin or uuid == caller.user_uuid:
            return _MANAGE
        return max(self.levels.get(uuid, 0), self.owned.get(owner, 0))

    def _writable_by(self, call: Call, uuid: str, owner: str, level: int) -> list[str]:
        writers = [owner]
        if level >= _WRITE:
            writers.append(call.caller.user_uuid)
        if level >= _MANAGE:
            writers += dict.fromkeys(self.writers.get(uuid, []))
        return writers
