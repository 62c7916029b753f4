# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The request of a WebSocket, as uvicorn has parsed it, and what answers it. Pure.

uvicorn says the request again in one piece: here it is only taken apart, and websockets answers
what of it is a handshake.
"""

from __future__ import annotations

import logging
import urllib.parse
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

silent = logging.getLogger(f"{__name__}.silent")
"""For websockets, which logs headers and frames at DEBUG (docs/facts/realtime.md 0.7)."""
silent.disabled = True

_handshake = ServerProtocol(logger=silent)
"""Answers all handshakes; it keeps the last that failed, and no other."""
_OF_HANDSHAKES = ("connection", "upgrade", "origin", "sec-websocket-")


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A request; header names are in lower case."""

    path: str
    query: dict[str, str]
    headers: list[tuple[str, str]]
    response: Response

    @property
    def upgrades(self) -> bool:
        """Whether the response makes it a WebSocket."""
        return self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS

    def scope(self, client: object, *, secure: bool) -> dict[str, Any]:
        """What an ASGI application is told, without the query, which may hold a token."""
        offered = ",".join(v for name, v in self.headers if name == "sec-websocket-protocol")
        return {
            "type": "websocket",
            "scheme": "wss" if secure else "ws",
            "client": tuple(client[:2]) if isinstance(client, tuple) else None,
            "path": urllib.parse.unquote(self.path),
            "query_string": b"",
            "headers": [
                (name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers
            ],
            "subprotocols": [word.strip() for word in offered.split(",") if word.strip()],
        }


def read(head: bytes) -> Upgrade:
    """What is asked for, and the answer to it."""
    line, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = line.split(" ")
    path, _, query = target.partition("?")
    headers = [(name.lower(), value) for name, _, value in (f.partition(": ") for f in fields)]
    parsed = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    return Upgrade(path, parsed, headers, _answer(method, path, headers))


def _answer(method: str, path: str, headers: list[tuple[str, str]]) -> Response:
    if method != "GET":
        return refusal(HTTPStatus.METHOD_NOT_ALLOWED, "a handshake is a GET\n")
    of_handshake = [field for field in headers if field[0].startswith(_OF_HANDSHAKES)]
    try:
        return _handshake.accept(Request(path, Headers(of_handshake)))
    except InvalidHeader as error:
        return refusal(HTTPStatus.BAD_REQUEST, f"{error}\n")


def refusal(status: int, text: str) -> Response:
    """An HTTP answer that ends the connection."""
    body = text.encode()
    headers = Headers(
        {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
    )
    return Response(status, HTTPStatus(status).phrase, headers, body)
