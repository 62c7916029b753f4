# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The log folder over HTTP: answered whole, or left to the controller.

Stands before the controller at its own path, so that nothing need be told to whom reads there
(docs/workbench.md). What is certain is answered as the controller does; everything else, refusals
too, is 421, on which the proxy in front asks the controller: nobody is told no by us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from arvados_nats.arvados.log_folder import Entry, Form
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import subjects
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.service.http_server import add_route
from wsproxy import metrics
from wsproxy.log_folder import ranges
from wsproxy.log_folder.ranges import Part
from wsproxy.log_folder.readers import Reader, Readers
from wsproxy.services import Services
from wsproxy.transport import query as query_fields
from wsproxy.transport.limits import origin_allowed

PATH = "/arvados/v1/container_requests/{uuid}/log/{path:path}"
METHODS = ("GET", "HEAD", "OPTIONS", "PROPFIND")
LEFT = 421
"""Misdirected Request: the status that sends the proxy in front to the controller."""
MOST_BYTES = 1024 * 1024
"""Of one answer; whole logs come from the controller."""
AT_ONCE = 64
"""Questions under way: so many answers may be in memory."""

_CORS = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "Content-Range",
}
_NO_STORE = {"cache-control": "no-store"}
_DEPTHS = (None, "0", "1", "infinity")
_CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range")


def add_routes(http: Starlette, services: Services) -> None:
    """Serve log folders below container requests."""
    readers, room = Readers(services), asyncio.Semaphore(AT_ONCE)

    async def log_folder(request: Request) -> Response:
        """A container's log folder, or one file of it."""
        uuid = request.path_params["uuid"]
        asked = _understood(services, request, uuid, request.path_params["path"])
        answer = None
        if asked is not None and not room.locked():
            token, container, rest = asked
            async with room:
                answer = await _answer(readers, request, token, uuid, container, rest)
        metrics.log_folder.labels("left" if answer is None else "answered").inc()
        return answer or _left()

    add_route(http, PATH, log_folder, *METHODS)


def _left() -> Response:
    return JSONResponse({"errors": ["ask the controller"]}, LEFT, _NO_STORE)


def _understood(
    services: Services, request: Request, uuid: str, path: str
) -> tuple[Token, str, str] | None:
    """Token, container, and what follows it; None for what Workbench does not ask in that way."""
    headers = request.headers
    container, slash, rest = path.partition("/")
    kinds = [kind and kind.name for kind in (subjects.kind_of(uuid), subjects.kind_of(container))]
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    transport = services.transport
    if (
        kinds != ["container_request", "container"]
        or request.method == "OPTIONS"
        or request.url.query
        or scheme.lower() not in ("bearer", "oauth2")
        or not secret.strip()
        or any(name in headers for name in _CONDITIONS)
        or query_fields.has_body(headers)
        or transport.connections.draining
        or not origin_allowed(headers.get("origin"), headers.get("host"), transport.allowed_origins)
    ):
        return None
    return Token(secret.strip()), container, f"{slash}{rest}"


async def _answer(
    readers: Readers, request: Request, token: Token, uuid: str, container: str, rest: str
) -> Response | None:
    address = request.client.host if request.client else ""
    try:
        with readers.of(token, uuid, address) as reader:
            if request.method == "PROPFIND":
                answer = await _listed(reader, request.headers, container, rest)
            else:
                answer = await _file(reader, request, container, rest)
            await reader.folder(container)  # Arvados may have been asked for long
            return answer
    except (ArvadosNatsError, TimeoutError):
        return None


async def _listed(
    reader: Reader, headers: Mapping[str, str], container: str, rest: str
) -> Response | None:
    depth = headers.get("depth")
    if rest not in ("", "/") or depth not in _DEPTHS:
        return None
    folder = await reader.folder(container)
    listing = await folder.listing(reader.access, Form(rest, depth))
    if depth != "0" and not any(entry.size for entry in listing.files.values()):
        return None
    return Response(listing.body, 207, {**_CORS, "content-type": listing.content_type})


async def _file(reader: Reader, request: Request, container: str, rest: str) -> Response | None:
    name = rest.removeprefix("/")
    if not name or "/" in name or name != unquote(name):
        return None
    folder = await reader.folder(container)
    header = request.headers.get("range")
    entry = await folder.file(reader.access, name, _first(header))
    part = ranges.part(header, entry.size) if entry and entry.size else None
    if entry is None or part is None or part.stop - part.start > MOST_BYTES:
        return None
    headers = _headers(entry, part)
    if part.status == 416:
        return Response("invalid range: failed to overlap\n", 416, headers)
    if request.method == "HEAD":
        return Response(None, part.status, headers)
    data = await folder.read(reader.access, name, part.start, part.stop)
    return Response(data, part.status, headers)


def _first(header: str | None) -> int | None:
    """The first byte that is asked for, so far as that may be beyond the end."""
    part = ranges.part(header, 1 << 62) if header else None
    return part.start if part else None


def _headers(entry: Entry, part: Part) -> dict[str, str]:
    told = {
        **_CORS,
        "accept-ranges": "bytes",
        "etag": entry.etag,
        "last-modified": entry.last_modified,
        "content-range": part.content_range or "",
    }
    if part.status != 416:
        told["content-type"] = entry.content_type
        told["content-length"] = str(part.stop - part.start)
    return {name: value for name, value in told.items() if value}
