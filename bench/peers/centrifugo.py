# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Centrifugo with its memory engine: one process, no history, no permission checks, no TLS."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from bench.peers import binaries
from sandbox.servers import child, ports
from sandbox.servers.child import Child

_START_SECONDS = 20.0


def _config(port: int) -> dict[str, object]:
    return {
        "log": {"level": "error"},
        "http_server": {"address": "127.0.0.1", "port": port},
        "http_api": {"insecure": True},
        "health": {"enabled": True},
        "client": {
            "insecure": True,
            "allowed_origins": ["*"],
            "ping_interval": "1h",
            "channel_limit": 1000,
        },
    }


class Centrifugo:
    """The running server. Clients speak its JSON protocol at `path`."""

    path = "/connection/websocket"
    marker = b'"pub":{'
    welcome = b'"connect":'
    subscribed = b'"subscribe":'
    protocol = ""

    def __init__(self, process: Child, port: int, api: httpx.AsyncClient) -> None:
        self.process = process
        self.address = ("127.0.0.1", port)
        self._api = api

    @staticmethod
    def hello(channels: Sequence[str]) -> list[bytes]:
        """What a client says to be in these channels; each is answered with one frame."""
        commands: list[dict[str, object]] = [{"id": 1, "connect": {}}]
        commands += [
            {"id": number, "subscribe": {"channel": channel}}
            for number, channel in enumerate(channels, 2)
        ]
        return [json.dumps(command).encode() for command in commands]

    async def publish(self, channel: str, texts: Sequence[str]) -> None:
        """Publish these, in order, with one request."""
        commands = [{"publish": {"channel": channel, "data": {"t": text}}} for text in texts]
        answer = await self._api.post("/api/batch", json={"commands": commands})
        answer.raise_for_status()


@asynccontextmanager
async def run(folder: Path) -> AsyncIterator[Centrifugo]:
    """Start it, and wait until it is well; NotToBeHad if there is none."""
    program = binaries.find("centrifugo")
    port = next(ports.candidates())
    settings = folder / "centrifugo.json"
    settings.write_text(json.dumps(_config(port)))
    process = child.start(
        [program, "-c", settings],
        log=folder / "centrifugo.log",
        environment={"PATH": os.defpath, "HOME": str(folder)},
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as api:
        try:
            await child.ready(process, lambda: _is_well(api), _START_SECONDS)
            yield Centrifugo(process, port, api)
        finally:
            await process.kill()


async def _is_well(api: httpx.AsyncClient) -> bool:
    try:
        return (await api.get("/health")).status_code == 200
    except httpx.HTTPError:
        return False
