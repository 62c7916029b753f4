# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A machine as `arvados-nats init` leaves it, its units started as systemd would start them.

Each as a user without a home, with what its unit shows it and nothing else. Servers and Arvados are
a sandbox's; what an operator would write by hand, the places of those, is in the environment file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from click.testing import CliRunner, Result

from arvados_nats.admin import unit_files
from arvados_nats.cli import main
from arvados_nats.nats import server_config
from arvados_nats.service import keys
from sandbox.sandbox import MANAGEMENT_TOKEN, Sandbox
from sandbox.servers import child, ports
from sandbox.servers.child import Process
from tests.support import started_unit

SERVICES = ("publishers", "authcallout", "wsproxy")
_START_SECONDS = 60.0


@dataclass(slots=True)
class Machine:
    """Where everything is, and what runs."""

    sandbox: Sandbox
    place: Path
    ports: dict[str, int]
    running: dict[str, Process] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.place / "etc"

    @property
    def units(self) -> Path:
        return self.place / "units"

    @property
    def credentials(self) -> Path:
        """As /run/credentials: what running services were shown."""
        return self.place / "credentials"

    @property
    def environment_file(self) -> Path:
        return self.folder / "environment"

    def secret(self, name: str) -> Path:
        """The file of a secret."""
        return self.folder / "secrets" / f"ARVADOS_NATS_{name}"

    async def start(self, service: str) -> None:
        """Start a unit, and wait until it answers for itself."""
        self.launch(service)
        port = self.ports[service]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def serves() -> bool:
                with contextlib.suppress(httpx.HTTPError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await child.ready(self.running[service], serves, _START_SECONDS)

    def launch(self, service: str) -> None:
        """Start a unit."""
        name = f"arvados-nats-{service}.service"
        program, environment = started_unit.command(name, [self.units], self.credentials)
        log = self.place / f"{service}.log"
        self.running[service] = child.start(program, log=log, environment=environment)

    async def stop(self, service: str) -> None:
        """End a unit."""
        if process := self.running.pop(service, None):
            await process.stop(signal.SIGTERM, 15)

    async def reload(self, service: str) -> str:
        """What `systemctl reload` runs of a unit."""
        unit = unit_files.find(f"arvados-nats-{service}.service", [self.units])
        assert unit is not None
        words = [*unit.reload[1:], "--units", self.units, "--credentials", self.credentials]
        answer = await asyncio.to_thread(CliRunner().invoke, main, [str(word) for word in words])
        assert answer.exit_code == 0, answer.output
        return answer.output

    async def doctor(self, *more: str) -> Result:
        """What `arvados-nats doctor` says of it."""
        words = ["doctor", "--units", str(self.units), "--credentials", str(self.credentials)]
        config = () if "--arvados-config" in more else ("--arvados-config", "/nonexistent")
        return await asyncio.to_thread(CliRunner().invoke, main, [*words, *config, *more])


@contextlib.asynccontextmanager
async def beside(sandbox: Sandbox) -> AsyncIterator[Machine]:
    """A machine after `init`, the role made, nothing started; the keys are the sandbox' servers'.

    In a folder that other users may enter, which pytest's are not.
    """
    with tempfile.TemporaryDirectory(prefix="arvados-nats-machine-") as made:
        place = Path(made)
        os.chmod(place, 0o755)
        numbers = ports.candidates()
        machine = Machine(sandbox, place, {name: next(numbers) for name in (*SERVICES, "sockets")})
        shutil.copytree(sandbox.keys_folder, machine.folder / "keys")
        for path in (machine.folder / "keys").glob("*.nk"):
            path.chmod(0o600)
        authority = place / "authority.pem"
        shutil.copy(sandbox.certificates.authority, authority)
        answer = await asyncio.to_thread(
            CliRunner().invoke,
            main,
            ["init", str(machine.folder), "--units", str(machine.units), "--yes",
             "--store-dir", str(place / "store")],
            env={
                "ARVADOS_API_HOST": sandbox.api_tls.host,
                "ARVADOS_NATS_ARVADOS_CA_FILE": str(authority),
                "ARVADOS_NATS_LOG_TOKEN": sandbox.cluster.root.token,
                "ARVADOS_NATS_MANAGEMENT_TOKEN": MANAGEMENT_TOKEN,
                "ARVADOS_NATS_POSTGRES_DSN": sandbox.database.reader_dsn,
            },
        )  # fmt: skip
        assert answer.exit_code == 0, answer.output
        machine.secret("POSTGRES_DSN").write_text(sandbox.database.reader_dsn + "\n")
        _place(machine)
        try:
            yield machine
        finally:
            for service in tuple(machine.running):
                await machine.stop(service)


def _place(machine: Machine) -> None:
    """Where the sandbox' servers are, and free ports for ours."""
    nats, conf = machine.sandbox.nats, machine.folder / "nats.conf"
    public = keys.load_all_public(machine.sandbox.keys_folder)
    conf.write_text(server_config.text(nats.config, public))
    os.utime(conf, (0, 0))
    text = machine.environment_file.read_text().replace(
        "nats://127.0.0.1:4222", machine.sandbox.nats.url
    )
    machine.environment_file.write_text(text)
    for service in SERVICES:
        unit = machine.units / f"arvados-nats-{service}.service"
        drop_in = unit.with_name(f"{unit.name}.d")
        drop_in.mkdir()
        lines = [f"Environment=ARVADOS_NATS_OPS_LISTEN=127.0.0.1:{machine.ports[service]}"]
        if service == "wsproxy":
            lines.append(f"Environment=ARVADOS_NATS_LISTEN=127.0.0.1:{machine.ports['sockets']}")
        (drop_in / "ports.conf").write_text("\n".join(["[Service]", *lines, ""]))


def other_seed(role: str) -> str:
    """A seed of the right kind that nobody knows."""
    return keys.from_raw(keys.ROLES[role], secrets.token_bytes(keys.KEY_BYTES)).text
