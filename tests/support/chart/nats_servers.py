# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The chart's NATS servers on this machine: its nats.conf, its variables, its number of servers.

Only addresses and folders are changed. Keys come out of the Secret that the pods name.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sandbox.servers import child, nats_server, ports
from sandbox.servers.child import Child
from tests.support.chart.rendered import Object, Rendered

Held = Mapping[tuple[str, str], str]
"""(Secret or ConfigMap, key) -> value."""


def generated_keys(secret: str) -> dict[tuple[str, str], str]:
    """The Secret as docs/install.md has it made: by our command, in a process of its own."""
    command = ["keys", "generate", "-o", "yaml", "--name", secret, "--show-seeds"]
    done = subprocess.run(
        [sys.executable, "-m", "arvados_nats", *command], capture_output=True, check=True
    )
    made: dict[str, Any] = yaml.safe_load(done.stdout)
    return {(made["metadata"]["name"], key): text for key, text in made["stringData"].items()}


def server_spec(rendered: Rendered) -> Object:
    """The StatefulSet of the NATS servers."""
    found: Object = rendered.one("StatefulSet", "nats")["spec"]
    return found


def variables(rendered: Rendered, held: Held, name: str) -> dict[str, str]:
    """What the pod called `name` has in its environment; `$(X)` is a variable before it."""
    told = {"POD_NAME": name}
    for item in server_spec(rendered)["template"]["spec"]["containers"][0]["env"]:
        if reference := item.get("valueFrom", {}).get("secretKeyRef"):
            told[item["name"]] = held[reference["name"], reference["key"]]
        elif "value" in item:
            told[item["name"]] = re.sub(
                r"\$\((\w+)\)", lambda found: told.get(found[1], found[0]), item["value"]
            )
    return told


@dataclass(frozen=True)
class Address:
    """Where one server listens."""

    client: str
    route: str


def nats_conf(rendered: Rendered, folder: Path, mine: Address) -> str:
    """The chart's own text, listening at `mine` and with its data in `folder`."""
    text = rendered.nats_conf
    for pattern, replacement in (
        (r'"store_dir": "[^"]+"', f'"store_dir": "{folder}"'),
        (r'"pid_file": "[^"]+"', f'"pid_file": "{folder}/pid"'),
        (r'"http_port": \d+', '"http": "127.0.0.1:-1"'),
        (r'\n  "port": \d+', f'\n  "listen": "{mine.client}"'),
        (r'"port": 6222', f'"listen": "{mine.route}"'),
    ):
        text = re.sub(pattern, replacement, text)
    return text


def pod_addresses(rendered: Rendered) -> list[str]:
    """Where the servers' pods find each other."""
    name, spec = rendered.one("StatefulSet", "nats")["metadata"]["name"], server_spec(rendered)
    return [f"{name}-{n}.{spec['serviceName']}:6222" for n in range(spec["replicas"])]


def environment(
    rendered: Rendered, held: Held, name: str, all_of_them: Sequence[Address]
) -> dict[str, str]:
    """The variables of the pod called `name`, with the servers where they are here."""
    told = variables(rendered, held, name)
    for pod, address in zip(pod_addresses(rendered), all_of_them, strict=True):
        told = {key: text.replace(pod, address.route) for key, text in told.items()}
    return told


@dataclass(frozen=True)
class Servers:
    """They run; each can be ended by its number."""

    cluster: str
    addresses: Sequence[Address]
    processes: Sequence[Child]

    @property
    def urls(self) -> list[str]:
        """Where clients connect."""
        return [f"nats://{address.client}" for address in self.addresses]

    async def roll(self, number: int) -> None:
        """End one as a drain of its node does."""
        await self.processes[number].stop(signal.SIGTERM)


@asynccontextmanager
async def running(rendered: Rendered, held: Held, folder: Path) -> AsyncIterator[Servers]:
    """As many as the StatefulSet has, once each of them accepts clients."""
    free = ports.candidates()
    addresses = [
        Address(f"127.0.0.1:{next(free)}", f"127.0.0.1:{next(free)}")
        for _ in range(server_spec(rendered)["replicas"])
    ]
    processes: list[Child] = []
    try:
        for number, address in enumerate(addresses):
            place = folder / f"nats-{number}"
            place.mkdir(parents=True)
            config = place / "nats.conf"
            config.write_text(nats_conf(rendered, place, address))
            processes.append(
                child.start(
                    [nats_server.executable(), "-c", config],
                    log=place / "log",
                    environment=environment(rendered, held, place.name, addresses),
                )
            )
        await asyncio.gather(*map(_accepts, processes, addresses))
        yield Servers(rendered.one("StatefulSet", "nats")["metadata"]["name"], addresses, processes)
    finally:
        await asyncio.gather(*(process.stop(signal.SIGTERM) for process in processes))


async def _accepts(process: Child, address: Address) -> None:
    async def taken() -> bool:
        return not ports.is_free(int(address.client.rpartition(":")[2]))

    await child.ready(process, taken, 20)


@asynccontextmanager
async def stranger(servers: Servers, folder: Path, login: str) -> AsyncIterator[Child]:
    """A server of somebody else's that tries to join, with `user:password@` or without."""
    place = folder / "stranger"
    place.mkdir()
    routes = json.dumps([f"nats://{login}{address.route}" for address in servers.addresses])
    (place / "nats.conf").write_text(
        'listen: "127.0.0.1:-1"\n'
        f'cluster: {{name: "{servers.cluster}", listen: "127.0.0.1:-1", routes: {routes}}}\n'
        'accounts: {ARVADOS: {users: [{user: "evil", password: "evil"}]}}\n'
    )
    process = child.start([nats_server.executable(), "-c", place / "nats.conf"], log=place / "log")
    try:
        yield process
    finally:
        await process.stop(signal.SIGTERM)
