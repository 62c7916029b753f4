# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which processes there are, and whose."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import Refused
from wsproxy.page.fair import Fair
from wsproxy.transport import query as query_fields

MOST_PROCESSES = 100
_MOST_PROJECTS = 300
CALLS = 8
"""Lists that are asked of Arvados at a time."""
CALLS_OF_USER = 4
_REQUEST = (
    "uuid name state priority container_uuid container_count created_at modified_at owner_uuid"
    " output_uuid log_uuid cumulative_cost"
).split()
_CONTAINER = (
    "uuid state priority progress exit_code created_at started_at finished_at runtime_status cost"
).split()
_OWNERS = {
    "groups": ("-j7d0g-", ["uuid", "name", "created_at"]),
    "users": ("-tpzed-", ["uuid", "first_name", "last_name", "created_at"]),
}


class Processes:
    """The newest processes that somebody may see."""

    def __init__(self, arvados: Arvados) -> None:
        self._arvados = arvados
        self._fair = Fair(CALLS, CALLS_OF_USER)

    async def newest(self, token: Token, user: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Those that nobody else's process asked for, each with its container; and the names of
        their owners. `project`: those in it, and in all projects below it."""
        query_fields.only(query, "project", "name")
        filters: list[list[Any]] = [["requesting_container_uuid", "=", None]]
        owners: dict[str, str] = {}
        async with self._fair.turn(user):
            if project := query.get("project"):
                owners = await self._below(token, project)
                filters.append(["owner_uuid", "in", list(owners)])
            if name := query.get("name"):
                filters.append(["name", "ilike", f"%{name}%"])
            requests = await self._items(token, "container_requests", filters, _REQUEST)
            uuids = [uuid for request in requests if (uuid := request.get("container_uuid"))]
            containers = await self._named(token, "containers", uuids, _CONTAINER)
            known = {uuid for uuid, name in owners.items() if name}
            asked = {str(request.get("owner_uuid")) for request in requests} - known
            for resource, (infix, select) in _OWNERS.items():
                uuids = sorted(uuid for uuid in asked if infix in uuid)
                with contextlib.suppress(Refused):  # a token with few scopes sees uuids
                    found = await self._named(token, resource, uuids, select)
                    owners |= {uuid: _name(item) for uuid, item in found.items()}
        items = [
            {**request, "container": containers.get(request.get("container_uuid", ""))}
            for request in requests
        ]
        return {"items": items, "owners": owners}

    async def _below(self, token: Token, project: str) -> dict[str, str]:
        """A project or a user's home, and the projects below it, by uuid with their names; of very
        many, those that are nearest."""
        found, above = {project: ""}, [project]
        while above and len(found) < _MOST_PROJECTS:
            filters: list[list[Any]]
            filters = [["owner_uuid", "in", above], ["group_class", "=", "project"]]
            _, select = _OWNERS["groups"]
            items = await self._items(token, "groups", filters, select, _MOST_PROJECTS)
            above = [uuid for item in items if (uuid := str(item["uuid"])) not in found]
            found |= {str(item["uuid"]): _name(item) for item in items}
        return found

    async def _named(
        self, token: Token, resource: str, uuids: list[str], select: list[str]
    ) -> dict[str, dict[str, Any]]:
        if not uuids:
            return {}
        found = await self._items(token, resource, [["uuid", "in", uuids]], select)
        return {str(item["uuid"]): item for item in found}

    async def _items(
        self,
        token: Token,
        resource: str,
        filters: list[list[Any]],
        select: list[str],
        limit: int = MOST_PROCESSES,
    ) -> list[dict[str, Any]]:
        answer = await self._arvados.get(
            token,
            resource,
            {
                "filters": filters,
                "select": select,
                "order": ["created_at desc"],
                "limit": limit,
                "count": "none",
            },
        )
        return [item for item in answer.get("items", []) if isinstance(item, dict)]


def _name(item: Mapping[str, Any]) -> str:
    """What people call an owner."""
    names = (item.get(part) for part in ("name", "first_name", "last_name"))
    return " ".join(str(name) for name in names if name)
