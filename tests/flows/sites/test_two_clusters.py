# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Two clusters that know each other: whose events come from where, and how the terminal finds them.

docs/clients.md, "Several clusters".
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from arvados_nats import client
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import Refused
from arvados_nats.protocol_v1.messages import Object
from sandbox import sandbox as sandboxes
from sandbox import stack as services
from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.servers import nats_server
from sandbox.servers.postgres import PostgresServer
from sandbox.stack import Stack
from tests.support.clients.terminal_command import environment, ran

ELSEWHERE = "zyyyy"


@dataclass(frozen=True, slots=True)
class Federation:
    """Alice logs in at the first cluster; the second takes her token, as that cluster vouches."""

    here: Stack
    there: Stack
    alice: Actor
    guest: Actor
    """She, as the other cluster knows her."""


@pytest.fixture(scope="module")
async def federation(
    shared_stack: Stack,
    postgres_server: PostgresServer,
    keys_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Federation]:
    stack, certificates = shared_stack, tmp_path_factory.mktemp("elsewhere")
    async with (
        nats_server.run(keys_folder) as nats,
        sandboxes.on(
            postgres_server,
            nats,
            keys_folder,
            certificates,
            config=ClusterConfig(cluster_id=ELSEWHERE),
        ) as sandbox,
        services.beside(sandbox) as there,
    ):
        alice = await stack.sandbox.cluster.user("alice")
        guest = await sandbox.cluster.user("alice")
        _, uuid, secret = alice.token.split("/")
        await sandbox.cluster.pool.execute(
            "UPDATE api_client_authorizations SET uuid = $2, api_token = $3 WHERE uuid = $1",
            guest.token_uuid,
            uuid,
            secret,
        )
        sandbox.cluster.known_elsewhere.add(uuid)
        stack.sandbox.backend.remote_hosts[ELSEWHERE] = sandbox.api_tls.host
        try:
            yield Federation(stack, there, alice, guest)
        finally:
            stack.sandbox.backend.remote_hosts.clear()


async def test_each_cluster_tells_of_its_own_objects(
    federation: Federation, tmp_path: Path
) -> None:
    """The terminal, set to the one, follows objects of both, each at its own cluster."""
    here, there = federation.here.sandbox.cluster, federation.there.sandbox.cluster
    env = environment(federation.here, federation.alice, tmp_path, ARVADOS_API_HOST_INSECURE="1")
    for cluster, owner in ((here, federation.alice), (there, federation.guest)):
        request = await cluster.container_request("federated", owner=owner)
        container = await cluster.run(request)
        await cluster.write_log(container, "stdout.txt", f"of {container.uuid}\n".encode())
        await cluster.finish(container)
        code, out, said = await ran("logs", "--json", request.uuid, env=env)
        assert code == 0, said
        texts = [json.loads(line)["text"] for line in out.splitlines()]
        assert f"of {container.uuid}" in "".join(texts)


async def test_a_salted_token_logs_in_with_the_whole_identity(federation: Federation) -> None:
    """The other cluster sees no more of it than what is good there, and knows who it is."""
    token = Token(federation.alice.token).salted(ELSEWHERE)
    cluster = federation.there.sandbox.cluster
    mine = await cluster.project(owner=federation.guest)
    others = await cluster.project(owner=await cluster.user("other"))
    url = federation.there.stream_url
    async with client.connect(url, lambda: token.secret) as stream:
        async for message in await stream.object(mine.uuid):
            if isinstance(message, Object):
                break
        with pytest.raises(Refused):
            async for _ in await stream.object(others.uuid):
                pass


async def test_a_cluster_that_is_not_known_is_named(federation: Federation, tmp_path: Path) -> None:
    env = environment(federation.here, federation.alice, tmp_path)
    code, _, said = await ran("watch", "object", "zxxxx-4zz18-000000000000000", env=env)
    assert code != 0
    assert "zxxxx" in said and "ARVADOS_API_HOST" in said
