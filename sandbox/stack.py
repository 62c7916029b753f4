# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The product's own services as processes beside a sandbox, each told where things are.

They are started as an operator would start them, `arvados-nats <service>`, and are ready when their
`/_health/ping` says so. A service can be stopped, killed and started again on the same port.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from arvados_nats.errors import Unavailable
from sandbox.sandbox import MANAGEMENT_TOKEN, Sandbox
from sandbox.servers import child, ports
from sandbox.servers.child import Child

_START_SECONDS = 60.0
_HEALTHY = "OK"


@dataclass(slots=True)
class Service:
    """One of our services: what it is started with, and the process while it runs."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ops_port: int
    program: Sequence[str | Path] = (sys.executable, "-m", "arvados_nats")
    process: Child | None = None

    async def start(self, *, well: bool = True) -> None:
        """Start it, and wait until it says that it is well; or only that it serves, since none is
        well without publishers."""
        await self.ready(self.launch(), well=well)

    def launch(self) -> Child:
        """Start it."""
        self.process = child.start(
            [*self.program, *self.arguments],
            log=self.log,
            environment=self.environment,
        )
        return self.process

    async def ready(self, process: Child, *, well: bool = True) -> None:
        """Wait until it says that it is well, or that it serves."""
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.ops_port}",
            headers={"Authorization": f"Bearer {MANAGEMENT_TOKEN}"},
            verify=False,  # nothing is encrypted here, and reading all authorities takes 20 ms
        ) as client:
            check = _is_well if well else _is_ready
            await child.ready(process, lambda: check(client), _START_SECONDS)

    async def stop(self, within: float = 15.0) -> None:
        """SIGTERM, and SIGKILL when it has not ended `within` seconds."""
        if self.process:
            await self.process.stop(signal.SIGTERM, within)

    async def kill(self) -> None:
        """SIGKILL."""
        if self.process:
            await self.process.kill()

    @property
    def output(self) -> str:
        """All that it has logged."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


async def _is_well(client: httpx.AsyncClient) -> bool:
    try:
        answer = await client.get("/_health/ping")
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and answer.json()["health"] == _HEALTHY


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass(slots=True)
class Stack:
    """The services by name, and where clients find them."""

    sandbox: Sandbox
    folder: Path
    proxy_port: int
    services: dict[str, Service] = field(default_factory=dict)

    @property
    def page_url(self) -> str:
        return f"http://127.0.0.1:{self.proxy_port}"

    @property
    def websocket_url(self) -> str:
        """What `Services.Websocket.ExternalURL` would be."""
        return f"ws://127.0.0.1:{self.proxy_port}/websocket"

    @property
    def stream_url(self) -> str:
        """Protocol v1."""
        return f"ws://127.0.0.1:{self.proxy_port}/v1/stream"

    @property
    def output(self) -> str:
        """All that all services have logged."""
        return "".join(service.output for service in self.services.values())

    def add(self, name: str, arguments: Sequence[str], **environment: str) -> Service:
        """Describe one more service, for example a second replica; `start` it yourself."""
        ops_port = next(ports.candidates())
        service = Service(
            name,
            arguments,
            {
                **{key: value for key, value in os.environ.items() if "ARVADOS" not in key},
                **self.sandbox.environment,
                "ARVADOS_NATS_OPS_LISTEN": f"127.0.0.1:{ops_port}",
                **environment,
            },
            self.folder / f"{name}.log",
            ops_port,
        )
        self.services[name] = service
        return service


@asynccontextmanager
async def beside(sandbox: Sandbox, **environment: str) -> AsyncIterator[Stack]:
    """Publishers, callout service and WebSocket proxy, started together.

    `environment` is added to that of each service.
    """
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="arvados-nats-logs-")))
        stack = Stack(sandbox, folder, next(ports.candidates()))
        sandbox.advertise(stack.websocket_url)
        root = sandbox.cluster.root.token
        stack.add("publishers", ["publishers", "run"], ARVADOS_NATS_LOG_TOKEN=root, **environment)
        stack.add("authcallout", ["authcallout"], **environment)
        listen = f"127.0.0.1:{stack.proxy_port}"
        stack.add("wsproxy", ["wsproxy"], ARVADOS_NATS_LISTEN=listen, **environment)
        started = []
        for service in stack.services.values():
            started.append((service, service.launch()))
            exits.push_async_callback(service.stop)
        for service, process in started:
            await _ready(service, process, stack)
        yield stack


async def _ready(service: Service, process: Child, stack: Stack) -> None:
    """What stands in the way of one service is often told by another."""
    try:
        await service.ready(process)
    except Unavailable as error:
        ends = (one.process.tail(6) for one in stack.services.values() if one.process)
        raise Unavailable(f"{service.name}: {error}\n" + "\n".join(ends)) from error


def require(stack: Stack) -> None:
    """Unavailable, with the end of its log, if a service has died."""
    for service in stack.services.values():
        if service.process and not service.process.running:
            raise Unavailable(f"{service.name} has ended:\n{service.process.tail()}")
