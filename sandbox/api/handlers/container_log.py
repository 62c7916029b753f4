# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`/arvados/v1/container_requests/{uuid}/log/…`: a WebDAV folder of container logs.

Only arvados-controller has it. The folder `{container uuid}` of the request's present container is
served by its gateway while the container is Locked or Running and has a gateway address; everything
else comes from the saved log collection of the request, where the log of each container stands in
the folder `log for container {uuid}` (docs/facts/arvados.md 4). The request and its container must
be readable; what is behind them is read with the controller's own token.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.responses import JSONResponse, Response, StreamingResponse

from arvados_nats.contract import subjects
from sandbox.api import errors
from sandbox.api.calls import Call
from sandbox.api.handlers import webdav
from sandbox.api.queries import readable
from sandbox.api.queries.arguments import Arguments
from sandbox.logs.container_logs import GatewayDown, LostBlock
from sandbox.logs.log_files import Source
from sandbox.model.refusal import Refusal, not_found

METHODS = ("GET", "HEAD", "OPTIONS", "PROPFIND")

_CHUNK = 1 << 18
_LIVE = ("Locked", "Running")
_PREFLIGHT = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Range, Depth, Destination, If, "
    "Lock-Token, Overwrite, Timeout, Cache-Control",
    "Access-Control-Allow-Methods": "COPY, DELETE, GET, LOCK, MKCOL, MOVE, OPTIONS, POST, "
    "PROPFIND, PROPPATCH, PUT, RMCOL, UNLOCK",
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Max-Age": "86400",
}
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Content-Range",
}


@dataclass(frozen=True, slots=True)
class Folder:
    """A tree of files by path, or none at all."""

    files: Mapping[str, Source]
    exists: bool = True


async def serve(call: Call, tail: str) -> Response:
    """Answer a request below `…/log`; `tail` is what follows it, with or without slashes."""
    if call.method == "OPTIONS" and "access-control-request-method" in call.headers:
        return Response(headers=_PREFLIGHT)
    request = await _readable_row(call, "container_requests", call.uuid)
    container = await _readable_row(call, "containers", request["container_uuid"])
    path = unquote(tail).strip("/")
    first, _, rest = path.partition("/")
    kind = subjects.kind_of(first)
    if kind is None or kind.name != "container":
        folder, rest = await _saved(call, request["log_uuid"], ""), path
    elif _is_live(container) and first == container["uuid"]:
        try:
            folder = Folder(call.backend.logs.live(first))
        except GatewayDown as down:
            return await _after_gateway(call, request, first, rest, down)
    else:
        folder = await _saved(call, request["log_uuid"], first)
    return _answer(call, folder, rest)


def _is_live(container: Mapping[str, object]) -> bool:
    return container["state"] in _LIVE and bool(container["gateway_address"])


async def _after_gateway(
    call: Call, request: Mapping[str, object], container: str, rest: str, down: GatewayDown
) -> Response:
    """The gateway failed: if the container ended meanwhile its saved log is served, else 503."""
    again = await _readable_row(call, "containers", container)
    if _is_live(again):
        return JSONResponse({"errors": [f"proxy error: {down}"]}, status_code=503, headers=_CORS)
    fresh = await _readable_row(call, "container_requests", str(request["uuid"]))
    return _answer(call, await _saved(call, fresh["log_uuid"], container), rest)


async def _readable_row(call: Call, table: str, uuid: object) -> Mapping[str, object]:
    if not call.caller.allows("GET", f"/arvados/v1/{table}/{uuid}"):
        raise errors.forbidden()
    arguments = Arguments()
    which = f"{table}.uuid = {arguments.add(uuid, 'text')}"
    may = readable.condition(call.backend.tables[table], call.caller, arguments)
    query = f"SELECT * FROM {table} WHERE {which} AND {may}"
    row = await call.backend.row(query, *arguments.values)
    if row is None:
        raise not_found()
    return row


async def _saved(call: Call, log_uuid: object, container: str) -> Folder:
    """The saved log, or the part of it that is about one container."""
    manifest = await call.backend.value(
        "SELECT manifest_text FROM collections WHERE uuid = $1", log_uuid
    )
    if manifest is None:
        return Folder({}, call.backend.logs.empty_folder or not container)
    try:
        files = call.backend.logs.saved(manifest)
    except LostBlock as lost:
        raise Refusal(502, f"Keep has no block {lost}") from lost
    if not container:
        return Folder(files)
    prefix = f"log for container {container}/"
    below = {k.removeprefix(prefix): v for k, v in files.items() if k.startswith(prefix)}
    return Folder(below, bool(below))


def _answer(call: Call, folder: Folder, path: str) -> Response:
    content = folder.files.get(path)
    entries = webdav.children(folder.files, path) if folder.exists else None
    if call.method == "OPTIONS":
        return _options(content, entries)
    if content is None and entries is None:
        raise Refusal(404, "Not Found")
    if call.method == "PROPFIND":
        return _propfind(call, content, entries or {})
    if content is None:
        return Response("Method Not Allowed", status_code=405, headers=_CORS)
    return _file(call, content)


def _options(content: Source | None, entries: Mapping[str, Source | None] | None) -> Response:
    allow = webdav.ALLOW_FOLDER if entries is not None else webdav.ALLOW_NOTHING
    if content is not None:
        allow = webdav.ALLOW_FILE
    return Response(headers={"Allow": allow, "Dav": "1, 2", "Ms-Author-Via": "DAV", **_CORS})


def _propfind(call: Call, content: Source | None, entries: Mapping[str, Source | None]) -> Response:
    if content is not None:
        text = webdav.file_status(call.path, content)
    else:
        text = webdav.multistatus(call.path, {} if call.headers.get("depth") == "0" else entries)
    return Response(text, 207, {**_CORS, "Content-Type": "text/xml; charset=utf-8"})


def _file(call: Call, content: Source) -> Response:
    part = webdav.part(call.headers.get("range"), content.size)
    headers = {
        **_CORS,
        "Accept-Ranges": "bytes",
        "Etag": webdav.etag(content),
        "Last-Modified": webdav.time_of(content),
    }
    if part.content_range:
        headers["Content-Range"] = part.content_range
    if part.status == 416:
        return Response("invalid range: failed to overlap\n", 416, headers)
    headers["Content-Type"] = "text/plain; charset=utf-8"
    headers["Content-Length"] = str(part.stop - part.start)
    if call.method == "HEAD":
        return Response(status_code=part.status, headers=headers)
    if part.stop - part.start <= _CHUNK:
        return Response(content.read(part.start, part.stop), part.status, headers)
    return StreamingResponse(_chunks(content, part.start, part.stop), part.status, headers)


async def _chunks(content: Source, start: int, stop: int) -> AsyncIterator[bytes]:
    while start < stop:
        data = content.read(start, min(start + _CHUNK, stop))
        if not data:
            return
        yield data
        start += len(data)
