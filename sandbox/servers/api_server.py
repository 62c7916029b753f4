# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Serve an ASGI application on a free port of this machine, inside the running loop.

For tests, demo and benchmarks: the server can be taken away and put back on the same port.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from arvados_nats.service import http_server

_KEEP_ALIVE_SECONDS = 120
_GRACE_SECONDS = 1


class ApiServer:
    """One listening server; get one from `run`."""

    def __init__(self, app: Any, certificate: tuple[Path, Path] | None = None) -> None:
        self._app = app
        self._certificate = certificate
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    @property
    def host(self) -> str:
        """Name and port, as ARVADOS_API_HOST has them."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{'https' if self._certificate else 'http'}://{self.host}"

    async def start(self) -> None:
        """Listen; again on the former port after `stop`. Connections are accepted at once."""
        sock = http_server.listen(self.host)
        self.port = sock.getsockname()[1]
        options: dict[str, Any] = {
            "timeout_keep_alive": _KEEP_ALIVE_SECONDS,
            "timeout_graceful_shutdown": _GRACE_SECONDS,
        }
        if self._certificate:
            options["ssl_certfile"], options["ssl_keyfile"] = map(str, self._certificate)
        self._task = asyncio.create_task(http_server.serve(self._app, sock, **options))

    async def stop(self) -> None:
        """Refuse connections: close those that are open and listen no more."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None


@asynccontextmanager
async def run(
    app: Any, *, certificate: tuple[Path, Path] | None = None
) -> AsyncIterator[ApiServer]:
    """`app` on a free port; over TLS with a `certificate`, the files of chain and key."""
    server = ApiServer(app, certificate)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
