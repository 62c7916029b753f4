# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What is no address has no host, wherever one is looked at, and raises nothing but our errors."""

from __future__ import annotations

import pytest

from arvados_nats import urls
from arvados_nats.admin.check_config import websocket_faults
from arvados_nats.arvados.config_source import origins
from arvados_nats.commands.arvados_settings import at_stream
from arvados_nats.errors import BadInput, ConfigError
from arvados_nats.nats.addresses import is_loopback
from arvados_nats.postgres import dsn
from wsproxy.page.site import origin_of
from wsproxy.transport.limits import origin_allowed

NONE = ("https://[", "https://[::1", "wss://[x]:y", "https://\u2100.example", "https://a]b")


@pytest.mark.parametrize("address", NONE)
def test_what_is_no_address_is_told_as_having_no_host(address: str) -> None:
    assert not urls.split(address).hostname
    assert origins([address, "https://wb.example"]) == ("https://wb.example",)
    assert any("no host" in fault for fault in websocket_faults(address, address))
    assert not is_loopback(address)
    assert not origin_allowed(address, "a.example", ())
    assert "host" not in dsn.options(address)
    with pytest.raises(ConfigError):
        at_stream(address)
    with pytest.raises(BadInput):
        origin_of(address)


def test_an_address_has_its_parts() -> None:
    parts = urls.split("https://ws.example:8443/live?x=1")
    assert (parts.scheme, parts.netloc, parts.path) == ("https", "ws.example:8443", "/live")
