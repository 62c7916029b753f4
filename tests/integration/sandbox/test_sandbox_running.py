# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Containers of the sandbox run: real-looking lines in several files, at a pace, to the end."""

from __future__ import annotations

import asyncio
import re

from sandbox import running
from sandbox.logs.container_logs import GatewayDown
from sandbox.logs.log_files import Source
from sandbox.running import Pace
from sandbox.sandbox import Sandbox

STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")
FILES = {"arv-mount.txt", "crunch-run.txt", "crunchstat.txt", "hoststat.txt", "node-info.txt",
         "stderr.txt", "stdout.txt"}  # fmt: skip


async def _saved(sandbox: Sandbox, request_uuid: str, container_uuid: str) -> dict[str, Source]:
    """The files of a container in its request's log collection."""
    manifest = await sandbox.cluster.pool.fetchval(
        "SELECT c.manifest_text FROM container_requests r JOIN collections c ON c.uuid = r.log_uuid"
        " WHERE r.uuid = $1",
        request_uuid,
    )
    folder = f"log for container {container_uuid}/"
    files = sandbox.cluster.logs.saved(manifest)
    return {k.removeprefix(folder): v for k, v in files.items() if k.startswith(folder)}


async def test_a_container_runs_to_its_end(sandbox: Sandbox) -> None:
    """Complete with its exit code, the request Final, all lines in the saved log."""
    user = await sandbox.cluster.user("ann")
    request = await sandbox.cluster.container_request(owner=user)
    pace = Pace(lines=500, per_second=2000, tick=0.02, statistics=0.05, exit_code=3)
    container = await running.run(sandbox.cluster, request, pace)
    assert (container["state"], container["exit_code"]) == ("Complete", 3)
    assert (await sandbox.cluster.reload(request))["state"] == "Final"
    files = await _saved(sandbox, request.uuid, container.uuid)
    assert files.keys() == FILES
    texts = {name: content.read(0, content.size) for name, content in files.items()}
    lines = (texts["stdout.txt"] + texts["stderr.txt"]).splitlines()
    numbers = sorted(int(line.split(b"[")[1].split(b"]")[0]) for line in lines if b" [" in line)
    assert numbers == list(range(500))
    for name in FILES - {"node-info.txt"}:
        assert all(STAMP.match(line) for line in texts[name].splitlines()), name


async def test_lines_come_while_it_runs(sandbox: Sandbox) -> None:
    """A thousand lines a second appear in the live file, not at the end."""
    user = await sandbox.cluster.user("ann")
    request = await sandbox.cluster.container_request(owner=user)
    pace = Pace(lines=5000, per_second=1000, tick=0.05, statistics=None, checkpoint=0.2)
    task = asyncio.create_task(running.run(sandbox.cluster, request, pace))
    container = str(request["container_uuid"])
    sizes: set[int] = set()
    saved = None
    async with asyncio.timeout(60):
        while len(sizes) < 10 or saved is None:
            try:
                content = sandbox.cluster.logs.live(container).get("stdout.txt")
                sizes.add(content.size if content else 0)
            except GatewayDown:
                assert not task.done()
            saved = (await sandbox.cluster.reload(request))["log_uuid"]
            await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
