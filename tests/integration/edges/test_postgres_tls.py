# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A service without a home asks PostgreSQL for a certificate that this machine trusts."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arvados_nats.postgres.errors import DOWN
from arvados_nats.postgres.primary import Hosts
from sandbox.servers import tls
from sandbox.servers.tls import Certificates


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """Of an authority that nobody trusts yet."""
    return tls.make(tmp_path / "tls")


@pytest.fixture
async def seen(certificates: Certificates) -> AsyncIterator[tuple[int, list[str]]]:
    """The port of something that begins like PostgreSQL over TLS, and who came through."""
    came: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"S")
        await writer.drain()
        try:
            await writer.start_tls(certificates.server_context())
            came.append((await reader.read(1024)).decode(errors="replace"))
        except (OSError, ssl.SSLError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], came


@pytest.mark.parametrize("more", ["sslmode=verify-full", "sslmode=verify-ca", "sslrootcert=system"])
async def test_no_home_is_needed(
    more: str,
    seen: tuple[int, list[str]],
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The authorities of the machine are asked; they refuse whom they do not know."""
    port, came = seen
    monkeypatch.setenv("HOME", "/nonexistent")
    hosts = Hosts(f"host=127.0.0.1 port={port} user=reader dbname=x {more}")
    with pytest.raises(ssl.SSLCertVerificationError):
        await hosts.connect()
    assert came == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    with pytest.raises(DOWN):
        await hosts.connect()
    assert "reader" in came[0]
