# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Log files as Arvados' log API has them: what left the stream, and containers that ended long ago.

An edge to Arvados, with the readers' own tokens: wsproxy has none. The API serves logs below a
container request (docs/facts/arvados.md 4), so a reader of a container needs a request that shows
it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import BadInput, Refused, Unavailable

FINAL = ("Complete", "Cancelled")
_REQUESTS = 10_000
_EMPTY = "d41d8cd98f00b204e9800998ecf8427e+"
"""The portable data hash of a collection without files."""


@dataclass(frozen=True, slots=True)
class Access:
    """By what a reader reads the logs of a container: a token, and the request, if known."""

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

    @property
    def has_log(self) -> bool:
        """Whether a log with any file in it was saved."""
        return bool(self.log) and not str(self.log).startswith(_EMPTY)


class SavedLogs:
    """The log API of one cluster."""

    def __init__(self, arvados: Arvados) -> None:
        self._arvados = arvados
        self._requests: OrderedDict[tuple[bytes, str], str] = OrderedDict()

    async def state(self, container: str, access: Access) -> ContainerState:
        """The state of a container; Refused if the reader may not see it."""
        columns = ["uuid", "state", "exit_code", "log", "finished_at"]
        record = await self._arvados.record(access.token, container, select=columns)
        return ContainerState(
            state=str(record.get("state")),
            exit_code=record.get("exit_code"),
            log=record.get("log"),
            finished_at=record.get("finished_at"),
        )

    async def sizes(self, container: str, access: Access) -> dict[str, int]:
        """Names and sizes in bytes of all log files there are now.

        Refused if the saved log is gone; 404 alone is also what a log without files gives.
        """
        request = await self._request(container, access)
        try:
            return await self._arvados.log_sizes(access.token, request, container)
        except Refused:
            record = await self._arvados.record(access.token, request, select=["uuid", "log_uuid"])
            if record.get("log_uuid"):
                await self._arvados.record(access.token, record["log_uuid"], select=["uuid"])
            return {}

    async def read(self, container: str, file: str, start: int, stop: int, access: Access) -> bytes:
        """Bytes from `start` up to before `stop`, fewer or none if the file has no more now.

        Refused if Arvados does not show this reader where the file would be.
        """
        while True:
            guessed = (access.token.digest, container) in self._requests
            request = await self._request(container, access)
            found = await self._arvados.log_range(
                access.token, request, container, file, start, stop - 1
            )
            if found.size is not None:
                return found.data[: stop - start]
            # No such file; or the request that showed the container does not, or no longer.
            if access.request or not guessed:
                listed = await self.sizes(container, access)
                if listed.get(file, 0) > start:
                    raise Unavailable(f"Arvados lists {file}, and does not find it")
                return b""
            self._requests.pop((access.token.digest, container), None)

    async def _request(self, container: str, access: Access) -> str:
        known = access.request or self._requests.get((access.token.digest, container))
        if known:
            return known
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
        request = self._requests[access.token.digest, container] = str(items[0]["uuid"])
        if len(self._requests) > _REQUESTS:
            self._requests.popitem(last=False)
        return request
