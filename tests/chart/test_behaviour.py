# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The chart's pods as processes of this machine: their arguments, variables and mounted files.

Three NATS servers and one pod of each service, with keys that our own command has made, out of what
the image holds where `make` has installed that. Only addresses are changed: what the chart forgets
or misnames, a service would miss here.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import CloseCode

from arvados_nats.contract import subjects
from arvados_nats.errors import Refused
from arvados_nats.nats import client as nats_client
from sandbox.model.actors import Actor
from sandbox.sandbox import MANAGEMENT_TOKEN, Sandbox
from sandbox.servers import ports
from sandbox.stack import Service
from tests.support.chart import image as images
from tests.support.chart import nats_servers
from tests.support.chart.nats_servers import Held, Servers
from tests.support.chart.rendered import COMPONENTS, Helm, Pod, Rendered
from tests.support.clients.native import Native
from tests.support.waiting import until

SETS = (
    "arvados.existingSecret=arvados-cluster",
    "arvados.caBundle.existingConfigMap=site-ca",
    "wsproxy.drainSeconds=2",
)


def mounted(pod: Pod, root: Path, held: Held) -> dict[str, str]:
    """Write the volumes of a pod below `root`; mount path -> folder."""
    folders: dict[str, str] = {}
    for mount in pod.spec["containers"][0]["volumeMounts"]:
        (volume,) = (v for v in pod.spec["volumes"] if v["name"] == mount["name"])
        folder = root / mount["name"]
        folder.mkdir(parents=True)
        for source in _sources(volume):
            name = source.get("secretName") or source["name"]
            for item in source.get("items") or [
                {"key": k, "path": k} for n, k in held if n == name
            ]:
                if source.get("optional") and (name, item["key"]) not in held:
                    continue
                (folder / item["path"]).write_text(held[name, item["key"]])
        folders[mount["mountPath"]] = str(folder)
    return folders


def _sources(volume: dict[str, Any]) -> list[dict[str, Any]]:
    plain = [volume[kind] for kind in ("secret", "configMap") if kind in volume]
    projected = volume.get("projected", {}).get("sources", [])
    return plain + [source["secret"] for source in projected]


def process(pod: Pod, folder: Path, held: Held, **there: str) -> Service:
    """The first container of a pod, of the image where there is one; `there`: addresses here."""
    container = pod.spec["containers"][0]
    folders = mounted(pod, folder, held)
    told = {item["name"]: item["value"] for item in container["env"]}
    for name, value in told.items():
        for path, place in folders.items():
            if value == path or value.startswith(f"{path}/"):
                told[name] = place + value.removeprefix(path)
    told |= {name: value for name, value in there.items() if name in told}
    port = int(told.get("ARVADOS_NATS_OPS_LISTEN", ":0").rpartition(":")[2])
    image = images.find()
    environment = image.environment if image else {"PATH": os.defpath}
    environment |= {"TMPDIR": folders["/tmp"], **told}
    made = Service(container["name"], container["args"], environment, folder / "log", port)
    return replace(made, program=[image.program]) if image else made


@dataclass(frozen=True)
class Pods:
    """What runs, and what it was made of."""

    rendered: Rendered
    held: Held
    nats: Servers
    services: dict[str, Service]
    sandbox: Sandbox
    image_files: dict[Path, float]

    @property
    def proxy(self) -> str:
        """Where sockets connect."""
        return f"ws://{self.services['wsproxy'].environment['ARVADOS_NATS_LISTEN']}"


@pytest.fixture(scope="module")
async def pods(
    helm: Helm, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Pods]:
    """All of them, well by their own word: `start` waits for it."""
    rendered = helm.template("minimal", *SETS)
    held = {**nats_servers.generated_keys("r-nkeys"), **secrets_of_the_operator(sandbox)}
    folder = tmp_path_factory.mktemp("pods")
    image = images.find()
    before = image.files() if image else {}
    async with nats_servers.running(rendered, held, folder) as servers:
        addresses = {
            "ARVADOS_NATS_NATS_URL": ",".join(servers.urls),
            "ARVADOS_API_HOST": sandbox.api_tls.host,
        }
        services = {
            name: service(rendered.pod(name), folder, held, addresses) for name in COMPONENTS
        }
        try:
            await asyncio.gather(*(each.start() for each in services.values()))
            yield Pods(rendered, held, servers, services, sandbox, before)
        finally:
            await asyncio.gather(*(each.stop() for each in services.values()))


def secrets_of_the_operator(sandbox: Sandbox) -> Held:
    """What docs/install.md has people make before they install."""
    return {
        ("arvados-cluster", "SystemRootToken"): sandbox.cluster.config.system_root_token + "\n",
        ("arvados-cluster", "ManagementToken"): MANAGEMENT_TOKEN + "\n",
        ("arvados-postgresql", "dsn"): sandbox.database.reader_dsn,
        ("site-ca", "ca-certificates.crt"): sandbox.certificates.authority.read_text(),
    }


