# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A certificate that is not taken is told with what mends it, whoever shows it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509

from arvados_nats.admin import check_arvados, check_connections
from arvados_nats.admin.doctor import broker, finding
from arvados_nats.admin.doctor.finding import Finding
from arvados_nats.admin.doctor.services import Service
from arvados_nats.service import keys
from sandbox.servers import tls
from sandbox.servers.tls import Certificates

_INFO = {"server_id": "N", "version": "2.14.0", "max_payload": 1, "tls_required": True}


async def _arvados(port: int, authority: str | None) -> list[Finding]:
    found = await check_arvados.check(f"https://localhost:{port}", ca_file=authority)
    return list(finding.of_check(found, {}, "another"))


async def _wsproxy(port: int, authority: str | None) -> list[Finding]:
    found = await check_connections.proxy(f"wss://localhost:{port}", ca_file=authority)
    return list(finding.of_check(found, {}, "another"))


async def _nats(port: int, authority: str | None) -> list[Finding]:
    settings = SimpleNamespace(
        seed=lambda role: keys.generate(keys.ROLES[role]).text,
        nats_servers=[f"tls://localhost:{port}"],
        nats_ca_file=authority,
    )
    return await broker.logins(Service("publishers", settings, None))


ASKING = {"Arvados": _arvados, "wsproxy": _wsproxy, "NATS": _nats}


@asynccontextmanager
async def shown(files: Certificates, *, after_info: bool) -> AsyncIterator[int]:
    """A port whose server shows a certificate; one of NATS says first that it wants TLS."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if after_info:
                writer.write(f"INFO {json.dumps(_INFO)}\r\n".encode())
                await writer.start_tls(files.server_context())
        except OSError:
            pass
        finally:
            writer.close()

    context = None if after_info else files.server_context()
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize(
    ("fault", "told", "mend"),
    [
        ("expired", "certificate has expired", "renew the certificate"),
        ("another name", "Hostname mismatch", "use a name that its certificate has"),
        ("private authority", "CERTIFICATE_VERIFY_FAILED", "name the CA file of its authority"),
    ],
)
async def test_a_certificate_that_is_not_taken_is_told_with_its_remedy(
    tmp_path: Path, name: str, fault: str, told: str, mend: str
) -> None:
    """Ended, made for another name, or of an authority that nobody has named."""
    made: dict[str, Callable[[], Certificates]] = {
        "expired": lambda: tls.make(tmp_path, ends=-timedelta(minutes=1)),
        "another name": lambda: tls.make(tmp_path, [x509.DNSName("nats.example.com")]),
        "private authority": lambda: tls.make(tmp_path),
    }
    files = made[fault]()
    authority = None if fault == "private authority" else str(files.authority)
    ask: Callable[[int, str | None], Awaitable[list[Finding]]] = ASKING[name]
    async with shown(files, after_info=name == "NATS") as port:
        findings = await ask(port, authority)
    assert [found.text for found in findings if told not in found.text] == []
    assert all(mend in found.mend for found in findings)
