# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Watch one container from commit to Complete through every door, and compare with the truth.

The truth is the database's log rows and the bytes that the container wrote.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from sandbox import running
from sandbox.model.actors import Actor
from sandbox.running import Pace
from sandbox.stack import Stack

_SUBPROTOCOL = Subprotocol("arvados.events.v1.json")
_DEADLINE = 45.0
_PACE = Pace(lines=200, per_second=50, statistics=1.0, checkpoint=2.0)


@dataclass(slots=True)
class _Logs:
    """Bytes of each file as one reader got them, and how late their lines were."""

    files: defaultdict[str, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    faults: list[str] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, log: dict[str, Any]) -> None:
        text = log.get("text")
        data = text.encode() if text is not None else base64.b64decode(log["base64"])
        if log["offset"] != len(self.files[log["file"]]):
            self.faults.append(f"{log['file']}: {log['offset']} does not join")
        self.files[log["file"]] += data
        now = time.time()
        self.delays += [now - at for line in data.splitlines() if (at := _written(line))]


def _written(line: bytes) -> float | None:
    try:
        return datetime.fromisoformat(line[:26].decode() + "+00:00").timestamp()
    except ValueError:
        return None


async def check(stack: Stack) -> dict[str, Any]:
    """Run one container and say what each door showed of it."""
    cluster = stack.sandbox.cluster
    user = await cluster.user("check")
    v0: dict[str, float] = {}
    v1, sse = _Logs(), _Logs()
    started = time.monotonic()
    async with asyncio.timeout(_DEADLINE), _tasks() as tasks:
        ready = asyncio.Event()
        tasks.append(asyncio.create_task(_watch_v0(stack, user, v0, ready)))
        await ready.wait()
        request = await cluster.container_request("check", owner=user)
        for watch, logs in ((_watch_v1, v1), (_watch_sse, sse)):
            tasks.append(asyncio.create_task(watch(stack, user, request.uuid, logs)))
        container = await running.run(cluster, request, _PACE)
        rows = await _rows(stack, (request.uuid, container.uuid))
        await _unless_failed(
            tasks, asyncio.gather(v1.ended.wait(), sse.ended.wait(), _all_seen(v0, rows))
        )
    wanted = {
        file: source.read(0, source.size)
        for file, source in cluster.logs.saved(await _manifest(stack, container["log"])).items()
    }
    report: dict[str, Any] = {
        "seconds": round(time.monotonic() - started, 2),
        "files": len(wanted),
        "bytes": sum(map(len, wanted.values())),
        "events": len(rows),
        "events_missing_v0": len(rows.keys() - v0.keys()),
        "event_delay_ms": _percentiles(v0[uuid] - rows[uuid] for uuid in rows if uuid in v0),
        "v1": _compared(v1, wanted),
        "sse": _compared(sse, wanted),
    }
    report["ok"] = not report["events_missing_v0"] and report["v1"]["ok"] and report["sse"]["ok"]
    return report


@asynccontextmanager
async def _tasks() -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watch_v0(
    stack: Stack, user: Actor, seen: dict[str, float], ready: asyncio.Event
) -> None:
    async with connect(f"{stack.websocket_url}?api_token={user.token}", max_size=None) as socket:
        await socket.send(json.dumps({"method": "subscribe"}))
        async for frame in socket:
            message = json.loads(frame)
            if message.get("status") == 200:
                ready.set()
            elif "uuid" in message:
                seen.setdefault(message["uuid"], time.time())


async def _all_seen(seen: dict[str, float], rows: dict[str, float]) -> None:
    for uuid in rows:
        while uuid not in seen:  # noqa: ASYNC110 (the deadline is the caller's)
            await asyncio.sleep(0.02)


async def _unless_failed(
    watchers: Iterable[asyncio.Task[None]], result: asyncio.Future[Any]
) -> None:
    """Wait for the result; a watcher that fails before raises at once."""
    try:
        while not result.done():
            done, _ = await asyncio.wait((*watchers, result), return_when="FIRST_COMPLETED")
            for task in done:
                await task
            watchers = [task for task in watchers if task not in done]
    finally:
        result.cancel()
        await asyncio.gather(result, return_exceptions=True)


async def _watch_v1(stack: Stack, user: Actor, request_uuid: str, logs: _Logs) -> None:
    async with connect(stack.stream_url, subprotocols=[_SUBPROTOCOL], max_size=None) as socket:
        await _say(socket, {"auth": {"token": user.token}})
        await _say(socket, {"subscribe": {"id": "logs", "log": {"uuid": request_uuid}}})
        async for frame in socket:
            for key, body in json.loads(frame).items():
                _take(logs, key, body)


async def _say(socket: ClientConnection, message: dict[str, Any]) -> None:
    await socket.send(json.dumps(message))


def _take(logs: _Logs, key: str, body: dict[str, Any]) -> None:
    if key == "log":
        logs.add(body)
    elif key in ("gap", "error", "revoked"):
        logs.faults.append(f"{key}: {body}")
        logs.ended.set()
    elif key == "end" and "file" not in body and body.get("confirmed"):
        logs.ended.set()


async def _watch_sse(stack: Stack, user: Actor, request_uuid: str, logs: _Logs) -> None:
    url = f"{stack.page_url}/arvados/v1/container_requests/{request_uuid}/log_events"
    headers = {"Authorization": f"Bearer {user.token}"}
    async with (
        httpx.AsyncClient(timeout=None) as client,
        client.stream("GET", url, headers=headers) as answer,
    ):
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "data":
                for key, body in json.loads(value).items():
                    _take(logs, key, body)


async def _rows(stack: Stack, uuids: tuple[str, ...]) -> dict[str, float]:
    """Log rows about these objects: uuid to the time of the row, seconds since 1970."""
    async with stack.sandbox.cluster.unit(stack.sandbox.cluster.root) as unit:
        found = await unit.connection.fetch(
            "SELECT uuid, created_at FROM logs WHERE object_uuid = ANY($1)", list(uuids)
        )
    return {
        row["uuid"]: datetime.fromisoformat(f"{row['created_at']}+00:00").timestamp()
        for row in found
    }


async def _manifest(stack: Stack, portable_data_hash: str) -> str:
    async with stack.sandbox.cluster.unit(stack.sandbox.cluster.root) as unit:
        text: str = await unit.connection.fetchval(
            "SELECT manifest_text FROM collections WHERE portable_data_hash = $1 LIMIT 1",
            portable_data_hash,
        )
    return text


def _compared(logs: _Logs, wanted: dict[str, bytes]) -> dict[str, Any]:
    wrong = [file for file, data in wanted.items() if bytes(logs.files[file]) != data]
    return {
        "ok": not wrong and not logs.faults,
        "bytes": sum(map(len, logs.files.values())),
        "files_wrong": wrong,
        "faults": logs.faults[:5],
        "line_delay_ms": _percentiles(logs.delays),
    }


def _percentiles(seconds: Iterable[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    if not ordered:
        return {}
    return {
        name: round(1000 * ordered[min(int(len(ordered) * part), len(ordered) - 1)], 1)
        for name, part in (("p50", 0.5), ("p99", 0.99))
    }
