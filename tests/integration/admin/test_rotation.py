# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Every secret is replaced while rows are written and sockets open, by the commands of the page.

Nothing is lost, nobody refused, and no service started anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shlex
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from click.testing import CliRunner

from arvados_nats import client
from arvados_nats.cli import main
from arvados_nats.errors import ArvadosNatsError, Refused
from arvados_nats.nats import accounts_config
from arvados_nats.nats import client as nats_client
from arvados_nats.postgres import dsn
from arvados_nats.protocol_v1.messages import Log
from arvados_nats.service import keys
from sandbox import sandbox as sandboxes
from sandbox import schema
from sandbox.model.actors import Actor
from sandbox.sandbox import MANAGEMENT_TOKEN
from sandbox.servers import nats_server
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import PostgresServer
from tests.support.worlds import machine as machines
from tests.support.worlds.machine import SERVICES, Machine

PAGE = Path(__file__).parents[3] / "docs" / "operate.md"
ROWS, SOCKETS = (int(number) for number in os.environ.get("ROTATION", "20x10").split("x"))
"""Rows a second, and sockets that hear of each: `ROTATION=100x200` takes a machine for itself."""
WRITERS = max(1, ROWS // 10)
WITHIN = 100.0 if SOCKETS <= 10 else 600.0


def commands() -> list[str]:
    """Those of the page's chapter for machines, in their order."""
    chapter = PAGE.read_text(encoding="utf-8").partition("\n## Replacing secrets")[2]
    machine = chapter.partition("### In Kubernetes")[0]
    blocks = re.findall(r"```sh\n(.*?)```", machine, re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


@dataclass(slots=True)
class Site:
    """A machine with all services, and three NATS servers with the same keys."""

    machine: Machine
    servers: list[NatsServer]
    role: str
    made: list[str] = field(default_factory=list)
    logins: Counter[str] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)
    management: str = MANAGEMENT_TOKEN
    admin: Actor | None = None
    """Whose token reads the container logs."""

    @property
    def keys(self) -> Path:
        return self.machine.folder / "keys"

    @property
    def stream_url(self) -> str:
        return f"ws://127.0.0.1:{self.machine.ports['sockets']}/v1/stream"

    async def execute(self, statement: str) -> None:
        """As PostgreSQL's superuser."""
        connection = await asyncpg.connect(self.machine.sandbox.database.dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def restart_servers(self) -> None:
        """One after the other, each with what its nats.conf would now say."""
        public = keys.load_all_public(self.keys)
        for number, server in enumerate(self.servers):
            await server.stop()
            told = NatsServer(server.folder, server.config, public)
            await told.start()
            await told.healthy()
            self.servers[number] = told


@pytest.fixture
async def site(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[Site]:
    """All three services, started by their units; nothing of it is anybody else's."""
    keys_folder = tmp_path / "keys"
    keys.ensure(keys_folder)
    async with (
        nats_server.run_cluster(keys_folder) as servers,
        sandboxes.on(postgres_server, servers[0], keys_folder, tmp_path / "tls") as sandbox,
        machines.beside(sandbox) as machine,
    ):
        role = f"rotating_{secrets.token_hex(4)}"
        made = Site(machine, servers, role)
        await made.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'first' IN ROLE {schema.READER}")
        _write_login(made, "first")
        await _new_token(made, "ARVADOS_NATS_LOG_TOKEN")
        assert made.admin is not None
        machine.secret("LOG_TOKEN").write_text(made.admin.token + "\n")
        kept = "".join(
            f"ARVADOS_NATS_{name}_REPLICAS=3\nARVADOS_NATS_{name}_MAX_BYTES={64 << 20}\n"
            for name in ("EVENTS", "LOGS", "SYSTEM_LOGS")
        )
        text = machine.environment_file.read_text()
        urls = ",".join(server.url for server in servers)
        machine.environment_file.write_text(text.replace(servers[0].url, urls) + kept)
        for service in SERVICES:
            await machine.start(service)
        try:
            yield made
        finally:
            for service in SERVICES:
                await machine.stop(service)
            await made.execute(f"DROP ROLE {role}")


def _write_login(site: Site, password: str) -> None:
    known = dsn.to_url(site.machine.sandbox.database.reader_dsn)
    site.machine.secret("POSTGRES_DSN").write_text(dsn.as_role(known, site.role, password) + "\n")


@pytest.mark.timeout(3 * WITHIN)
async def test_nothing_is_lost_and_nobody_refused(site: Site) -> None:
    """By the page's own commands, all secrets twice: the second time begins with replaced ones."""
    processes = {name: process.pid for name, process in site.machine.running.items()}
    stopping = asyncio.Event()
    async with listeners(site) as listening, asyncio.TaskGroup() as tasks:
        coming = tasks.create_task(_log_in(site, stopping))
        began = time.monotonic()
        writers = [tasks.create_task(_write(site, stopping)) for _ in range(WRITERS)]
        for number in (1, 2):
            for line in commands():
                await _run(site, line, f"password{number}")
        await _new_tokens_count(site)
        await _log_arrives(site)
        stopping.set()
        await asyncio.gather(*writers)
        took = time.monotonic() - began
        coming.cancel()
        heard = await _heard(listening, site.made)
    assert heard["wrong"] == {}
    assert site.logins["refused"] == 0, site.reasons
    assert site.logins["let in"] > 1
    assert {name: process.pid for name, process in site.machine.running.items()} == processes
    assert _keys_refused(site) == []
    rows = f"{len(site.made)} rows in {took:.0f} s"
    print(f"{rows}, {heard['frames']} frames, {dict(site.logins)}")  # noqa: T201 (shown by -s)


@contextlib.asynccontextmanager
async def listeners(site: Site) -> AsyncIterator[asyncio.subprocess.Process]:
    """As many sockets as are wanted, all of them open."""
    token = site.machine.sandbox.cluster.root.token
    words = [site.stream_url, token, str(SOCKETS), str(WITHIN)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.clients.listeners", *words,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=PAGE.parents[1],
        limit=1 << 24,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert json.loads(await process.stdout.readline()) == "listening"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _heard(listening: asyncio.subprocess.Process, made: list[str]) -> dict[str, Any]:
    """Which objects were not heard of once by each socket, and how often all were."""
    assert listening.stdin is not None
    assert listening.stdout is not None
    listening.stdin.write(f"{json.dumps(made)}\n".encode())
    await listening.stdin.drain()
    found: dict[str, Any] = json.loads(await listening.stdout.readline())
    return found


async def _write(site: Site, stopping: asyncio.Event) -> None:
    cluster = site.machine.sandbox.cluster
    loop = asyncio.get_running_loop()
    due = loop.time()
    while not stopping.is_set():
        site.made.append((await cluster.collection(owner=cluster.root)).uuid)
        due = max(due + WRITERS / ROWS, loop.time() - 1)
        await asyncio.sleep(due - loop.time())


async def _log_in(site: Site, stopping: asyncio.Event) -> None:
    """People who come, one after the other, at NATS and by a socket.

    Where a server restarts, the one callout service of this machine moves to another; who comes to
    NATS in that very moment is refused by the server, and tries again.
    """
    cluster = site.machine.sandbox.cluster
    person = await cluster.user(f"comer{secrets.token_hex(4)}")
    while not stopping.is_set():
        try:
            async with client.connect(site.stream_url, lambda: person.token) as stream:
                await stream.events(begin="now")
            if not await _let_in_by_nats(site, person):
                site.logins["moments"] += 1
                await asyncio.sleep(1)
                if not await _let_in_by_nats(site, person):
                    raise Refused("NATS says no twice")
            site.logins["let in"] += 1
        except ArvadosNatsError as error:
            site.logins["refused"] += 1
            site.reasons.append(str(error))
        await asyncio.sleep(0.05)


async def _let_in_by_nats(site: Site, person: Actor) -> bool:
    servers = [server.url for server in site.servers]
    with contextlib.suppress(Refused):
        async with nats_client.connect(servers, name="t", token=person.token, timeout=20):
            return True
    return False


async def _run(site: Site, line: str, password: str) -> None:
    """One line of the page; what a shell cannot do here is stood in for."""
    words = shlex.split(line, comments=True)
    match words:
        case ["arvados-nats", "keys", *_]:
            folder = str(site.machine.folder)
            done = CliRunner().invoke(
                main, [word.replace("/etc/arvados-nats", folder) for word in words[1:]]
            )
            assert done.exit_code == 0, done.output
        case ["arvados-nats", "init"]:
            pass  # nats.conf is the sandbox' own: `restart_servers` prints it
        case ["systemctl", "reload", *units]:
            for unit in units:
                await site.machine.reload(unit.removeprefix("arvados-nats-"))
        case ["systemctl", "restart", "arvados-nats-server"]:
            await site.restart_servers()
        case ["install", "-m", "600", "new.dsn", to]:
            _write_login(site, password)
            assert to.endswith("ARVADOS_NATS_POSTGRES_DSN")
        case ["install", "-m", "600", source, to]:
            path = site.machine.secret(Path(to).name.removeprefix("ARVADOS_NATS_"))
            assert path.exists(), source
            path.write_text(await _new_token(site, path.name) + "\n")
        case ["runuser", "-u", "postgres", "--", "psql", *_, statement]:
            assert statement.startswith("ALTER ROLE arvados_nats PASSWORD")
            await site.execute(f"ALTER ROLE {site.role} PASSWORD '{password}'")
            await site.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                f" WHERE usename = '{site.role}'"
            )
        case _:
            raise AssertionError(f"the page says what this test cannot do: {line}")


async def _new_token(site: Site, name: str) -> str:
    """Another one; the former admin's ends at once."""
    if name.endswith("MANAGEMENT_TOKEN"):
        site.management = secrets.token_hex(16)
        return site.management
    cluster = site.machine.sandbox.cluster
    former, site.admin = site.admin, await cluster.user(f"a{secrets.token_hex(4)}", admin=True)
    if former:
        await cluster.pool.execute(
            "DELETE FROM api_client_authorizations WHERE uuid = $1", former.token_uuid
        )
    return site.admin.token


async def _new_tokens_count(site: Site) -> None:
    """All services know the new ManagementToken, none the former one."""
    for token, status in ((site.management, 200), (MANAGEMENT_TOKEN, 403)):
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(headers=headers) as http:
            for service in SERVICES:
                url = f"http://127.0.0.1:{site.machine.ports[service]}/_health/ping"
                assert (await http.get(url)).status_code == status


async def _log_arrives(site: Site) -> None:
    """Read with the new token, from a container that begins now."""
    cluster = site.machine.sandbox.cluster
    request = await cluster.container_request("logs", owner=cluster.root)
    container = await cluster.run(request)
    await cluster.write_log(container, "stdout.txt", b"read with the new token\n")
    async with (
        asyncio.timeout(WITHIN),
        client.connect(site.stream_url, lambda: cluster.root.token) as stream,
    ):
        async for message in await stream.log(container.uuid):
            if isinstance(message, Log) and b"new token" in message.data:
                return


def _keys_refused(site: Site) -> list[dict[str, object]]:
    """The callout service also knocks as nobody, with no key, to see whether it is heard."""
    return [
        line
        for service in SERVICES
        for line in map(
            json.loads, (site.machine.place / f"{service}.log").read_text().splitlines()
        )
        if line.get("action") == "nats.error"
        and line.get("key")
        and "uthorization" in str(line.get("error"))
    ]


async def test_a_former_key_is_shut_out_by_the_next_restart(tmp_path: Path) -> None:
    """A server that was told of both lets both in; told anew, it knows the new one and its next."""
    folder = tmp_path / "keys"
    keys.ensure(folder)
    async with nats_server.run(folder, folder=tmp_path / "nats") as server:
        former = keys.load(folder, "publisher").text
        await _let_in(server, former)
        keys.rotate(folder, ["publisher"])
        await _let_in(server, former)
        await _let_in(server, keys.load(folder, "publisher").text)
        await server.stop()
        told = NatsServer(server.folder, server.config, keys.load_all_public(folder))
        await told.start()
        try:
            await _let_in(told, keys.load(folder, "publisher").text)
            with pytest.raises(Refused):
                await _let_in(told, former)
        finally:
            await told.stop()


async def _let_in(server: NatsServer, seed: str) -> None:
    async with nats_client.connect([server.url], name="test", seed=seed, timeout=20):
        pass


def test_no_key_is_known_twice(tmp_path: Path) -> None:
    """A server refuses to start with one."""
    keys.ensure(tmp_path)
    public = keys.load_all_public(tmp_path)
    told = accounts_config.accounts(public, accounts_config.AccountLimits())
    users = [user["nkey"] for account in told.values() for user in account.get("users", ())]
    assert len(users) == len(set(users)) == len(accounts_config.STATIC_USERS) + len(keys.AHEAD)
