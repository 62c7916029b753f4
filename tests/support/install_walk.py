# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Walk docs/install.md's way for machines, word by word: `install_walk PAGE [ROOT]`.

On this machine, bare of us: /etc, /opt, /run, /usr/local/bin and /var/lib are written to a layer
that goes with it, and the installation is a link to this environment. Or in ROOT, where the package
is installed and nothing else; it stays as the walk leaves it. Runs in namespaces of its own
(`unshare --mount --net`), so no port is anybody else's. Only what a shell cannot do here is stood
in for: `systemctl` is an exact reader of the units, and `runuser -u postgres` is the superuser of a
sandbox' database.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from arvados_nats.admin.unit_files import CREDENTIALS, FOLDERS
from arvados_nats.postgres import dsn
from sandbox import sandbox as sandboxes
from sandbox.sandbox import MANAGEMENT_TOKEN, Sandbox
from sandbox.servers import child, postgres_binaries
from sandbox.servers.child import Process
from tests.support import started_unit
from tests.support.clients import v0

WITHIN = 60.0
HERE = Path("/")
LAYERED = ("/etc", "/opt", "/run", "/usr/local/bin", "/var/lib")
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
PORTS = {"publishers": 9091, "authcallout": 9092, "wsproxy": 9093}
PYTHON = "/opt/arvados-nats/bin/python"
STAND_INS = {
    "systemctl": '[ "$1" = daemon-reload ] || { shift 2; echo "$@" > /run/enabled; }',
    "runuser": '[ "$1 $2 $3 $4" = "-u postgres -- psql" ] || exit 9; cat > /run/statements.sql',
}


@dataclass(slots=True)
class Walk:
    """Where one walks, and what runs there."""

    root: Path
    place: Path
    """Ours, for logs."""
    sandbox: Sandbox
    running: dict[str, Process] = field(default_factory=dict)

    def inside(self, *words: str) -> list[str]:
        """The command, for who is not in there."""
        return list(words) if self.root == HERE else ["chroot", str(self.root), *words]

    def path(self, name: str) -> Path:
        """A file in there."""
        return self.root / name.removeprefix("/")

    def run(self, line: str) -> None:
        """One line of the page, in a terminal where a person says yes."""
        ours, theirs = pty.openpty()
        os.write(ours, b"y\n")
        done = subprocess.run(
            self.inside("sh", "-ec", line), stdin=theirs, capture_output=True, text=True,
            env={"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}, check=False, timeout=WITHIN,
        )  # fmt: skip
        os.close(ours)
        os.close(theirs)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if (statements := self.path("/run/statements.sql")).exists():
            psql = [str(postgres_binaries.find() / "psql"), "-q", self.sandbox.database.dsn]
            subprocess.run(psql, input=statements.read_bytes(), check=True, timeout=WITHIN)
            statements.unlink()

    async def start(self, *, but: str = "") -> None:
        """The units that were enabled, each as it is written; all of them well."""
        for name in self.path("/run/enabled").read_text().split():
            if name != but:
                words = [PYTHON, "/run/started_unit.py", f"{name}.service", str(CREDENTIALS)]
                service = name.removeprefix("arvados-nats-")
                self.running[service] = child.start(
                    self.inside(*words, *map(str, FOLDERS)), log=self.place / f"{service}.log"
                )
        for service, port in PORTS.items():
            await child.ready(self.running[service], _well(port), WITHIN)

    async def deliver(self) -> None:
        """What happens in Arvados is told to a socket."""
        root = self.sandbox.cluster.root
        async with v0.client("ws://127.0.0.1:8000/websocket", root.token) as client:
            await client.subscribe()
            made = await self.sandbox.cluster.project(owner=root)
            await client.event_about(made.uuid, "create")


def separate(root: Path, place: Path) -> None:
    """What is written below `LAYERED` goes to a folder of our own; the network is loopback."""
    for path in LAYERED if root == HERE else ():
        upper, work = place / f"upper{path}", place / f"work{path}"
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        options = f"lowerdir={path},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, path], check=True)
    for path in () if root == HERE else ("proc", "dev"):
        subprocess.run(["mount", "--bind", f"/{path}", root / path], check=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        up = struct.pack("16sh", b"lo", 1)  # SIOCSIFFLAGS, IFF_UP
        fcntl.ioctl(any_socket, 0x8914, up)


def commands(page: str) -> list[list[str]]:
    """The blocks of commands of the way for machines."""
    way = page.partition("## 3b. ")[2].partition("\n### ")[0]
    return [block.strip().splitlines() for block in re.findall(r"```sh\n(.*?)```", way, re.DOTALL)]


def arrange(walk: Walk, install: list[str]) -> None:
    """Arvados' file, the installation, and what a shell cannot do here."""
    for name, text in STAND_INS.items():
        path = walk.path(f"/usr/local/bin/{name}")
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    shutil.copy(started_unit.__file__, walk.path("/run/started_unit.py"))
    file = walk.path("/etc/arvados/config.yml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(config(walk.sandbox))
    file.chmod(0o600)
    if walk.root == HERE:
        shutil.rmtree("/opt/arvados-nats", ignore_errors=True)
        os.symlink(sys.prefix, "/opt/arvados-nats")
        for line in install[1:]:
            walk.run(line)


def config(sandbox: Sandbox) -> str:
    """Arvados' own config.yml, of the sandbox' cluster."""
    login = dsn.options(sandbox.database.dsn)
    host, _, port = login["host"].rpartition(":")
    return f"""
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


async def both_ways(page: str, root: Path, place: Path) -> dict[str, float]:
    """Settings that `init` copies, then config.yml itself; how long each took."""
    took = {}
    async with sandboxes.run() as sandbox:
        walk = Walk(root, place, sandbox)
        install, go, *_ = commands(page)
        await asyncio.to_thread(arrange, walk, install)
        began = time.monotonic()
        for line in go:
            await asyncio.to_thread(walk.run, line)
        await walk.start()
        took["three commands, until all are well"] = time.monotonic() - began
        await walk.deliver()
        took["until an event is delivered"] = time.monotonic() - began
        sandbox.advertise("wss://ws.example.com/websocket")
        for line in ("arvados-nats doctor", "arvados-nats init"):  # as docs/operate.md says
            await asyncio.to_thread(walk.run, line)
        for service in PORTS:
            await walk.running[service].stop(signal.SIGTERM, 15)
        _read_config_itself(page, walk)
        began = time.monotonic()
        await walk.start(but="arvados-nats-server")
        await walk.deliver()
        await asyncio.to_thread(walk.run, "arvados-nats doctor")
        took["config.yml itself"] = time.monotonic() - began
        for process in reversed(walk.running.values()):
            await process.stop(signal.SIGTERM, 15)
    return took


def _read_config_itself(page: str, walk: Walk) -> None:
    drop_in = re.search(r"```ini\n(.*?)```", page, re.DOTALL)
    assert drop_in is not None
    for path in walk.path("/etc/arvados-nats/secrets").iterdir():
        path.unlink()
    for service in PORTS:
        folder = walk.path(f"/etc/systemd/system/arvados-nats-{service}.service.d")
        folder.mkdir(parents=True)
        (folder / "config.conf").write_text(drop_in[1])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="arvados-nats-walk-") as made:
        text = Path(sys.argv[1]).read_text(encoding="utf-8")
        where = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else HERE
        separate(where, Path(made))
        found = asyncio.run(both_ways(text, where, Path(made)))
        json.dump({name: round(seconds, 1) for name, seconds in found.items()}, sys.stdout)
