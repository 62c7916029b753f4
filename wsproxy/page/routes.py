# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the page is served with over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused
from arvados_nats.protocol_v1.messages import NOT_READABLE
from arvados_nats.service.http_server import add_route
from wsproxy.logins.logins import Logins
from wsproxy.page.processes import Processes
from wsproxy.page.search import Search
from wsproxy.page.site import Site
from wsproxy.services import Services
from wsproxy.transport import query as query_fields

STATIC = Path(__file__).parents[1] / "static"

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
_PRIVATE = {**_SAFE, "cache-control": "no-store"}
_WORKBENCH = {
    "cross-origin-resource-policy": "cross-origin",
    "cache-control": "public, max-age=300, stale-while-revalidate=86400, stale-if-error=604800",
}
"""Workbench's page does not wait for this script, nor for a proxy that is away, once it has it."""
_ANYBODY = {"access-control-allow-origin": "*"}
"""For what Arvados tells everybody."""


class PublicFiles(StaticFiles):
    """Files that pages of other origins may import: they hold nothing of anybody."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, with leave for everybody."""
        answer = await super().get_response(path, scope)
        answer.headers.update({**_SAFE, **_ANYBODY})
        return answer


Act = Callable[[Token, str, Mapping[str, str]], Awaitable[Response]]
"""With a token and the uuid of its user, what the query asks for."""


def add_routes(http: Starlette, services: Services) -> None:
    """Serve the page, its files, and what it asks for."""
    site, processes = Site(services.arvados), Processes(services.arvados)
    search = Search(services.arvados)

    async def about(request: Request) -> Response:
        """Which cluster this is, and where to log in."""
        try:
            told = await site.get(request.query_params.get("return_to", ""))
            return JSONResponse(told, headers={**_SAFE, **_ANYBODY})
        except ArvadosNatsError as error:
            return _refusal(error, 503)

    async def listed(token: Token, user: str, query: Mapping[str, str]) -> Response:
        """The newest processes."""
        return JSONResponse(await processes.newest(token, user, query), headers=_PRIVATE)

    async def searched(token: Token, user: str, query: Mapping[str, str]) -> Response:
        """Lines of a log file with a text in them."""
        steps = await search.steps(token, user, query)
        headers = {**_SAFE, "cache-control": "no-store, no-transform", "x-accel-buffering": "no"}
        return StreamingResponse(steps, media_type="application/x-ndjson", headers=headers)

    add_route(http, "/v1/site", about, "GET")
    for path, act in (("/v1/processes", listed), ("/v1/search", searched)):
        add_route(http, path, _with_token(services.logins, act), "GET")
    page = STATIC / "index.html"
    if page.exists():
        add_route(http, "/", lambda _: FileResponse(page, headers=_PAGE), "GET")
    files = PublicFiles(directory=STATIC, check_dir=False)

    async def workbench(request: Request) -> Response:
        """The script that a site may put into Workbench's page."""
        answer = await files.get_response("workbench.js", request.scope)
        answer.headers.update(_WORKBENCH)
        return answer

    add_route(http, "/workbench.js", workbench, "GET")
    http.mount("/static", files, name="static")


def _with_token(logins: Logins, act: Act) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() not in ("bearer", "oauth2") or not secret.strip():
            told = Refused("send the token as: Authorization: Bearer <token>")
            return _refusal(told, 401)
        try:
            query_fields.nothing_behind(request.headers)
        except BadInput as error:
            return _refusal(error, 400)
        token, address = Token(secret.strip()), request.client.host if request.client else ""
        try:
            user = (await logins.whose(token, address)).user_uuid
        except ArvadosNatsError as error:
            invalid = isinstance(error, Refused)
            return _refusal(Refused("the token is not valid") if invalid else error, 401)
        try:
            return await act(token, user, request.query_params)
        except ArvadosNatsError as error:
            return _refusal(Refused(NOT_READABLE) if isinstance(error, Refused) else error, 404)

    return answer


def _refusal(error: ArvadosNatsError, refused: int) -> Response:
    """An error as Arvados' API writes them."""
    status = refused if isinstance(error, Refused) else 400 if isinstance(error, BadInput) else 503
    headers = _SAFE | ({"retry-after": "2"} if status == 503 else {})
    return JSONResponse({"errors": [str(error)]}, status, headers)
