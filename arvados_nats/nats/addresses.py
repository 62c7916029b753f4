# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where a NATS server is, as far as it matters for what others can read on the way.

Pure.
"""

from __future__ import annotations

from ipaddress import ip_address

from arvados_nats import urls


def is_loopback(address: str) -> bool:
    """Whether a URL or a `host:port` is on this machine."""
    host = urls.split(address if "://" in address else f"//{address}").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_in_the_clear(server: str) -> bool:
    """Whether tokens may go to this server's URL over a network without TLS."""
    return not server.startswith(("tls://", "wss://")) and not is_loopback(server)
