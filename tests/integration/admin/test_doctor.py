# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats doctor` on a machine whose units run as they are written, sound and with faults.

`FAULTS` is the table: what an operator does wrong, forgets, or is not told. Those of a group are
there at the same time; none of them hides another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.responses import JSONResponse

from arvados_nats.admin.doctor import broker, running
from arvados_nats.admin.doctor.services import Service
from arvados_nats.cli import main
from arvados_nats.nats.accounts_config import AccountLimits
from arvados_nats.service import http_server, keys, ops
from sandbox import raw_rows
from sandbox.sandbox import Sandbox
from sandbox.servers import nats_server
from tests.support.worlds import machine as machines
from tests.support.worlds.machine import SERVICES, Machine, other_seed

HELD: list[socket.socket] = []
"""Until the last test here has run."""
Plant = Callable[[Machine], Awaitable[None]]


@pytest.fixture(scope="module")
async def machine(sandbox: Sandbox) -> AsyncIterator[Machine]:
    """All three services, started by their units."""
    async with machines.beside(sandbox) as made:
        sandbox.advertise("wss://ws.example.com/websocket")
        for service in SERVICES:
            await made.start(service)
        yield made
        while HELD:
            HELD.pop().close()


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: how it comes, what is told of it, and what mends it."""

    plant: Plant
    told: str
    mend: str


def setting(text: str) -> Plant:
    """A line more in the environment file."""

    async def plant(machine: Machine) -> None:
        with machine.environment_file.open("a") as file:
            file.write(text + "\n")

    return plant


def file(path: str, content: str | None, mode: int = 0o600) -> Plant:
    """A file below the machine's folder has other content, or is gone."""

    async def plant(machine: Machine) -> None:
        found = machine.place / path
        if content is None:
            found.unlink()
            return
        found.parent.mkdir(exist_ok=True)
        found.write_text(content.replace("{place}", str(machine.place)))
        found.chmod(mode)

    return plant


def replaced(path: str, old: str, new: str) -> Plant:
    """Part of a file is another text; the file is as old as it was."""

    async def plant(machine: Machine) -> None:
        found = machine.place / path
        text, age = found.read_text(), found.stat()
        assert old in text
        found.write_text(text.replace(old, new))
        os.utime(found, (age.st_atime, age.st_mtime))

    return plant


def mode(path: str, bits: int) -> Plant:
    """A file may be read by others."""

    async def plant(machine: Machine) -> None:
        (machine.place / path).chmod(bits)

    return plant


def behind_a_firewall(written: Callable[[int], Plant]) -> Plant:
    """The port in it answers nobody, as where what is sent is dropped: its backlog is full."""

    async def plant(machine: Machine) -> None:
        listening, *rest = sockets = [socket.socket() for _ in range(5)]
        HELD.extend(sockets)
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for each in rest:
            each.setblocking(False)
            each.connect_ex(listening.getsockname())
        await written(listening.getsockname()[1])(machine)

    return plant


async def touched(machine: Machine) -> None:
    """nats.conf was written after the server has read it."""
    os.utime(machine.folder / "nats.conf")


async def revoked(machine: Machine) -> None:
    """The role may not read one table."""
    await _as_owner(machine, "REVOKE SELECT ON workflows FROM {role}")


async def advertised(machine: Machine) -> None:
    """Arvados tells clients an address that no page may open."""
    machine.sandbox.advertise("ws://ws.example.com")


async def not_an_admin(machine: Machine) -> None:
    """The log token is somebody's."""
    token = (await machine.sandbox.cluster.user(f"reader{secrets.token_hex(3)}")).token
    machine.secret("LOG_TOKEN").write_text(token)


async def late(machine: Machine) -> None:
    """A row that nobody stores."""
    owner = await asyncpg.connect(machine.sandbox.database.dsn)
    when = raw_rows.utc_now() + timedelta(minutes=2)
    await raw_rows.insert(owner, [raw_rows.row(created_at=when)])
    await owner.close()


