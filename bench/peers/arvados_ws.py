# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The real arvados-ws on the sandbox's PostgreSQL and API, set up as Arvados' own defaults are."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import yaml

from bench.peers import binaries
from sandbox.sandbox import MANAGEMENT_TOKEN, Sandbox
from sandbox.servers import child, ports
from sandbox.servers.child import Child

_START_SECONDS = 30.0
_UNUSED_SECRET = "benchbenchbenchbenchbenchbenchbenchbench"


@dataclass(frozen=True, slots=True)
class ArvadosWs:
    """The running server."""

    process: Child
    port: int

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port


def config(sandbox: Sandbox, port: int) -> dict[str, object]:
    """A config.yml for this service; everything that is not here has Arvados' default.

    The default of 64 requests at once counts open sockets too: the 65th client would wait in vain.
    """
    database = urlsplit(sandbox.database.dsn)
    cluster = sandbox.cluster.config
    return {
        "Clusters": {
            cluster.cluster_id: {
                "SystemRootToken": cluster.system_root_token,
                "ManagementToken": MANAGEMENT_TOKEN,
                "API": {"MaxConcurrentRequests": 0},
                "Collections": {"BlobSigningKey": _UNUSED_SECRET},
                "PostgreSQL": {
                    "Connection": {
                        "host": str(database.hostname),
                        "port": str(database.port),
                        "user": str(database.username),
                        "password": str(database.password),
                        "dbname": database.path.lstrip("/"),
                        "sslmode": "disable",
                    }
                },
                "Services": {
                    "Controller": {"ExternalURL": sandbox.api_tls.url},
                    "Websocket": {"InternalURLs": {f"http://127.0.0.1:{port}": {}}},
                },
                "TLS": {"Insecure": True},
            }
        }
    }


def _subcommand(program: Path) -> list[str]:
    """Arvados' programs take the subcommand from their own name, if that says it."""
    return [] if program.name == "arvados-ws" else ["ws"]


@asynccontextmanager
async def run(sandbox: Sandbox, folder: Path) -> AsyncIterator[ArvadosWs]:
    """Start it, and wait until its health check says that it has its database."""
    program = binaries.find("arvados-ws")
    port = next(ports.candidates())
    settings = folder / "config.yml"
    settings.write_text(yaml.safe_dump(config(sandbox, port)))
    process = child.start(
        [program, *_subcommand(program), "-config", settings],
        log=folder / "arvados-ws.log",
        environment={"PATH": os.defpath, "HOME": str(folder)},
    )
    try:
        await child.ready(process, lambda: _is_well(port), _START_SECONDS)
        yield ArvadosWs(process, port)
    finally:
        await process.kill()


async def _is_well(port: int) -> bool:
    headers = {"Authorization": f"Bearer {MANAGEMENT_TOKEN}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
        try:
            return (await client.get("/_health/db")).status_code == 200
        except httpx.HTTPError:
            return False
