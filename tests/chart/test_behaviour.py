# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The chart's pods as processes of this machine: their arguments, variables and mounted files.

Only addresses are changed. What the chart forgets or misnames, a service would miss here.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from sandbox import ports
from sandbox.sandbox import MANAGEMENT_TOKEN, Sandbox
from sandbox.stack import Service
from tests.chart.rendered import COMPONENTS, Helm, Pod, Rendered

SETS = ("wsproxy.drainSeconds=2", "arvados.caBundle.existingConfigMap=site-ca")


def mounted(pod: Pod, root: Path, held: dict[tuple[str, str], str]) -> dict[str, str]:
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
                (folder / item["path"]).write_text(held[name, item["key"]])
        folders[mount["mountPath"]] = str(folder)
    return folders


def _sources(volume: dict[str, Any]) -> list[dict[str, Any]]:
    plain = [volume[kind] for kind in ("secret", "configMap") if kind in volume]
    projected = volume.get("projected", {}).get("sources", [])
    return plain + [source["secret"] for source in projected]


def process(pod: Pod, folder: Path, held: dict[tuple[str, str], str], **there: str) -> Service:
    """The first container of a pod; `there` gives addresses of this machine."""
    container = pod.spec["containers"][0]
    folders = mounted(pod, folder, held)
    told = {item["name"]: item["value"] for item in container["env"]}
    for name, value in told.items():
        for path, place in folders.items():
            if value == path or value.startswith(f"{path}/"):
                told[name] = place + value.removeprefix(path)
    told |= {name: value for name, value in there.items() if name in told}
    port = int(told.get("ARVADOS_NATS_OPS_LISTEN", ":0").rpartition(":")[2])
    environment = {"PATH": os.defpath, "TMPDIR": folders["/tmp"], **told}
    return Service(container["name"], container["args"], environment, folder / "log", port)


@pytest.fixture
def rendered(helm: Helm) -> Rendered:
    """One copy of each stream, as there is one NATS server here."""
    return helm.template("single", *SETS)


@pytest.fixture
def held(sandbox: Sandbox) -> dict[tuple[str, str], str]:
    """(Secret or ConfigMap, key) -> value: what an operator and the key hook have made."""
    return {
        **{("r-nkeys", path.name): path.read_text() for path in sandbox.keys_folder.iterdir()},
        ("arvados-cluster", "SystemRootToken"): sandbox.cluster.config.system_root_token + "\n",
        ("arvados-cluster", "ManagementToken"): MANAGEMENT_TOKEN + "\n",
        ("arvados-postgresql", "dsn"): sandbox.database.reader_dsn,
        ("site-ca", "ca-certificates.crt"): sandbox.certificates.authority.read_text(),
    }


@pytest.fixture
async def running(
    rendered: Rendered, sandbox: Sandbox, held: dict[tuple[str, str], str], tmp_path: Path
) -> AsyncIterator[dict[str, Service]]:
    """All three, well by their own word: `start` waits for it."""
    free = ports.candidates()
    services = {
        component: process(
            rendered.pod(component),
            tmp_path / component,
            held,
            ARVADOS_NATS_NATS_URL=sandbox.nats.url,
            ARVADOS_API_HOST=sandbox.api_tls.host,
            ARVADOS_NATS_OPS_LISTEN=f"127.0.0.1:{next(free)}",
            ARVADOS_NATS_LISTEN=f"127.0.0.1:{next(free)}",
        )
        for component in COMPONENTS
    }
    try:
        await asyncio.gather(*(service.start() for service in services.values()))
        yield services
    finally:
        await asyncio.gather(*(service.stop() for service in services.values()))


async def test_the_pods_work_together_and_end_in_time(
    running: dict[str, Service],
    rendered: Rendered,
    held: dict[tuple[str, str], str],
    sandbox: Sandbox,
    tmp_path: Path,
) -> None:
    """Probes say ready, the test pod is content, and SIGTERM ends a socket within the grace."""
    async with httpx.AsyncClient() as client:
        for service in running.values():
            for path in ("/livez", "/readyz"):
                answer = await client.get(f"http://127.0.0.1:{service.ops_port}{path}")
                assert answer.status_code == 200, (service.name, path)

    proxy = f"ws://{running['wsproxy'].environment['ARVADOS_NATS_LISTEN']}"
    there = {"ARVADOS_NATS_NATS_URL": sandbox.nats.url}
    test = process(rendered.pod("test"), tmp_path / "test", held, **there)
    *command, url = test.arguments
    assert url == "ws://r-arvados-nats-wsproxy:80"
    checked = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "arvados_nats", *command, proxy,
        env=dict(test.environment), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await checked.communicate()
    assert checked.returncode == 0, said.decode()

    pod = rendered.pod("wsproxy")
    pause = pod.containers[0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = pod.spec["terminationGracePeriodSeconds"] - pause
    user = await sandbox.cluster.user("reader")
    async with connect(f"{proxy}/websocket?api_token={user.token}") as socket:
        started = time.monotonic()
        await running["wsproxy"].stop(within=grace)
        assert time.monotonic() - started < grace
        await socket.wait_closed()
    ended = running["wsproxy"].process
    assert ended is not None
    assert ended.exit_code == 0
