# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""NATS and PostgreSQL in containers of a Docker engine on this machine.

Ports are fixed when a container is made, so that it is found where it was when it is started again.
Needs testcontainers; `servers.backends` imports this module only when containers are wanted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import docker
import docker.errors
from testcontainers.core.container import DockerContainer

from arvados_nats.nats import server_config
from arvados_nats.service import keys
from sandbox.servers import child, nats_server, ports, postgres

NATS_IMAGE = "nats:2.14-alpine"
POSTGRES_IMAGE = "postgres:15-alpine"

_START_SECONDS = 120.0
_CLIENTS, _WEBSOCKET, _POSTGRES = 4222, 8080, 5432


def engine_answers() -> bool:
    """Whether a Docker engine can be talked to."""
    try:
        client = docker.from_env()
        client.ping()
        client.close()
    except docker.errors.DockerException:
        return False
    return True


class Container:
    """A container as a `child.Process`."""

    pid = 0

    def __init__(
        self,
        image: str,
        command: Sequence[str],
        *,
        published: Mapping[int, int],
        files: Mapping[str, bytes] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._docker = DockerContainer(image).with_command(list(command))
        self._docker.with_envs(**(environment or {}))
        for inside, outside in published.items():
            self._docker.with_bind_ports(inside, outside)
        for path, content in (files or {}).items():
            self._docker.with_copy_into_container(content, path)
        self._made = False

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        self._docker.reload()
        return self._docker.status == "running"

    def tail(self, lines: int = 12) -> str:
        """The last lines of its output."""
        said: bytes = self._docker.get_wrapped_container().logs(tail=lines)
        return said.decode(errors="replace")

    async def start(self) -> None:
        """Make and start it, or start it again with the data it has."""
        again = self._docker.get_wrapped_container().start if self._made else self._docker.start
        self._made = True
        await asyncio.to_thread(again)

    async def stop(self, ask: signal.Signals, within: float = 10.0) -> None:
        """Ask it to end, and kill it when it has not done so `within` seconds."""
        container = self._docker.get_wrapped_container()
        if self.running:
            await asyncio.to_thread(container.kill, signal=ask.name)
            await asyncio.to_thread(container.stop, timeout=int(within))

    async def kill(self) -> None:
        """End it at once."""
        if self.running:
            await asyncio.to_thread(self._docker.get_wrapped_container().kill)

    async def remove(self) -> None:
        """Remove it and its data."""
        await asyncio.to_thread(self._docker.stop)


class ContainerNats(nats_server.NatsServer):
    """nats-server in a container, published on ports of this machine."""

    def __init__(self, folder: Path, config: server_config.Server, container: Container) -> None:
        super().__init__(folder, config, {})
        self.container = self._process = container

    @property
    def log(self) -> str:
        """What the server logged so far, over restarts."""
        return self.container.tail(100_000)

    async def start(self) -> None:
        """Start it and wait until it greets clients."""
        await self.container.start()
        await child.ready(self.container, self._greets, _START_SECONDS)

    async def _greets(self) -> bool:
        host, _, port = self.config.listen.partition(":")
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            greeting = await reader.readline()
        except OSError:
            return False
        writer.close()
        return greeting.startswith(b"INFO")


class ContainerPostgres(postgres.PostgresServer):
    """PostgreSQL in a container, published on a port of this machine."""

    def __init__(self, folder: Path, password: str, container: Container, port: int) -> None:
        super().__init__(folder, durable=False, password=password)
        self.container = self._process = container
        self.port = port

    async def start(self) -> None:
        """Start it and wait until it answers."""
        await self.container.start()
        await child.ready(self.container, self._answers, _START_SECONDS)


@asynccontextmanager
async def run_nats(
    keys_folder: Path, *, websocket: bool = False
) -> AsyncIterator[nats_server.NatsServer]:
    """A running server whose data goes away with it."""
    inside = server_config.Server(
        name="sandbox",
        listen=f"0.0.0.0:{_CLIENTS}",
        store_dir="/data",
        monitor=None,
        websocket=server_config.WebSocket(f"0.0.0.0:{_WEBSOCKET}") if websocket else None,
        sync_always=False,
    )
    conf = server_config.text(inside, keys.load_all_public(keys_folder)).encode()
    clients, browsers, *_ = ports.candidates()
    published = {_CLIENTS: clients, **({_WEBSOCKET: browsers} if websocket else {})}
    path = "/etc/arvados-nats.conf"
    container = Container(NATS_IMAGE, ["-c", path], published=published, files={path: conf})
    outside = dataclasses.replace(
        inside,
        listen=f"127.0.0.1:{clients}",
        websocket=server_config.WebSocket(f"127.0.0.1:{browsers}") if websocket else None,
    )
    with tempfile.TemporaryDirectory(prefix="arvados-nats-") as folder:
        server = ContainerNats(Path(folder), outside, container)
        try:
            await server.start()
            yield server
        finally:
            await container.remove()


@asynccontextmanager
async def run_postgres() -> AsyncIterator[postgres.PostgresServer]:
    """A running server with the template made, whose data goes away with it."""
    port, *_ = ports.candidates()
    with tempfile.TemporaryDirectory(prefix="arvados-nats-") as folder:
        password = postgres.password_of(Path(folder))
        container = Container(
            POSTGRES_IMAGE,
            ["postgres", *postgres.arguments_of(durable=False)],
            published={_POSTGRES: port},
            environment={"POSTGRES_USER": postgres.OWNER, "POSTGRES_PASSWORD": password},
        )
        server = ContainerPostgres(Path(folder), password, container, port)
        try:
            await server.start()
            await server.ensure_template()
            yield server
        finally:
            await container.remove()