def ended(service: str) -> Plant:
    """A service is not there."""

    async def plant(machine: Machine) -> None:
        await machine.stop(service)

    return plant


async def _as_owner(machine: Machine, statement: str) -> None:
    database = machine.sandbox.database
    owner = await asyncpg.connect(database.dsn)
    role = database.reader_dsn.partition("://")[2].partition(":")[0].partition("@")[0]
    await owner.execute(statement.format(role=f'"{role}"'))
    await owner.close()


DSN = "etc/secrets/ARVADOS_NATS_POSTGRES_DSN"
WSPROXY = "units/arvados-nats-wsproxy.service"
OLD_SERVER = "#!/bin/sh\necho nats-server: v2.9.10\n"
CONFIG = """\
Clusters:
  xurid:
    SystemRootToken: anothertokenthanthepublishershave0123456789
    ManagementToken: anothermanagementtokenthantheservices
    AuditLogs: {MaxAge: 0, MaxDeleteBatch: 1000}
    Services:
      Controller: {ExternalURL: "https://xurid.example.com"}
      Websocket: {ExternalURL: "wss://ws.xurid.example.com/websocket"}
"""

FAULTS: dict[str, dict[str, Fault]] = {
    "files": {
        "misspelled setting": Fault(
            setting("ARVADOS_NATS_NATS_ULR=x"),
            "ARVADOS_NATS_NATS_ULR is no setting; ARVADOS_NATS_NATS_URL was meant",
            "etc/environment",
        ),
        "setting in the words of a shell": Fault(
            setting("export ARVADOS_API_HOST=x"),
            "export ARVADOS_API_HOST is no setting; ARVADOS_API_HOST was meant",
            "etc/environment",
        ),
        "setting of no value": Fault(
            setting("ARVADOS_NATS_LOG_CALLS=many"), "log_calls: Input should be a valid", "settings"
        ),
        "secret that others read": Fault(
            file("etc/secrets/ARVADOS_NATS_LOG_TOKEN", "x", 0o644), "others", "chmod 600 /"
        ),
        "seed that is garbage": Fault(
            file("etc/keys/wsproxy.nk", "SUgarbage"), "wsproxy.nk holds no seed", "keys rotate"
        ),
        "seed that is gone": Fault(
            file("etc/keys/issuer.nk", None), "systemd does not start it: ", "arvados-nats init"
        ),
        "program that is gone": Fault(
            replaced(WSPROXY, "arvados-nats wsproxy", "not-there wsproxy"),
            "not-there is not there",
            "install the package",
        ),
        "server of Debian": Fault(
            file(
                "units/arvados-nats-server.service.d/old.conf",
                "[Service]\nExecStart={place}/old/nats-server\n",
            ),
            "v2.9.10, and 2.14.0 is needed",
            "pip install",
        ),
    },
    "written": {
        "password that breaks its URL": Fault(
            file(DSN, "postgresql://us:a/b@db/arvados"),
            "no host stands where a URL has it",
            "ARVADOS_NATS_POSTGRES_DSN",
        ),
        "address with a comment": Fault(
            setting("ARVADOS_NATS_LISTEN=0.0.0.0:8000 # ours"),
            "wsproxy: listen: it is not host:port",
            "etc/arvados-nats/environment",
        ),
        "authority that is no file": Fault(
            setting("ARVADOS_NATS_NATS_CA_FILE=/nonexistent.pem"),
            "no authority can be read from /nonexistent.pem: ",
            "ARVADOS_NATS_NATS_CA_FILE",
        ),
        "nats.conf that is broken": Fault(
            replaced("etc/nats.conf", "max_control_line", "max_control_lime"),
            "nats-server does not take it: ",
            "arvados-nats init --overwrite",
        ),
        "seed that others read": Fault(
            mode("etc/keys/publisher.nk", 0o644), "publisher.nk holds a secret", "chmod 600 /"
        ),
    },
    "settings": {
        "database that is not set": Fault(
            file(DSN, None),
            "ARVADOS_NATS_POSTGRES_DSN is not set: no event is published",
            "arvados-nats init",
        ),
        "management token that is empty": Fault(
            file("etc/secrets/ARVADOS_NATS_MANAGEMENT_TOKEN", "\n"),
            "ARVADOS_NATS_MANAGEMENT_TOKEN is not set: health answers 404",
            "arvados-nats init",
        ),
        "disk that is too small": Fault(
            replaced("etc/nats.conf", 'store_dir: "', 'store_dir: "/proc" #'),
            "have room for 0.0 GB",
            "larger disk",
        ),
        "server with an older nats.conf": Fault(
            touched, "it runs with an older configuration", "restart arvados-nats-server"
        ),
        "authority that is another's": Fault(
            setting("ARVADOS_NATS_ARVADOS_CA_FILE=/etc/ssl/certs/ca-certificates.crt"),
            "does not answer as Arvados does: [SSL: CERTIFICATE_VERIFY_FAILED]",
            "CA file",
        ),
    },
    "stale": {
        "secret since the start": Fault(
            file("etc/secrets/ARVADOS_NATS_MANAGEMENT_TOKEN", "new"),
            "it runs with an older ARVADOS_NATS_MANAGEMENT_TOKEN",
            "systemctl restart arvados-nats-",
        ),
        "health behind another token": Fault(
            setting("# as above"), "started with another ManagementToken", "systemctl restart"
        ),
        "log token that ended": Fault(
            file("etc/secrets/ARVADOS_NATS_LOG_TOKEN", "v2/zzzzz-gj3su-000000000000000/x"),
            "Arvados refuses it",
            "put an admin's token",
        ),
        "token that changed in Arvados": Fault(
            file("config.yml", CONFIG),
            "SystemRootToken is not the one that publishers has",
            "init, then systemctl restart arvados-nats-publishers",
        ),
        "audit logs that are off": Fault(
            file("config.yml", CONFIG), "switches audit logs off: no event at all", "correct /"
        ),
        "address that no page may open": Fault(
            advertised, "Services.Websocket.ExternalURL: it begins with ws://", "ExternalURL"
        ),
        "table that is not granted": Fault(
            revoked, "workflows is not granted to", "run role.sql again"
        ),
    },
    "elsewhere": {
        "NATS that is not there": Fault(
            setting("ARVADOS_NATS_NATS_URL=nats://127.0.0.1:1"),
            "no NATS server answers at nats://127.0.0.1:1",
            "systemctl restart arvados-nats-server",
        ),
        "database that is not there": Fault(
            file(DSN, "host=127.0.0.1 port=1 user=x dbname=y"),
            "PostgreSQL: ",
            "ARVADOS_NATS_POSTGRES_DSN or pg_hba.conf",
        ),
        "Arvados that is not there": Fault(
            setting("ARVADOS_API_HOST=127.0.0.1:1"),
            "https://127.0.0.1:1 does not answer as Arvados does",
            "ARVADOS_API_HOST",
        ),
    },
    "dropped": {
        "NATS behind a firewall": Fault(
            behind_a_firewall(
                lambda port: setting(f"ARVADOS_NATS_NATS_URL=nats://127.0.0.1:{port}")
            ),
            "no NATS server answers at nats://127.0.0.1:",
            "no firewall drops",
        ),
        "database behind a firewall": Fault(
            behind_a_firewall(lambda port: file(DSN, f"host=127.0.0.1 port={port} dbname=y")),
            "PostgreSQL: no answer in time",
            "no firewall drops",
        ),
        "Arvados behind a firewall": Fault(
            behind_a_firewall(lambda port: setting(f"ARVADOS_API_HOST=127.0.0.1:{port}")),
            "does not answer as Arvados does: no answer in time",
            "no firewall drops",
        ),
    },
    "keys": {
        "seed that NATS does not know": Fault(
            file("etc/keys/publisher.nk", other_seed("publisher")),
            "does not know the key U",
            "then systemctl restart arvados-nats-server",
        ),
        "nats.conf of other keys": Fault(
            file("etc/keys/xkey.nk", other_seed("xkey")),
            "nats.conf is of other keys than publisher (U",
            "arvados-nats init",
        ),
        "log token of no admin": Fault(not_an_admin, "it is no admin's", "put an admin's token"),
    },
    "silent": {
        "publishers that do not run": Fault(
            ended("publishers"), "no publisher answers", "systemctl restart arvados-nats-publishers"
        ),
        "rows that are not stored": Fault(
            late, "rows of Arvados are not in ARVADOS_EVENTS", "restart arvados-nats-publishers"
        ),
        "authcallout that does not run": Fault(
            ended("authcallout"),
            "no callout service answers NATS in time",
            "systemctl restart arvados-nats-authcallout",
        ),
        "wsproxy that does not run": Fault(
            ended("wsproxy"),
            "wsproxy: health: nothing answers",
            "systemctl restart arvados-nats-wsproxy",
        ),
        "sockets that nobody serves": Fault(
            setting("# as above"), "/websocket does not answer", "restart arvados-nats-wsproxy"
        ),
    },
}
ELSEWHERE = {"elsewhere", "dropped", "silent"}
"""Where the files of this machine are as they should be."""
ROWS = [(group, name) for group, faults in FAULTS.items() for name in faults]


