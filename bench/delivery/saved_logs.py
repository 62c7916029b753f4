# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The log of a container that is over: read from its beginning, and looked through."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from arvados_nats.contract import streams, subjects
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Message
from bench import processes
from bench.delivery.live_logs import FILE, WIDTH, Bench
from bench.figures import Figures
from sandbox.logs.log_files import NumberedLines
from sandbox.model.records import Record

_LONG_AGO = "UPDATE containers SET finished_at = finished_at - interval '3 h' WHERE uuid = $1"


async def replay(bench: Bench, megabytes: int, stored: bool) -> Figures:
    """One viewer, from the first byte of a log to its end: from the stream, or from Arvados."""
    source = NumberedLines(megabytes * 10_000, WIDTH)
    publishers = bench.services.services["publishers"]
    if not stored:
        await publishers.stop()
    request, container = await bench.container(f"replay {stored}")
    cluster = bench.made.sandbox.cluster
    cluster.logs.put(container.uuid, FILE, source)
    await cluster.finish(container)
    if stored:
        await until_stored(bench, container)
    else:
        await bench.made.sandbox.backend.rows(_LONG_AGO, container.uuid)
        await publishers.start()
    before, cpu = processes.resident(bench.proxy), processes.cpu_seconds(bench.proxy)
    reading = asyncio.create_task(read_all(bench.services.stream_url, request, bench.tokens[0]))
    most = before
    while not reading.done():
        most = max(most, processes.resident(bench.proxy))
        await asyncio.sleep(0.05)
    read = await reading
    whole = await asyncio.to_thread(_sha256, source)
    return {
        "mb": read["bytes"] / 1e6,
        "exact": float(read["bytes"] == source.size and read["sha256"] == whole),
        "mb_per_second": read["bytes"] / 1e6 / read["seconds"],
        "proxy_cpu_s": processes.cpu_seconds(bench.proxy) - cpu,
        "proxy_before_mib": before / 2**20,
        "proxy_growth_mib": (most - before) / 2**20,
    }


async def read_all(
    url: str, request: Record, token: str, authority: Path | None = None
) -> dict[str, Any]:
    """What a process of its own that reads the log to its end says of it (`crowd.replay`)."""
    reader = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.crowd.replay", url, request.uuid, FILE),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | ({"SSL_CERT_FILE": str(authority)} if authority else {}),
    )
    said, _ = await reader.communicate(f"{token}\n".encode())
    read: dict[str, Any] = json.loads(said)
    return read


async def find(bench: Bench, megabytes: int) -> Figures:
    """A line in the middle of a log that only Arvados has, looked for at the server."""
    source = NumberedLines(megabytes * 10_000, WIDTH)
    request, container = await bench.container("find")
    cluster = bench.made.sandbox.cluster
    cluster.logs.put(container.uuid, FILE, source)
    await cluster.finish(container)
    query = {"container": container.uuid, "file": FILE, "request": request.uuid}
    query |= {"text": f"{source.lines // 2:010d}", "from": "0", "to": str(source.size)}
    headers = {"Authorization": f"Bearer {bench.tokens[0]}"}
    cpu, began, found, at = processes.cpu_seconds(bench.proxy), time.monotonic(), 0.0, 0
    async with httpx.AsyncClient(base_url=bench.services.page_url, timeout=60) as client:
        url = "/v1/search"
        async with client.stream("GET", url, params=query, headers=headers) as answer:
            async for line in answer.aiter_lines():
                step = json.loads(line)
                at = step["at"]
                if step["count"] and not found:
                    found = time.monotonic() - began
    seconds = time.monotonic() - began
    return {
        "exact": float(at == source.size and found > 0),
        "seconds_to_the_line": found,
        "mb_per_second": source.size / 1e6 / seconds,
        "proxy_cpu_s": processes.cpu_seconds(bench.proxy) - cpu,
    }


async def until_stored(bench: Bench, container: Record) -> None:
    """Wait until all of its log and its end are in the stream."""
    sandbox = bench.made.sandbox
    seed = sandbox.seed("publisher")
    ended = asyncio.Event()

    async def end(_: Message) -> None:
        ended.set()

    async with nats_client.connect([sandbox.nats.url], name="bench", seed=seed) as nats:
        subject = subjects.log(container.uuid, "end")
        await nats.subscribe(subjects.stored(subject), end)
        if await nats.last(streams.LOGS, subject) is None:
            await ended.wait()


def _sha256(source: NumberedLines) -> str:
    found, portion = hashlib.sha256(), 1_000_000
    for start in range(0, source.size, portion):
        found.update(source.read(start, start + portion))
    return found.hexdigest()
