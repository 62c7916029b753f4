# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Health and metrics of a service, as Arvados serves them (docs/facts/arvados.md 7).

`GET /_health/ping` and `GET /metrics`, both with `Authorization: Bearer <ManagementToken>`: without
a configured token 404, none sent 401, a wrong one 403. Unhealthy is HTTP 200 with
`{"health": "ERROR", "error": …}`; what else is worth knowing stands in `notes`, by part.

The address that is for operations alone answers two more paths, to anybody, for what starts and
stops processes: `/livez` while the event loop runs, `/readyz` between the start and the drain.
Neither looks at Arvados, PostgreSQL or NATS: a process that waits for them is not restarted for it.
"""

from __future__ import annotations

import hmac
import importlib.metadata
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from arvados_nats.errors import said
from arvados_nats.service import http_server

logger = logging.getLogger(__name__)


_LASTING_SECONDS = 5.0
VERSION = importlib.metadata.version("arvados-nats")
STARTING, STOPPING = "starting", "stopping"

DEGRADED = Gauge(
    "arvados_nats_degraded",
    "1 while a part of this process cannot do its work, or has not begun to, by part.",
    ["part"],
)


@dataclass(slots=True)
class Health:
    """What is wrong now, by part: no fault is healthy. Changes are logged."""

    faults: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    """What an operator may want to know of a part that is well."""
    _since: dict[str, tuple[float, str]] = field(default_factory=dict)

    def starting(self, part: str) -> None:
        """Not well until it says so."""
        self.faults.setdefault(part, STARTING)

    def fault(self, part: str, error: object) -> None:
        """What is wrong with a part; since when is remembered while it lasts."""
        text = said(error) if isinstance(error, BaseException) else str(error)
        if part not in self._since:  # a part that has not begun has a word already
            logger.warning(
                "degraded", extra={"action": "ops.degraded", "part": part, "error": text}
            )
            self._since[part] = time.monotonic(), time.strftime("%H:%M:%S UTC", time.gmtime())
        self.faults[part] = text
        if text not in (STARTING, STOPPING):
            DEGRADED.labels(part).set(1)

    def well(self, part: str) -> None:
        self._since.pop(part, None)
        if self.faults.pop(part, None) is not None:
            DEGRADED.labels(part).set(0)
            logger.info("recovered", extra={"action": "ops.recovered", "part": part})

    @property
    def ready(self) -> bool:
        """Whether all parts have begun and none is about to end; one that fails has begun."""
        return not {STARTING, STOPPING} & set(self.faults.values())

    @property
    def error(self) -> str | None:
        """All faults in one line; one that lasts with the time of its beginning."""
        told = []
        for part, error in self.faults.items():
            began, clock = self._since.get(part, (float("inf"), ""))
            lasts = time.monotonic() - began > _LASTING_SECONDS
            told.append(f"{part}: {error}" + (f" (since {clock})" if lasts else ""))
        return "; ".join(told) or None


Secret = Callable[[], str | None]
"""Gives the ManagementToken as it is now."""


def _refusal(request: Request, management_token: str | None) -> Response | None:
    if not management_token:
        return JSONResponse({"errors": ["not found"]}, 404)
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        return JSONResponse({"errors": ["authorization required"]}, 401)
    if not hmac.compare_digest(given.encode(), management_token.encode()):
        return JSONResponse({"errors": ["authorization error"]}, 403)
    return None


def add_routes(
    app: Starlette,
    health: Health,
    management_token: Secret,
    checks: tuple[str, ...] = ("ping",),
) -> None:
    """Serve health, as `/_health/<check>`, and metrics on `app`, behind the management token."""

    def guarded(answer: Callable[[], Response]) -> Callable[[Request], Response]:
        def serve(request: Request) -> Response:
            return _refusal(request, management_token()) or answer()

        return serve

    def ping() -> Response:
        error = health.error
        body = {"health": "ERROR", "error": error} if error else {"health": "OK"}
        more = {"notes": health.notes} if health.notes else {}
        return JSONResponse({**body, **more, "version": VERSION})

    def metrics() -> Response:
        # In a thread of its own: a part may be well again between one line and the next.
        for part, told in tuple(health.faults.items()):
            if told != STOPPING:  # who never began to work does not either
                DEGRADED.labels(part).set(1)
                if part not in health.faults:
                    DEGRADED.labels(part).set(0)
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    for check in checks:
        http_server.add_route(app, f"/_health/{check}", guarded(ping), "GET")
    http_server.add_route(app, "/metrics", guarded(metrics), "GET")


def _add_probes(app: Starlette, health: Health) -> None:
    async def live(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ok\n") if health.ready else PlainTextResponse("not ready\n", 503)

    http_server.add_route(app, "/livez", live, "GET")
    http_server.add_route(app, "/readyz", ready, "GET")


async def serve(address: str, health: Health, management_token: Secret) -> None:
    """Serve health and metrics on an address of their own until cancelled."""
    app = Starlette()
    add_routes(app, health, management_token)
    _add_probes(app, health)
    await http_server.serve(app, http_server.listen(address))
