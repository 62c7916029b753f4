# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats demo --check`: what somebody runs first."""

from __future__ import annotations

import asyncio
import json
import sys


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
