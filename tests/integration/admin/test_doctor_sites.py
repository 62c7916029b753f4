# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The doctor finds nothing at sound sites of other kinds than the one it is tried on with faults.

Units and pods; one NATS server and three; in the clear and by TLS with an authority of its own;
IPv6; no log token, which is a choice; the oldest releases of Arvados, which lack what newer have.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from arvados_nats.admin import unit_files
from arvados_nats.cli import main
from arvados_nats.nats import server_config
from arvados_nats.service import keys
from sandbox import sandbox as sandboxes
from sandbox.model.config import ClusterConfig
from sandbox.servers import nats_server, tls
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import PostgresServer
from tests.support.worlds import machine as machines
from tests.support.worlds.machine import SERVICES, Machine

WITHIN = 90.0


def _loopback() -> str:
    """Of IPv6, where this machine has it."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return "127.0.0.1"
    return "[::1]"


@asynccontextmanager
async def servers(keys_folder: Path, authority: Path | None) -> AsyncIterator[list[NatsServer]]:
    """Three by TLS where there is an authority for them, else one in the clear."""
    if authority is None:
        async with nats_server.run(keys_folder) as one:
            yield [one]
        return
    files = tls.make(authority.parent)
    pem = server_config.Tls(*map(str, (files.certificate, files.key, files.authority)))
    async with nats_server.run_cluster(keys_folder, tls=pem) as three:
        yield three


@asynccontextmanager
async def site(
    postgres: PostgresServer, place: Path, release: str, *, large: bool
) -> AsyncIterator[Machine]:
    """A machine whose services run; `large`: three servers, TLS, IPv6, and no log token."""
    keys_folder, authority = place / "keys", place / "nats" / "ca.crt" if large else None
    keys.ensure(keys_folder)
    async with (
        servers(keys_folder, authority) as running,
        sandboxes.on(
            postgres, running[0], keys_folder, place / "tls", config=ClusterConfig(release=release)
        ) as sandbox,
        machines.beside(sandbox) as machine,
    ):
        sandbox.advertise("wss://ws.example.com/websocket")
        if authority:
            _enlarge(machine, running, authority)
        for service in SERVICES:
            await machine.start(service)
        yield machine


def _enlarge(machine: Machine, running: list[NatsServer], authority: Path) -> None:
    known = machine.place / "nats-ca.pem"
    shutil.copy(authority, known)
    urls = ",".join(server.url.replace("nats://", "tls://") for server in running)
    text = machine.environment_file.read_text().replace(running[0].url, urls)
    kept = [
        f"ARVADOS_NATS_{name}_REPLICAS=3\nARVADOS_NATS_{name}_MAX_BYTES={64 << 20}"
        for name in ("EVENTS", "LOGS", "SYSTEM_LOGS")
    ]
    more = [f"ARVADOS_NATS_NATS_CA_FILE={known}", "ARVADOS_NATS_QUEUE_REPLICAS=3", *kept, ""]
    machine.environment_file.write_text("\n".join([text, *more]))
    machine.secret("LOG_TOKEN").unlink()
    for service in SERVICES:
        folder = machine.units / f"arvados-nats-{service}.service.d"
        lines = ["[Service]", f"Environment=ARVADOS_NATS_OPS_LISTEN=*:{machine.ports[service]}"]
        if service == "wsproxy":
            sockets = f"{_loopback()}:{machine.ports['sockets']}"
            lines.append(f"Environment=ARVADOS_NATS_LISTEN={sockets}")
        (folder / "site.conf").write_text("\n".join([*lines, ""]))


async def in_pod(machine: Machine, service: str, place: Path) -> Result:
    """What a pod of the service has, and no unit."""
    unit = unit_files.find(f"arvados-nats-{service}.service", [machine.units])
    assert unit is not None
    place.mkdir()  # noqa: ASYNC240
    environment = dict(unit_files.with_credentials(unit, place))
    words = ["doctor", "--json", "--units", "/nonexistent", "--arvados-config", "/nonexistent"]
    return await asyncio.to_thread(CliRunner().invoke, main, words, env=environment)


@pytest.mark.parametrize(("release", "large"), [("2.5", True), ("3.0", False)])
async def test_a_sound_site_of_any_kind_is_well(
    postgres_server: PostgresServer, tmp_path: Path, release: str, large: bool
) -> None:
    """As soon as all copies of the streams are there; what it lacks by choice is no fault."""
    async with site(postgres_server, tmp_path, release, large=large) as machine:
        async with asyncio.timeout(WITHIN):
            while (answer := await machine.doctor("--json")).exit_code:  # noqa: ASYNC110
                await asyncio.sleep(1)
        looked = json.loads(answer.output)["looked_at"]
        parts = {found["part"]: found["verdict"] for found in looked}
        assert parts["a login's way"] == parts["wsproxy over WebSocket, here"] == "ok"
        skipped = {part for part, verdict in parts.items() if verdict == "not looked at"}
        assert ("container logs" in skipped) is large
        for service in SERVICES:
            answer = await in_pod(machine, service, tmp_path / f"pod-{service}")
            assert json.loads(answer.output)["wrong"] == []
            assert answer.exit_code == 0
