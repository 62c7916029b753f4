# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The ASGI application of the API server: request in, answer out.

A request is counted, meets the faults that a test switched on, is matched to a route, its token is
asked for who sends it, and its handler answers. Headers and error bodies are those of the recorded
Rails server; only the container log endpoint is arvados-controller's.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox.api import errors, faults, parameters, routes, tokens
from sandbox.api.answers import CORS, json_answer
from sandbox.api.calls import Backend, Call
from sandbox.api.handlers import container_log
from sandbox.api.parameters import Parameters
from sandbox.model.refusal import Refusal, not_found, not_logged_in


class ApiApp:
    """The application; `backend.faults` counts its calls and lets them fail."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        with self.backend.faults.under_way():
            response = await self._respond(request)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        request_id = request.headers.get("x-request-id") or f"req-{secrets.token_hex(10)}"
        name = faults.route(request.method, request.url.path)
        status = await self.backend.faults.meet(name)
        if status is not None:
            refusal = Refusal(status, "fault switched on")
            return json_answer(errors.body(refusal, request_id), status, request_id)
        try:
            with errors.from_database():
                answer = await self._answer(request)
        except Refusal as refusal:
            return json_answer(errors.body(refusal, request_id), refusal.status, request_id)
        if isinstance(answer, Response):
            answer.headers["X-Request-Id"] = request_id
            return answer
        return json_answer(answer, 200, request_id)

    async def _answer(self, request: Request) -> Any:
        path = request.url.path
        release = self.backend.cluster.config.release
        log = routes.log_folder(path) if release >= "2.7" else None
        if request.method == "OPTIONS" and log is None:
            return Response(media_type="text/plain", headers=CORS)
        given = await _parameters(request)
        call = Call(
            backend=self.backend,
            method=request.method,
            path=path,
            headers=request.headers,
            parameters=given,
            host=request.headers.get("host", ""),
        )
        if log is not None and request.method in container_log.METHODS:
            call.uuid, tail = log
            await self._identify(call, public=request.method == "OPTIONS")
            return await container_log.serve(call, tail)
        route = routes.find(_method(request, given), path)
        if route is None:
            raise not_found()
        call.resource, call.uuid = route.resource, route.uuid
        await self._identify(call, public=route.public)
        return await route.handler(call)

    def _always_allowed(self, path: str) -> bool:
        return routes.always_allowed(path) and self.backend.cluster.config.release >= "2.7"

    async def _identify(self, call: Call, *, public: bool) -> None:
        for token in tokens.presented(call.headers, call.parameters):
            remote = call.parameters.get("remote")
            try:
                found = await tokens.caller(self.backend.cluster, token, remote)
            except Refusal:
                continue
            if not public and not self._always_allowed(call.path):
                if not found.allows(call.method, call.path):
                    raise errors.forbidden()
            call.identify(found)
            return
        if not public:
            raise not_logged_in()


async def _parameters(request: Request) -> Parameters:
    found = parameters.query(request.url.query)
    data = await request.body()
    return found | parameters.body(request.headers.get("content-type", ""), data)


def _method(request: Request, given: Mapping[str, Any]) -> str:
    """The method that is meant: `_method` works in an urlencoded body only."""
    if request.method != "POST":
        return request.method
    override = request.headers.get("x-http-method-override")
    urlencoded = request.headers.get("content-type", "").startswith("application/x-www-form")
    if not override and urlencoded and "_method" not in parameters.query(request.url.query):
        override = given.get("_method")
    return str(override or "POST").upper()
