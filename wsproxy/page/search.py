# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where a text stands in a whole log, for the page's find."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping

from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import subjects
from arvados_nats.errors import ArvadosNatsError, BadInput, Unavailable
from arvados_nats.service import door
from wsproxy.logs import search as log_search
from wsproxy.logs.saved import Access, SavedLogs
from wsproxy.logs.search import MOST_FOUND, Sought
from wsproxy.transport import query as query_fields
from wsproxy.transport.fair import Fair

SEARCHES = 8
"""Logs that are searched at a time; each costs Arvados and this process as much as a download."""
SEARCHES_OF_USER = 2


class Search:
    """Lines in whole log files, a JSON object for each step: how far, and what was found."""

    def __init__(self, arvados: Arvados) -> None:
        self._saved = SavedLogs(arvados)
        self._fair = Fair(SEARCHES, SEARCHES_OF_USER)

    async def steps(
        self, token: Token, user: str, query: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        """What to send, once Arvados has let the token read the first bytes."""
        sought, access = _asked(query), Access(token, query.get("request"))
        if self._fair.full(user):
            raise Unavailable("too many searches are under way; come again")
        await self._saved.read(
            sought.container, sought.file, sought.start, sought.start + 1, access
        )
        return self._steps(user, sought, access)

    async def _steps(self, user: str, sought: Sought, access: Access) -> AsyncIterator[bytes]:
        count, told = 0, 0
        async with self._fair.turn(user):
            try:
                async for at, found in log_search.search(self._saved, sought, access):
                    count += len(found)
                    lines = [[line.offset, line.stamp] for line in found[: MOST_FOUND - told]]
                    told += len(lines)
                    yield _json({"at": at, "count": count, "lines": lines})
                    door.goes_on()
            except ArvadosNatsError as error:
                yield _json({"error": str(error)})


def _json(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _asked(query: Mapping[str, str]) -> Sought:
    query_fields.only(query, "request", "container", "file", "text", "from", "to")
    try:
        start, stop = int(query.get("from", "")), int(query.get("to", ""))
    except ValueError:
        raise BadInput("from and to are numbers of bytes") from None
    container, file = query.get("container", ""), query.get("file", "")
    if subjects.kind_of(container) is None or not file:
        raise BadInput("container and file say where to look")
    return Sought(container, file, query.get("text", ""), start, stop)
