# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The HTTP side of `sse`: routes, status codes, and leave for pages of other origins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import subjects
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused, Unavailable
from arvados_nats.protocol_v1.messages import NOT_READABLE
from arvados_nats.service import door
from arvados_nats.service.http_server import add_route
from wsproxy import metrics
from wsproxy.services import Services
from wsproxy.transport import query as query_fields
from wsproxy.transport.limits import TooMany, origin_allowed
from wsproxy.v1.sse import BadToken, LogEvents, target_of

_KINDS = {"container_requests": "container_request", "containers": "container"}
_ALLOWED = {
    "access-control-allow-methods": "GET, OPTIONS",
    "access-control-allow-headers": "Authorization, Last-Event-ID",
    "access-control-max-age": "86400",
}


def add_routes(http: Starlette, services: Services) -> None:
    """Serve `log_events` below container requests and containers."""

    async def preflight(request: Request) -> Response:
        return Response(None, 204, {**_ALLOWED, **_cross_origin(services, request)})

    for path, kind in _KINDS.items():
        route = f"/arvados/v1/{path}/{{uuid}}/log_events"
        add_route(http, route, _events(services, kind), "GET")
        add_route(http, route, preflight, "OPTIONS")


def _events(services: Services, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def log_events(request: Request) -> Response:
        """Log files of a container (request) as server-sent events."""
        return _answer(services, request, request.path_params["uuid"], kind)

    return log_events


def _answer(services: Services, request: Request, uuid: str, kind: str) -> Response:
    cross = _cross_origin(services, request)
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() not in ("bearer", "oauth2") or not secret.strip():
        return _error(401, "send the token as: Authorization: Bearer <token>", cross)
    named = subjects.kind_of(uuid)
    if named is None or named.name != kind:
        return _error(404, NOT_READABLE, cross)
    try:
        query = request.query_params
        query_fields.nothing_behind(request.headers)
        # A polyfill adds its own to an address that may name an older one.
        resumed = query.get("lastEventId") or query.get("last_event_id")
        last = request.headers.get("last-event-id") or resumed
        target, done = target_of(services, uuid, request.query_params, last)
    except BadInput as error:
        return _error(400, str(error), cross)
    if done:
        return Response(None, 204, cross)
    return EventStream(services, Token(secret.strip()), LogEvents(services, target), cross)


class EventStream(Response):
    """The response; refusals of the subscription become its status."""

    def __init__(
        self, services: Services, token: Token, events: LogEvents, headers: dict[str, str]
    ) -> None:
        super().__init__()
        self._services = services
        self._token = token
        self._events = events
        self._cross = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        address = (scope.get("client") or ("",))[0]
        services = self._services
        place = None
        try:
            if services.transport.connections.draining:
                raise Unavailable("the server is about to stop")
            place = services.transport.tally.enter(address)
            door.stays()
            extra = [(name.encode(), value.encode()) for name, value in self._cross.items()]
            await self._events.serve(place, self._token, receive, send, extra)
        except ArvadosNatsError as error:
            if place is None:
                metrics.refused_sockets.labels("limit").inc()
                error = Unavailable(str(error))
            await _refusal(error, self._cross)(scope, receive, send)
        finally:
            if place is not None:
                place.leave()


def _refusal(error: ArvadosNatsError, headers: dict[str, str]) -> Response:
    if isinstance(error, BadToken):
        return _error(401, str(error), headers)
    if isinstance(error, TooMany):
        return _error(429, str(error), {"retry-after": "2", **headers})
    if isinstance(error, Refused):
        return _error(404, NOT_READABLE, headers)
    if isinstance(error, BadInput):
        return _error(400, str(error), headers)
    return _error(503, str(error), {"retry-after": "2", **headers})


def _error(status: int, text: str, headers: dict[str, str]) -> Response:
    """An error as Arvados' API writes them."""
    body: dict[str, Any] = {"errors": [text]}
    return JSONResponse(body, status, headers)


def _cross_origin(services: Services, request: Request) -> dict[str, str]:
    """Leave for a page of another origin to read the answer, if it may connect at all."""
    origin = request.headers.get("origin")
    if origin is None or not origin_allowed(
        origin, request.headers.get("host"), services.transport.allowed_origins
    ):
        return {}
    anybody = "*" in services.transport.allowed_origins
    return {"access-control-allow-origin": "*" if anybody else origin, "vary": "Origin"}