@contextlib.asynccontextmanager
async def planted(machine: Machine, group: str) -> AsyncIterator[None]:
    """All faults of a group; afterwards everything is as it was."""
    kept = machine.place / "kept"
    folders = [machine.folder, machine.units]
    for folder in folders:
        shutil.copytree(folder, kept / folder.name)
    old = machine.place / "old" / "nats-server"
    old.parent.mkdir(exist_ok=True)
    old.write_text(OLD_SERVER)
    old.chmod(0o755)
    try:
        for fault in FAULTS[group].values():
            await fault.plant(machine)
        yield
    finally:
        for folder in folders:
            shutil.rmtree(folder)
            shutil.move(kept / folder.name, folder)
        kept.rmdir()
        (machine.place / "config.yml").unlink(missing_ok=True)
        machine.sandbox.advertise("wss://ws.example.com/websocket")
        await _as_owner(machine, "GRANT SELECT ON workflows TO {role}")
        await _as_owner(machine, "DELETE FROM logs WHERE created_at > now() AT TIME ZONE 'UTC'")
        for service in SERVICES:
            if service not in machine.running:
                await machine.start(service)


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What the doctor has said of each group."""
    return {}


@pytest.mark.parametrize(("group", "name"), ROWS, ids=[name for _, name in ROWS])
async def test_a_fault_is_named_with_its_remedy(
    machine: Machine, seen: dict[str, Any], group: str, name: str
) -> None:
    """And nothing that has it is called ok."""
    if group not in seen:
        async with planted(machine, group):
            config = str(machine.place / "config.yml")
            answer = await machine.doctor("--json", "--arvados-config", config)
        assert answer.exit_code == (1 if group in ELSEWHERE else 2), answer.output
        seen[group] = json.loads(answer.output)["wrong"]
    fault = FAULTS[group][name]
    told = [one for one in seen[group] if fault.told in f"{one['part']}: {one['text']}"]
    assert told, f"{fault.told!r} is not in {json.dumps(seen.pop(group), indent=1)}"
    assert fault.mend in told[0]["mend"]
    assert not told[0]["text"].startswith(f"{told[0]['part']}: "), "said twice"


@pytest.mark.parametrize(
    ("told", "version"), [({}, "an older one"), ({"version": "0.0.1"}, "0.0.1")]
)
async def test_what_was_upgraded_and_not_restarted_is_told(
    told: dict[str, str], version: str
) -> None:
    """Old publishers beside a new wsproxy work, and are not meant to stay."""
    app = Starlette()
    http_server.add_route(
        app, "/_health/ping", lambda _: JSONResponse({"health": "OK", **told}), "GET"
    )
    sock = http_server.listen("127.0.0.1:0")
    serving = asyncio.create_task(http_server.serve(app, sock))
    address = f"127.0.0.1:{sock.getsockname()[1]}"
    settings = SimpleNamespace(ops_listen=address, management_secret=lambda: "x")
    try:
        (found,) = await running.health(Service("publishers", settings, None))
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    assert found.text == f"it runs as version {version}, and {ops.VERSION} is installed"
    assert "restart" in found.mend


async def test_a_server_that_takes_too_little_is_told(tmp_path: Path) -> None:
    """By a nats.conf of somebody's own: a login with many grants would never be answered."""
    keys.ensure(tmp_path)
    limits = AccountLimits(payload=1 << 20)
    async with nats_server.run(tmp_path, limits=limits) as server:
        settings = SimpleNamespace(
            seed=lambda role: keys.load(tmp_path, role).text,
            nats_servers=[server.url],
            nats_ca_file=None,
        )
        (found,) = await broker.logins(Service("publishers", settings, None))
    assert found.text == "max_payload of the server is 1048576, and 8388608 is needed"
    assert "nats.conf" in found.mend


