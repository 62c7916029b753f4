# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Ports for servers that cannot choose one themselves.

They lie below the range that Linux takes the ports of outgoing connections from, so that a server
that is stopped and started again finds its port free.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

_PORTS = range(20_000, 32_000)


def candidates(tries: int = 20) -> Iterator[int]:
    """Random ports of 127.0.0.1 that are free now; whoever loses one to another takes the next."""
    return (port for port in random.sample(_PORTS, tries) if is_free(port))


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