def service(pod: Pod, folder: Path, held: Held, addresses: dict[str, str]) -> Service:
    """One of the three, with ports of its own."""
    free = ports.candidates()
    listens = {
        name: f"127.0.0.1:{next(free)}"
        for name in ("ARVADOS_NATS_OPS_LISTEN", "ARVADOS_NATS_LISTEN")
    }
    name = pod.labels["app.kubernetes.io/component"]
    return process(pod, folder / name, held, **addresses, **listens)


async def test_every_probe_of_every_pod_is_answered(pods: Pods) -> None:
    """At the paths that the chart names, without a token."""
    async with httpx.AsyncClient() as client:
        for name, running in pods.services.items():
            container = pods.rendered.pod(name).containers[0]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = container[probe]["httpGet"]["path"]
                answer = await client.get(f"http://127.0.0.1:{running.ops_port}{path}")
                assert answer.status_code == 200, (name, probe)


async def test_helm_test_is_content(pods: Pods, tmp_path: Path) -> None:
    """The test pod's own command, with its own seed."""
    addresses = {"ARVADOS_NATS_NATS_URL": ",".join(pods.nats.urls)}
    test = process(pods.rendered.pod("test"), tmp_path / "test", pods.held, **addresses)
    *command, url = test.arguments
    assert url == "ws://r-arvados-nats-wsproxy:80"
    checked = await asyncio.create_subprocess_exec(
        *test.program, *command, pods.proxy,
        env=dict(test.environment), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await checked.communicate()
    assert checked.returncode == 0, said.decode()


@asynccontextmanager
async def native(pods: Pods, token: str, inbox: str) -> AsyncIterator[Native]:
    """A client of the chart's NATS servers with an Arvados token."""
    async with nats_client.connect(
        pods.nats.urls, name="test", token=token, inbox_prefix=inbox, timeout=10
    ) as connection:
        yield Native(connection)


@asynccontextmanager
async def subscribed(pods: Pods, user: Actor) -> AsyncIterator[ClientConnection]:
    """A socket of the old protocol that gets everything its user may read."""
    async with connect(f"{pods.proxy}/websocket?api_token={user.token}") as socket:
        await socket.send('{"method": "subscribe"}')
        assert json.loads(await socket.recv()) == {"status": 200}
        yield socket


async def hear(socket: ClientConnection, uuid: str) -> None:
    """Wait for an event about an object; the making of the user may come before it."""
    async with asyncio.timeout(60):
        while json.loads(await socket.recv())["object_uuid"] != uuid:
            pass


async def test_a_token_opens_nats_and_the_socket(pods: Pods) -> None:
    """The callout lets it in, wsproxy too, and one event reaches both; a wrong one is refused."""
    user = await pods.sandbox.cluster.user("reader")
    inbox = subjects.inbox_prefix(user.token_uuid or user.uuid)
    with pytest.raises(Refused):
        async with native(pods, f"{user.token}x", inbox):
            raise AssertionError("let in")
    async with native(pods, user.token, inbox) as client, subscribed(pods, user) as socket:
        await client.listen(f"arvados.live.{user.uuid}.>")
        project = await pods.sandbox.cluster.project("seen by both", owner=user)
        await until(lambda: client.heard_of(project.uuid), "the native client hears it")
        await hear(socket, project.uuid)


async def test_a_drained_node_takes_one_nats_server_along(pods: Pods) -> None:
    """The other two go on: what is written meanwhile is stored, and reaches the socket."""
    user = await pods.sandbox.cluster.user("unmoved")
    async with subscribed(pods, user) as socket:
        await pods.nats.roll(0)
        project = await pods.sandbox.cluster.project("while one is away", owner=user)
        await hear(socket, project.uuid)


def seconds_to_end(pod: Pod) -> float:
    """From SIGTERM to SIGKILL, as Kubernetes counts: the grace less the pause before."""
    stop = pod.containers[0].get("lifecycle")
    pause = stop["preStop"]["sleep"]["seconds"] if stop else 0
    return float(pod.spec["terminationGracePeriodSeconds"] - pause)


async def test_every_pod_ends_within_its_grace(pods: Pods) -> None:
    """SIGTERM, with a socket open: all closed in order and exit code 0, before Kubernetes kills."""
    user = await pods.sandbox.cluster.user("leaver")
    async with subscribed(pods, user) as socket:
        for name in ("wsproxy", "authcallout", "publishers"):
            running, grace = pods.services[name], seconds_to_end(pods.rendered.pod(name))
            started = time.monotonic()
            await running.stop(within=grace)
            assert time.monotonic() - started < grace
            assert running.process is not None
            assert running.process.exit_code == 0, running.output[-2000:]
        await socket.wait_closed()
        assert socket.close_code == CloseCode.GOING_AWAY
    await asyncio.gather(*(running.start() for running in pods.services.values()))


async def test_nothing_is_written_into_the_image(pods: Pods) -> None:
    """The chart mounts its root read-only; all of them have run by now."""
    image = images.find()
    if image is None:
        pytest.skip(images.ABSENT)
    assert image.files() == pods.image_files