async def test_a_sound_site_is_well(machine: Machine) -> None:
    """Nothing is wrong, and what was not looked at says what would make it look."""
    answer = await machine.doctor()
    assert answer.exit_code == 0, answer.output
    assert "Nothing is wrong." in answer.output
    assert "wsproxy from outside (give --proxy wss://HOST)" in answer.output
    for part in ("a row's way", "a login's way", "publishers: log token", "disk"):
        assert f"ok             {part}" in answer.output


async def test_an_address_that_leads_elsewhere_is_told(machine: Machine) -> None:
    """From outside, over TLS, with the site's own authority."""
    host = machine.sandbox.api_tls.host
    answer = await machine.doctor("--quiet", "--proxy", f"wss://{host}")
    assert answer.exit_code == 1
    assert f"wsproxy over HTTP at wss://{host}: " in answer.output
    assert "answered by something else" in answer.output


def test_a_machine_without_any_of_it_is_told(tmp_path: Path) -> None:
    """With the command that begins."""
    words = ["doctor", "--units", str(tmp_path), "--quiet"]
    answer = CliRunner().invoke(main, words, env={"ARVADOS_NATS_KEYS_DIR": str(tmp_path)})
    assert answer.exit_code == 2
    assert "nothing of ours is here" in answer.output
    assert "mend it: arvados-nats init" in answer.output


