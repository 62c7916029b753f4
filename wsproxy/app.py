# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""All that wsproxy answers over HTTP, and which protocol a WebSocket speaks.

Starlette answers plain requests; WebSockets go past it, since a router and a stack of middleware
per connection cost more memory than the session itself.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from arvados_nats.service import http_server, ops
from arvados_nats.service.ops import Health
from wsproxy.log_folder import routes as log_folder
from wsproxy.page import routes as page
from wsproxy.services import Services
from wsproxy.sockets import Protocol, Sockets, not_implemented
from wsproxy.transport.incoming import Receive, Scope, Send
from wsproxy.v0 import connection as socket_v0
from wsproxy.v1 import connection as socket_v1
from wsproxy.v1 import sse_routes
from wsproxy.wamp import connection as socket_wamp

HEALTH_CHECKS = ("ping", "db")
"""`db` is what arvados-ws has, and what monitoring of a site may look at."""

PROTOCOLS: dict[str, Protocol] = {
    "/websocket": socket_v0.serve,
    "/v1/stream": socket_v1.serve,
    "/wamp": socket_wamp.serve,
    "/arvados/v1/events.ws": not_implemented,
}


class App:
    """The ASGI application: `http` is the part of plain requests, for further routes."""

    def __init__(self, services: Services, health: Health, management_token: ops.Secret) -> None:
        self.http = Starlette()
        self._sockets = Sockets(services, PROTOCOLS)
        ops.add_routes(self.http, health, management_token, HEALTH_CHECKS)
        sse_routes.add_routes(self.http, services)
        _refuse_plain_requests(self.http)
        page.add_routes(self.http, services)
        log_folder.add_routes(self.http, services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            await self._sockets(scope)
        else:
            await self.http(scope, receive, send)


def _refuse_plain_requests(http: Starlette) -> None:
    def no_websocket(_: Request) -> Response:
        """What arvados-ws says, and what the installation guide tells people to look for."""
        return PlainTextResponse("not websocket protocol\n", 400)

    for path in PROTOCOLS:
        http_server.add_route(http, path, no_websocket, "GET", "HEAD")
