# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Serve an ASGI application inside a running loop, next to other tasks.

uvicorn takes over the signals of the process and exits it when a port is taken; here the service
owns the signals, and a taken port is a Disagreement: whoever has it may be about to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from arvados_nats.errors import ConfigError, Disagreement, said
from arvados_nats.service import door
from arvados_nats.service.door import Doors

_BACKLOG = 4096
_ANY = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
_IN_USE = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
"""What another process, or a network that is not up yet, is the reason for."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def add_route(app: Starlette, path: str, endpoint: Callable[..., Any], *methods: str) -> None:
    """Answer these methods of `path` and no others: Starlette takes HEAD for GET, streams too."""
    route = Route(path, endpoint, methods=methods)
    route.methods = set(methods)
    app.routes.append(route)


def listen(address: str, *, shared: bool = False) -> socket.socket:
    """A listening socket on `host:port` (`[::1]:80` for IPv6; port 0 takes a free one).

    `*:80` is every address of this machine, of IPv6 and IPv4 alike. `shared`: other processes of
    the same user may listen there too, if they say the same.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal():
        raise ConfigError(f"not an address to listen on: {address!r}; give host:port")
    if host == "*":
        host = "::" if _has_ipv6() else "0.0.0.0"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # asyncio leaves Nagle on for sockets made like this: 40 ms on every answer in two writes.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((host, int(port)))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        kind = Disagreement if error.errno in _IN_USE else ConfigError
        raise kind(f"cannot listen on {address}: {said(error)}") from error
    sock.setblocking(False)
    return sock


def here(address: str) -> str:
    """Where this machine itself reaches what listens on `address`: as `host:port`."""
    host, _, port = address.rpartition(":")
    return f"{_ANY.get(host, host)}:{port}"


def _has_ipv6() -> bool:
    """Not where the kernel was told to have none, or a container was given none."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::", 0))
    except OSError:
        return False
    return True


def _as_they_came(app: Any) -> Any:
    """Who comes by IPv4 to a socket for both has the address that trusted proxies are named by."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if client := scope.get("client"):
            host, *rest = client
            scope["client"] = (host.removeprefix("::ffff:") if "." in host else host, *rest)
        await app(scope, receive, send)

    return answer


async def serve(
    app: Any,
    sock: socket.socket,
    *,
    full: asyncio.Event | None = None,
    trusted_proxies: str = "127.0.0.1",
    **options: Any,
) -> None:
    """Serve `app` on a listening socket until cancelled, then shut down in order.

    Once `full` is set nobody new comes in; who is there is served on. What `trusted_proxies` say of
    who comes is believed. `options` are uvicorn's own (`ws`, `ws_max_size`, `ssl_keyfile`, …).
    """

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        with door.answering():
            await app(scope, receive, send)

    config = uvicorn.Config(
        _as_they_came(ProxyHeadersMiddleware(answer, trusted_proxies)),
        **{
            "proxy_headers": False,
            "log_config": None,
            "access_log": False,
            "lifespan": "off",
            "ws": "none",
            "http": Doors().open,
            "h11_max_incomplete_event_size": door.HEAD_BYTES,
            "timeout_graceful_shutdown": 5,
            "backlog": _BACKLOG,
            "server_header": False,
            **options,
        },
    )
    server = _Server(config)

    async def close_the_door(full: asyncio.Event) -> None:
        await full.wait()
        for listener in server.servers:
            listener.close()

    closing = asyncio.create_task(close_the_door(full)) if full else None
    try:
        await server.serve(sockets=[sock])
    finally:
        if closing:
            closing.cancel()
        if server.started:
            await server.shutdown(sockets=[sock])
        sock.close()
