# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The sandbox's certificates: trusted when a client is told so, and by nobody else."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.servers import tls


@pytest.fixture
def certificates(tmp_path: Path) -> tls.Certificates:
    """New certificates."""
    return tls.make(tmp_path / "tls")


@pytest.fixture
async def port(certificates: tls.Certificates) -> AsyncIterator[int]:
    """A server that says hello over TLS on 127.0.0.1."""

    async def hello(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(hello, "127.0.0.1", 0, ssl=certificates.server_context())
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_a_client_that_trusts_the_authority_gets_in(
    certificates: tls.Certificates, port: int, name: str
) -> None:
    """The certificate is good for the names that loopback has."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=certificates.client_context(), server_hostname=name
    )
    assert await reader.read() == b"hello"
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("name", ["127.0.0.1", "controller.example"])
async def test_others_refuse_it(certificates: tls.Certificates, port: int, name: str) -> None:
    """Without the authority, or under another name, the certificate is worth nothing."""
    trusting = name != "127.0.0.1"
    context = certificates.client_context() if trusting else ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)


def test_the_key_is_for_its_owner_alone(certificates: tls.Certificates) -> None:
    """Nobody else on the machine can pretend to be the sandbox."""
    assert stat.S_IMODE(certificates.key.stat().st_mode) == 0o600


def test_each_sandbox_has_an_authority_of_its_own(tmp_path: Path) -> None:
    """Two sandboxes do not trust each other."""
    one, two = tls.make(tmp_path / "one"), tls.make(tmp_path / "two")
    assert one.authority.read_bytes() != two.authority.read_bytes()
