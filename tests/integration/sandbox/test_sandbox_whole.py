# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The whole sandbox starts on its own, tells services and clients where things are, and goes."""

from __future__ import annotations

import ssl
from pathlib import Path

import asyncpg
import httpx
import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.tokens import Token
from arvados_nats.nats import client as nats_client
from arvados_nats.service.settings import (
    ArvadosSettings,
    NatsSettings,
    OpsSettings,
    PostgresSettings,
)
from sandbox import sandbox as whole
from sandbox.servers.backends import Backend


class Settings(NatsSettings, ArvadosSettings, PostgresSettings, OpsSettings):
    """All blocks that the product's services are built from."""


def _exists(place: str) -> bool:
    return Path(place).exists()


async def test_the_environment_is_what_the_services_need(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the environment that it tells the kernel reaches all three servers."""
    async with whole.run(backend=backend) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        settings = Settings()
        user = await sandbox.cluster.user("ann")
        async with arvados_client.connect(
            settings.arvados_url, ca_file=settings.arvados_ca_file
        ) as arvados:
            found = await arvados.current_user(Token(user.token))
            assert found["uuid"] == user.uuid
        async with nats_client.connect(
            settings.nats_servers, seed=settings.seed("publisher"), name="test"
        ):
            pass
        database = await asyncpg.connect(settings.postgres_dsn.get_secret_value())
        assert await database.fetchval("SELECT count(*) > 10 FROM logs")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.execute("DELETE FROM logs")
        await database.close()
        places = [str(sandbox.keys_folder), str(sandbox.certificates.authority)]
        url = sandbox.api_tls.url
    assert not [place for place in places if _exists(place)]
    context = ssl.create_default_context()
    async with httpx.AsyncClient(verify=context) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)
