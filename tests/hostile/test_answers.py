# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What Arvados, or what stands in its place, answers: so much and so long, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator

import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import Unavailable

REQUEST, CONTAINER = "zzzzz-xvhdp-000000000000001", "zzzzz-dz642-000000000000001"
MIB = 1024 * 1024
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"


@contextlib.asynccontextmanager
async def answering(body: str) -> AsyncIterator[tuple[str, list[int]]]:
    """Its address, and how many bytes of each answer were taken."""
    taken: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(0)
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            bomb = gzip.compress(bytes(64 * MIB))
            encoding = b"Content-Encoding: gzip\r\n" if body == "gzip" else b""
            writer.write(_HEAD + encoding + b"\r\n")
            while not writer.is_closing():
                piece = {"gzip": bomb, "endless": b" " * MIB, "dribble": b" "}[body]
                writer.write(piece)
                await writer.drain()
                taken[-1] += len(piece)
                await asyncio.sleep(0.01 if body == "dribble" else 0)
        writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", taken


@pytest.mark.parametrize("body", ["endless", "gzip", "dribble"])
async def test_an_answer_without_an_end_is_given_up(
    body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is sent whole instead of the range that was asked for is one."""
    monkeypatch.setattr(arvados_client, "_MOST_BYTES", 4 * MIB)
    monkeypatch.setattr(arvados_client, "_WHOLE_SECONDS", 1.0 if body == "dribble" else 60.0)
    async with answering(body) as (url, taken), arvados_client.connect(url) as arvados:
        token = Token("a" * 50)
        async with asyncio.timeout(60):
            with pytest.raises(Unavailable):
                await arvados.log_range(token, REQUEST, CONTAINER, "stdout.txt", 0, 1023)
            with pytest.raises(Unavailable):
                await arvados.exported_config()
    assert max(taken) < 32 * MIB