def test_a_proxy_is_looked_at_from_a_machine_without_any_of_it(tmp_path: Path) -> None:
    """As from where `kubectl` is: only what was asked for can be wrong."""
    words = ["doctor", "--units", str(tmp_path), "--proxy", "ws://127.0.0.1:9"]
    answer = CliRunner().invoke(main, words, env={"ARVADOS_NATS_KEYS_DIR": str(tmp_path)})
    assert answer.exit_code == 1
    assert "wsproxy over HTTP at ws://127.0.0.1:9: " in answer.output
    assert "arvados-nats init" not in answer.output
    assert "in Kubernetes: kubectl exec" in answer.output


@pytest.mark.parametrize(
    ("shown", "told", "mend"),
    [
        ("LoadState=not-found\n", "does not know it yet", "systemctl daemon-reload"),
        (
            "ActiveState=failed\nResult=exit-code\nExecMainStatus=2\nStateChangeTimestamp=Mon 8:00",
            "it does not run (exit-code, exit code 2)",
            "systemctl start arvados-nats-x",
        ),
        ("ActiveState=active\nNRestarts=7\n", "started again 7 times", "journalctl -u arvados"),
        (
            "ActiveState=active\nNRestarts=0\nUnitFileState=disabled\n",
            "does not start with the machine",
            "systemctl enable",
        ),
    ],
)
def test_what_systemd_knows_is_told(shown: str, told: str, mend: str) -> None:
    """Failed, started again and again, or not to be started at all."""
    found = [one for one in running.examine("arvados-nats-x.service", shown) if one.mend]
    assert len(found) == 1
    assert told in found[0].text
    assert mend in found[0].mend
