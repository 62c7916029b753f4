# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""JSON answers with the headers of the recorded Rails server."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from starlette.responses import Response

CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, PUT, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "86486400",
}
_JSON = "application/json; charset=utf-8"


def plain_json(body: Any, status: int) -> Response:
    """An answer that is made outside the usual ways."""
    return Response(msgspec.json.encode(body), status, {**CORS, "Content-Type": _JSON})


def json_answer(body: Any, status: int, request_id: str) -> Response:
    """An answer with request id, entity tag and caching rule."""
    data = msgspec.json.encode(body)
    headers = {**CORS, "X-Request-Id": request_id, "Content-Type": _JSON}
    if status == 200:
        headers["Etag"] = f'W/"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        headers["Cache-Control"] = "max-age=0, private, must-revalidate"
    else:
        headers["Cache-Control"] = "no-cache"
    return Response(data, status, headers)
