# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Log files as Arvados' log API has them: what left the stream, and containers that ended long ago.

An edge to Arvados, with the viewers' own tokens: wsproxy has none. The API serves logs below a
container request (facts/arvados.md 4), so a viewer of a container needs a request that shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from arvados_nats.arvados_client import Arvados
from arvados_nats.errors import BadInput, Refused
from arvados_nats.tokens import Token

FINAL = ("Complete", "Cancelled")


@dataclass(frozen=True, slots=True)
class Access:
    """By what a viewer reads the logs of a container: a token, and the request, if known."""

    token: Token
    request: str | None = None


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What a container's record tells about its logs; `finished_at` is RFC 3339 or None."""

    state: str
    exit_code: int | None
    log: str | None
    finished_at: str | None

    @property
    def final(self) -> bool:
        """Whether it will not run any more."""
        return self.state in FINAL


class SavedLogs:
    """The log API of one cluster."""

    def __init__(self, arvados: Arvados) -> None:
        self._arvados = arvados

    async def state(self, container: str, access: Access) -> ContainerState:
        """The state of a container; Refused if the viewer may not see it."""
        columns = ["uuid", "state", "exit_code", "log", "finished_at"]
        record = await self._arvados.record(access.token, container, select=columns)
        return ContainerState(
            state=str(record.get("state")),
            exit_code=record.get("exit_code"),
            log=record.get("log"),
            finished_at=record.get("finished_at"),
        )

    async def sizes(self, container: str, access: Access) -> dict[str, int]:
        """Names and sizes in bytes of all log files there are now."""
        request = await self._request(container, access)
        return await self._arvados.log_sizes(access.token, request, container)

    async def read(self, container: str, file: str, start: int, stop: int, access: Access) -> bytes:
        """Bytes from `start` up to before `stop`, fewer or none if the file has no more now."""
        request = await self._request(container, access)
        found = await self._arvados.log_range(
            access.token, request, container, file, start, stop - 1
        )
        return found.data[: stop - start]

    async def _request(self, container: str, access: Access) -> str:
        if access.request:
            return access.request
        query: dict[str, Any] = {
            "filters": [["container_uuid", "=", container]],
            "select": ["uuid"],
            "order": ["created_at desc"],
            "limit": 1,
            "count": "none",
        }
        answer = await self._arvados.get(access.token, "container_requests", query)
        items = answer.get("items")
        if not isinstance(items, list):
            raise BadInput("Arvados lists container requests without items")
        if not items:
            raise Refused(f"no container request shows container {container} to this token")
        return str(items[0]["uuid"])
