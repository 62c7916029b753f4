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
from arvados_nats.errors import BadInput, Refused
from wsproxy.transport import query as query_fields
from wsproxy.transport.fair import Fair

MOST_PROCESSES = 100
_FINAL, _NO_CONTAINER = ["state", "=", "Final"], ["container_uuid", "=", None]
_STATES: dict[str, list[list[list[Any]]]] = {
    "": [[]],
    "waiting": [
        [["state", "=", "Uncommitted"]],
        [["state", "=", "Committed"], _NO_CONTAINER],
        [["container.state", "in", ["Queued", "Locked"]]],
    ],
    "running": [[["container.state", "=", "Running"]]],
    "bad": [
        [_FINAL, _NO_CONTAINER],
        [_FINAL, ["container.state", "=", "Cancelled"]],
        [_FINAL, ["container.exit_code", "!=", 0]],
    ],
    "good": [[_FINAL, ["container.exit_code", "=", 0]]],
}
"""How a process is, in filters any of which may hold: Arvados has no "or" between attributes."""
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
        their owners. `project`: those in it, and in all projects below it. `more`, `deeper`: older
        ones, or projects that are farther below, are left out."""
        query_fields.only(query, "project", "name", "state")
        states = _STATES.get(query.get("state", ""))
        if states is None:
            raise BadInput(f"unknown state; known are {', '.join(filter(None, _STATES))}")
        filters: list[list[Any]] = [["requesting_container_uuid", "=", None]]
        owners: dict[str, str] = {}
        async with self._fair.turn(user):
            if project := query.get("project"):
                owners = await self._below(token, project)
                filters.append(["owner_uuid", "in", list(owners)])
            if name := query.get("name"):
                filters.append(["name", "ilike", f"%{name}%"])
            deeper = len(owners) >= _MOST_PROJECTS
            requests = await self._requests(token, filters, states)
            uuids = [uuid for request in requests if (uuid := request.get("container_uuid"))]
            containers = await self._named(token, "containers", uuids, _CONTAINER)
            known = {uuid for uuid, name in owners.items() if name}
            asked = {str(request.get("owner_uuid")) for request in requests} - known
            owners |= await self._names(token, asked)
        items = [
            {**request, "container": containers.get(request.get("container_uuid", ""))}
            for request in requests
        ]
        more = len(items) == MOST_PROCESSES
        return {"items": items, "owners": owners, "more": more, "deeper": deeper}

    async def _requests(
        self, token: Token, filters: list[list[Any]], states: list[list[list[Any]]]
    ) -> list[dict[str, Any]]:
        """The newest ones in any of these states."""
        found: list[dict[str, Any]] = []
        for state in states:
            found += await self._items(token, "container_requests", [*filters, *state], _REQUEST)
        found.sort(key=lambda request: str(request.get("created_at")), reverse=True)
        return found[:MOST_PROCESSES]

    async def _names(self, token: Token, owners: set[str]) -> dict[str, str]:
        """What owners are called; nothing where a token with few scopes sees none."""
        names: dict[str, str] = {}
        for resource, (infix, select) in _OWNERS.items():
            uuids = sorted(uuid for uuid in owners if infix in uuid)
            with contextlib.suppress(Refused):
                found = await self._named(token, resource, uuids, select)
                names |= {uuid: _name(item) for uuid, item in found.items()}
        return names

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
