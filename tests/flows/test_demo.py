# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats demo --check`: what somebody runs first."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from sandbox import demo
from sandbox.stack import Stack


async def test_the_demo_checks_itself() -> None:
    """One container from commit to Complete, by v0, v1 and server-sent events: all is there."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "arvados_nats", "demo", "--check",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await child.communicate()
    assert child.returncode == 0, errors.decode()[-3000:]
    report = json.loads(output.decode().splitlines()[-1])
    assert report["ok"] is True
    assert report["events_missing_v0"] == 0
    assert report["bytes"] == report["v1"]["bytes"] == report["sse"]["bytes"] > 10_000
    assert report["files"] >= 5
    assert report["v1"]["line_delay_ms"]["p50"] > 0


@pytest.mark.parametrize("name", ["curl", "Logs"])
async def test_each_command_that_it_prints_runs_as_it_stands(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Pasted into a shell in any folder, it shows what the container writes."""
    if name == "curl" and not shutil.which("curl"):
        pytest.skip("no curl on this machine")
    monkeypatch.setattr(sys, "argv", [str(Path(sys.executable).with_name("arvados-nats")), "demo"])
    cluster = stack.sandbox.cluster
    user = await cluster.user("demo")
    request = await cluster.container_request("shown", owner=user)
    await cluster.run(request)
    await cluster.write_log(request, "stdout.txt", b"hello\n")
    printed = (
        line.split(maxsplit=1)
        for line in demo.instructions(stack, user, cluster.root, request.uuid).splitlines()
    )
    [command] = [words[1] for words in printed if words[:1] == [name]]
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", command,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert shell.stdout is not None
    try:
        async with asyncio.timeout(60):
            while b"hello" not in (line := await shell.stdout.readline()):
                assert line, f"it ended: {command}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGTERM)
        await shell.wait()
