# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Walk docs/install.md's way for machines, word by word, on a machine that is bare of us.

Runs in namespaces of its own (`unshare --mount --net`): /etc, /opt, /run, /usr/local/bin and
/var/lib are written to a layer that goes with it, and no port is anybody else's. Only what a shell
cannot do here is stood in for: the installation itself is a link to this environment, `systemctl`
is an exact reader of the units, and `runuser -u postgres` is the superuser of a sandbox' database.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from arvados_nats.admin.unit_files import CREDENTIALS, FOLDERS
from arvados_nats.postgres import dsn
from sandbox import sandbox as sandboxes
from sandbox.sandbox import MANAGEMENT_TOKEN, Sandbox
from sandbox.servers import child, postgres_binaries
from sandbox.servers.child import Process
from tests.support.clients import v0
from tests.support.worlds.machine import launch

WITHIN = 60.0
LAYERED = ("/etc", "/opt", "/run", "/usr/local/bin", "/var/lib")
PORTS = {"publishers": 9091, "authcallout": 9092, "wsproxy": 9093}
CONFIG = Path("/etc/arvados/config.yml")


def separate(place: Path) -> None:
    """What is written below `LAYERED` goes to a folder of our own; the network is loopback."""
    for path in LAYERED:
        upper, work = place / f"upper{path}", place / f"work{path}"
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        options = f"lowerdir={path},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, path], check=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        up = struct.pack("16sh", b"lo", 1)  # SIOCSIFFLAGS, IFF_UP
        fcntl.ioctl(any_socket, 0x8914, up)


def commands(page: str) -> list[list[str]]:
    """The blocks of commands of the way for machines."""
    way = page.partition("## 3b. ")[2].partition("\n### ")[0]
    return [block.strip().splitlines() for block in re.findall(r"```sh\n(.*?)```", way, re.DOTALL)]


def stand_ins(sandbox: Sandbox, started: Path) -> None:
    """What a shell cannot do here; each says so to nobody and does the same."""
    os.makedirs("/opt/arvados-nats", exist_ok=True)
    os.symlink(Path(sys.executable).parent, "/opt/arvados-nats/bin")
    superuser = sandbox.database.dsn
    psql = postgres_binaries.find() / "psql"
    script = f'shift 5\nshift\nexec {psql} -v ON_ERROR_STOP=0 "{superuser}" "$@"\n'
    shims = {
        "systemctl": f'[ "$1" = daemon-reload ] || {{ shift 2; echo "$@" > {started}; }}\n',
        "runuser": f'[ "$1 $2 $3 $4" = "-u postgres -- psql" ] || exit 9\n{script}',
    }
    for name, text in shims.items():
        path = Path("/usr/local/bin") / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)


def write_config(sandbox: Sandbox) -> None:
    """Arvados' own file, of the sandbox' cluster."""
    login = dsn.options(sandbox.database.dsn)
    host, _, port = login["host"].rpartition(":")
    CONFIG.parent.mkdir(parents=True, exist_ok=True)
    CONFIG.write_text(
        f"""
Clusters:
  zzzzz:
    SystemRootToken: {sandbox.cluster.root.token}
    ManagementToken: {MANAGEMENT_TOKEN}
    TLS: {{Insecure: true}}
    PostgreSQL:
      Connection:
        host: {host}
        port: "{port}"
        user: {login["user"]}
        password: "{login["password"]}"
        dbname: {login["dbname"]}
    Services:
      Controller: {{ExternalURL: "https://{sandbox.api_tls.host}"}}
      Websocket: {{ExternalURL: "wss://ws.example.com/websocket"}}
"""
    )
    CONFIG.chmod(0o600)


def run(line: str) -> str:
    """One line of the page, in a terminal where a person says yes."""
    ours, theirs = pty.openpty()
    os.write(ours, b"y\n")
    path = f"/usr/local/bin:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-ec", line], stdin=theirs, capture_output=True, text=True, timeout=WITHIN,
        env={"PATH": path, "HOME": "/root", "LANG": "C.UTF-8"}, check=False,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


async def started(names: list[str], place: Path) -> dict[str, Process]:
    """Units, each started as it is written; all of them well."""
    processes = {}
    for name in names:
        service = name.removeprefix("arvados-nats-").removesuffix(".service")
        processes[service] = launch(service, list(FOLDERS), CREDENTIALS, place / f"{service}.log")
    for service, port in PORTS.items():
        await child.ready(processes[service], _well(port), WITHIN)
    return processes


def _well(port: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        headers = {"Authorization": f"Bearer {MANAGEMENT_TOKEN}"}
        try:
            async with httpx.AsyncClient(headers=headers) as client:
                answer = await client.get(f"http://127.0.0.1:{port}/_health/ping")
        except httpx.HTTPError:
            return False
        return answer.status_code == 200 and answer.json()["health"] == "OK"

    return check


async def deliver(sandbox: Sandbox) -> None:
    """What happens in Arvados is told to a socket."""
    url = "ws://127.0.0.1:8000/websocket"
    root = sandbox.cluster.root
    async with v0.client(url, root.token) as client:
        await client.subscribe()
        made = await sandbox.cluster.project(owner=root)
        await client.event_about(made.uuid, "create")


async def walk(page: str, place: Path) -> dict[str, float]:
    """Both ways of the page; how long each took."""
    took, marked = {}, place / "started"
    async with sandboxes.run() as sandbox:
        stand_ins(sandbox, marked)
        write_config(sandbox)
        install, go, *_ = commands(page)
        for line in install[1:]:
            await asyncio.to_thread(run, line)
        began = time.monotonic()
        for line in go:
            await asyncio.to_thread(run, line.replace("arvados_production", sandbox.database.name))
        processes = await started(marked.read_text().split(), place)
        await deliver(sandbox)
        took["three commands"] = time.monotonic() - began
        sandbox.advertise("wss://ws.example.com/websocket")
        await asyncio.to_thread(run, "arvados-nats doctor")
        for service in PORTS:
            await processes[service].stop(signal.SIGTERM, 15)
        services = [name for name in marked.read_text().split() if "server" not in name]
        _read_config_itself(page, services)
        began = time.monotonic()
        await started(services, place)
        await deliver(sandbox)
        await asyncio.to_thread(run, "arvados-nats doctor")
        took["config.yml itself"] = time.monotonic() - began
    return took


def _read_config_itself(page: str, services: list[str]) -> None:
    drop_in = re.search(r"```ini\n(.*?)```", page, re.DOTALL)
    assert drop_in is not None
    for path in Path("/etc/arvados-nats/secrets").iterdir():
        path.unlink()
    for name in services:
        folder = Path(f"/etc/systemd/system/{name}.service.d")
        folder.mkdir()
        (folder / "config.conf").write_text(drop_in[1])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="arvados-nats-walk-") as made:
        separate(Path(made))
        text = Path(sys.argv[1]).read_text(encoding="utf-8")
        json.dump(asyncio.run(walk(text, Path(made))), sys.stdout)
