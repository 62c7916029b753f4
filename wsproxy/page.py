# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The page that people open, and what it cannot learn over a socket: where to log in, which
processes there are, where a text stands in a whole log.

The files are built from `web/`. Everything is asked of Arvados with the viewer's own token, so the
page shows nothing that they could not list themselves.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import subjects
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused, Unavailable
from arvados_nats.protocol_v1.messages import NOT_READABLE
from wsproxy.logs import search as log_search
from wsproxy.logs.saved import Access, SavedLogs
from wsproxy.logs.search import MOST_FOUND, Sought
from wsproxy.services import Services

STATIC = Path(__file__).parent / "static"

_SITE_SECONDS = 60.0
_MOST_PROCESSES = 100
_SEARCHES = 4
"""Logs that are searched at a time; each costs Arvados and this process as much as a download."""
_CALLS = 8
"""Lists that are asked of Arvados at a time."""
_REQUEST = (
    "uuid name state priority container_uuid container_count created_at modified_at owner_uuid"
    " output_uuid log_uuid cumulative_cost"
).split()
_CONTAINER = (
    "uuid state priority progress exit_code created_at started_at finished_at runtime_status cost"
).split()


_SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
"""A browser takes a file for what it is called, tells nobody whence it came, and asks whether there
is a newer one."""
_PAGE = {
    **_SAFE,
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-frame-options": "DENY",
}
"""Also in web/index.html, but for what a page cannot say of itself."""


class PublicFiles(StaticFiles):
    """Files that pages of other origins may import: they hold nothing of anybody."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, with leave for everybody."""
        answer = await super().get_response(path, scope)
        answer.headers["access-control-allow-origin"] = "*"
        answer.headers.update(_SAFE)
        return answer


class Site:
    """What Arvados says of itself to everybody, asked now and then."""

    def __init__(self, arvados: Arvados) -> None:
        self._arvados = arvados
        self._asking = asyncio.Lock()
        self._known: dict[str, str] | None = None
        self._until = 0.0

    async def get(self) -> dict[str, str]:
        """Where to log in, and where Workbench is."""
        async with self._asking:
            if self._known is None or time.monotonic() > self._until:
                self._known = site_of(await self._arvados.exported_config())
                self._until = time.monotonic() + _SITE_SECONDS
            return self._known


def site_of(config: Mapping[str, Any]) -> dict[str, str]:
    """What the page needs of an exported configuration. In a federation the login cluster asks
    who somebody is, and is told for which cluster."""
    cluster = str(config.get("ClusterID", ""))
    services = config.get("Services") or {}
    controller = _url(services.get("Controller"))
    asked = str((config.get("Login") or {}).get("LoginCluster") or cluster)
    login = urljoin(controller, "/login")
    if asked != cluster:
        other = (config.get("RemoteClusters") or {}).get(asked) or {}
        scheme, host = other.get("Scheme") or "https", other.get("Host")
        if not host:
            raise Unavailable(f"Arvados does not tell where its login cluster {asked} is")
        login = f"{scheme}://{host}/login?{urlencode({'remote': cluster})}"
    workbench = _url(services.get("Workbench2"))
    return {"cluster": cluster, "controller": controller, "login": login, "workbench": workbench}


def _url(service: Any) -> str:
    return str((service or {}).get("ExternalURL") or "")


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


class Search:
    """Lines in whole log files, a JSON object for each step: how far, and what was found."""

    def __init__(self, arvados: Arvados) -> None:
        self._saved = SavedLogs(arvados)
        self._running = asyncio.Semaphore(_SEARCHES)

    async def steps(self, token: Token, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """What to send, once Arvados has let the token read the first bytes."""
        sought, access = _asked(query), Access(token, query.get("request"))
        if self._running.locked():
            raise Unavailable("others are searching; come again")
        await self._saved.read(
            sought.container, sought.file, sought.start, sought.start + 1, access
        )
        return self._steps(sought, access)

    async def _steps(self, sought: Sought, access: Access) -> AsyncIterator[bytes]:
        count, told = 0, 0
        async with self._running:
            try:
                async for at, found in log_search.search(self._saved, sought, access):
                    count += len(found)
                    lines = [[line.offset, line.stamp] for line in found[: MOST_FOUND - told]]
                    told += len(lines)
                    yield _json({"at": at, "count": count, "lines": lines})
            except ArvadosNatsError as error:
                yield _json({"error": str(error)})


def _json(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _asked(query: Mapping[str, str]) -> Sought:
    try:
        start, stop = int(query.get("from", "")), int(query.get("to", ""))
    except ValueError:
        raise BadInput("from and to are numbers of bytes") from None
    container, file = query.get("container", ""), query.get("file", "")
    if subjects.kind_of(container) is None or not file:
        raise BadInput("container and file say where to look")
    return Sought(container, file, query.get("text", ""), start, stop)


def _token(request: Request) -> Token:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() not in ("bearer", "oauth2") or not secret.strip():
        raise Refused("send the token as: Authorization: Bearer <token>")
    return Token(secret.strip())


def add_routes(http: FastAPI, services: Services) -> None:
    """Serve the page, its files, and what it asks for."""
    site, processes = Site(services.arvados), Processes(services.arvados)
    search = Search(services.arvados)

    async def about() -> Response:
        """Which cluster this is, and where to log in."""
        try:
            return JSONResponse(await site.get(), headers=_SAFE)
        except ArvadosNatsError as error:
            return _refusal(error)

    async def listed(request: Request) -> Response:
        """The newest processes."""
        try:
            items = await processes.newest(_token(request), request.query_params)
        except ArvadosNatsError as error:
            return _refusal(error)
        return JSONResponse({"items": items}, headers={**_SAFE, "cache-control": "no-store"})

    async def searched(request: Request) -> Response:
        """Lines of a log file with a text in them."""
        try:
            token = _token(request)
        except Refused as error:
            return _refusal(error)
        try:
            steps = await search.steps(token, request.query_params)
        except Refused:
            return JSONResponse({"errors": [NOT_READABLE]}, 404)
        except ArvadosNatsError as error:
            return _refusal(error)
        headers = {"cache-control": "no-store, no-transform", "x-accel-buffering": "no"}
        return StreamingResponse(steps, media_type="application/x-ndjson", headers=headers)

    http.add_api_route("/v1/search", searched, methods=["GET"])
    http.add_api_route("/v1/site", about, methods=["GET"])
    http.add_api_route("/v1/processes", listed, methods=["GET"])
    if (STATIC / "index.html").exists():
        page = STATIC / "index.html"
        http.add_api_route("/", lambda: FileResponse(page, headers=_PAGE), include_in_schema=False)
    http.mount("/static", PublicFiles(directory=STATIC, check_dir=False), name="static")


def _refusal(error: ArvadosNatsError) -> Response:
    status = 401 if isinstance(error, Refused) else 400 if isinstance(error, BadInput) else 503
    headers = _SAFE | ({"retry-after": "2"} if status == 503 else {})
    return JSONResponse({"errors": [str(error)]}, status, headers)
