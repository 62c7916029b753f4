# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Connections to NATS over TLS: with a private authority, and never without it (S20)."""

from __future__ import annotations

from pathlib import Path

import pytest

from arvados_nats.errors import Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.nats import server_config
from arvados_nats.service import keys
from sandbox.servers import nats_server, tls


async def test_a_private_authority_is_trusted_when_it_is_named(
    keys_folder: Path, tmp_path: Path
) -> None:
    """And a certificate of it by nobody else."""
    files = tls.make(tmp_path)
    pem = server_config.Tls(*map(str, (files.certificate, files.key, files.authority)))
    seed = keys.load(keys_folder, "publisher").text
    async with nats_server.run_cluster(keys_folder, tls=pem) as servers:
        url = servers[0].url.replace("nats://", "tls://")
        async with nats_client.connect(
            [url], name="test", seed=seed, ca_file=str(files.authority), timeout=10
        ) as nats:
            await nats.flush()
        with pytest.raises(Unavailable):
            async with nats_client.connect([url], name="test", seed=seed, timeout=2):
                raise AssertionError("let in")


async def test_a_tls_url_is_never_answered_in_the_clear(
    nats_server: nats_server.NatsServer,
) -> None:
    """A token is not sent to a server, or whoever stands before it, that asks for no TLS."""
    url = nats_server.url.replace("nats://", "tls://")
    before = nats_server.log.count("authentication error")
    with pytest.raises(Unavailable):
        async with nats_client.connect([url], name="test", token="a token", timeout=2):
            raise AssertionError("let in")
    assert nats_server.log.count("authentication error") == before
