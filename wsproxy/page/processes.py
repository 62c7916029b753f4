# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which processes there are, and which attempts one had."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.tokens import Token

_MOST_PROCESSES = 100
_CALLS = 8
"""Lists that are asked of Arvados at a time."""
_REQUEST = (
    "uuid name state priority container_uuid container_count created_at modified_at owner_uuid"
    " output_uuid log_uuid cumulative_cost"
).split()
_CONTAINER = (
    "uuid state priority progress exit_code created_at started_at finished_at runtime_status cost"
).split()


class Processes:
    """The newest processes that somebody may see."""

    def __init__(self, arvados: Arvados) -> None:
        self._arvados = arvados
        self._calls = asyncio.Semaphore(_CALLS)

    async def newest(self, token: Token, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """Those that nobody else's process asked for, each with its container."""
        filters: list[list[Any]] = [["requesting_container_uuid", "=", None]]
        if project := query.get("project"):
            filters.append(["owner_uuid", "=", project])
        if name := query.get("name"):
            filters.append(["name", "ilike", f"%{name}%"])
        async with self._calls:
            requests = await self._items(token, "container_requests", filters, _REQUEST)
            uuids = [uuid for request in requests if (uuid := request.get("container_uuid"))]
            named = [["uuid", "in", uuids]]
            found = await self._items(token, "containers", named, _CONTAINER) if uuids else []
        containers = {container["uuid"]: container for container in found}
        return [
            {**request, "container": containers.get(request.get("container_uuid"))}
            for request in requests
        ]

    async def _items(
        self, token: Token, resource: str, filters: list[list[Any]], select: list[str]
    ) -> list[dict[str, Any]]:
        answer = await self._arvados.get(
            token,
            resource,
            {
                "filters": filters,
                "select": select,
                "order": ["created_at desc"],
                "limit": _MOST_PROCESSES,
                "count": "none",
            },
        )
        return [item for item in answer.get("items", []) if isinstance(item, dict)]
