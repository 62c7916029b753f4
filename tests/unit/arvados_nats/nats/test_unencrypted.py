# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What is told at the start of a service that sends in the clear (S20)."""

from __future__ import annotations

from typing import Any

import pytest

from arvados_nats.service import unencrypted
from arvados_nats.service.settings import ArvadosSettings, NatsSettings


class Settings(NatsSettings, ArvadosSettings):
    """Of a service that has both."""


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, []),
        ({"nats_url": "nats://localhost:4222, nats://[::1]:4222,127.0.0.1:4222"}, []),
        ({"nats_url": "tls://nats.example:4222"}, []),
        ({"nats_url": "tls://one.example:4222,nats://two.example:4222"}, ["nats_url"]),
        ({"nats_url": "nats.example:4222"}, ["nats_url"]),
        ({"nats_url": "nats://127.0.0.1.example:4222"}, ["nats_url"]),
        ({"arvados_api_host": "xurid.example:443"}, []),
        ({"arvados_api_host": "https://xurid.example"}, []),
        ({"arvados_api_host": "http://xurid.example"}, ["arvados_api_host"]),
        ({"arvados_api_host": "http://127.0.0.1:8000"}, []),
        ({"arvados_api_host_insecure": True}, ["arvados_api_host_insecure"]),
    ],
    ids=str,
)
def test_what_is_told(given: dict[str, Any], told: list[str]) -> None:
    """What leaves the machine without TLS, by the name of the setting."""
    assert [name for name, _ in unencrypted.warnings(Settings(**given))] == told
