# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who answers a WebSocket: by path, after the checks that hold for all protocols.

A refusal before the handshake reaches a browser as close code 1006 only (docs/facts/realtime.md
0.6), so nothing but the path, the origin, the number of connections, start and drain is refused
here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from wsproxy import metrics
from wsproxy.services import Services
from wsproxy.transport.close_codes import CloseCode
from wsproxy.transport.incoming import Incoming, Scope
from wsproxy.transport.limits import Place, TooMany, origin_allowed

logger = logging.getLogger(__name__)

Protocol = Callable[[Services, Incoming, Place], Awaitable[None]]
"""Accepts the socket, and talks until it is over."""


class Sockets:
    """Serves WebSockets; a scope is ASGI's."""

    def __init__(self, services: Services, protocols: Mapping[str, Protocol]) -> None:
        self._services = services
        self._protocols = protocols

    async def __call__(self, scope: Scope) -> None:
        """Serve one WebSocket."""
        incoming = Incoming(scope, self._services.transport.send_buffers)
        protocol = self._protocols.get(incoming.path)
        refusal = self._refusal(incoming)
        if protocol is None or refusal:
            incoming.refuse(*(refusal or self._refuse("path", 404, _NOT_FOUND)))
            return
        try:
            place = self._services.transport.tally.enter(incoming.address)
        except TooMany as error:
            incoming.refuse(*self._refuse("limit", 503, f"{error}\n"))
            return
        try:
            await protocol(self._services, incoming, place)
        finally:
            place.leave()

    def _refusal(self, incoming: Incoming) -> tuple[int, str] | None:
        services = self._services
        origin, host = incoming.header("origin"), incoming.header("host")
        if not origin_allowed(origin, host, services.transport.allowed_origins):
            return self._refuse("origin", 403, "pages of this origin may not connect here\n")
        if not services.events.source.ready.is_set():
            return self._refuse("start", 503, "this server has no events yet; try again\n")
        if services.transport.connections.draining:
            return self._refuse("drain", 503, "this server is about to stop; connect again\n")
        return None

    def _refuse(self, cause: str, status: int, text: str) -> tuple[int, str]:
        metrics.refused_sockets.labels(cause).inc()
        return status, text


_NOT_FOUND = "no WebSocket here: v0 is at /websocket, v1 at /v1/stream, WAMP at /wamp\n"


async def not_implemented(services: Services, incoming: Incoming, _: Place) -> None:
    """`/arvados/v1/events.ws`: arvados-ws lets clients in and closes at once, and so do we."""
    send_buffer = incoming.accept(services.transport.limits.pace)
    send_buffer.close(CloseCode.UNSUPPORTED, "Not implemented")
    send_buffer.gone()
