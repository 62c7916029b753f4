# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Ports for servers that cannot choose one themselves.

They lie below the range that Linux takes the ports of outgoing connections from, so that a server
that is stopped and started again finds its port free.
"""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Iterator

_PORTS = range(20_000, 32_000)
_TRIES = 20
_held: list[socket.socket] = []
"""What keeps our ports from other processes of this machine that ask here, until we end."""


def candidates() -> Iterator[int]:
    """Random ports of 127.0.0.1 that are free now, and that nobody else is given here: a server may
    take seconds to listen. Whoever loses one to a stranger takes the next."""
    ports = random.sample(_PORTS, 10 * _TRIES)
    return itertools.islice((port for port in ports if is_free(port) and _hold(port)), _TRIES)


def _hold(port: int) -> bool:
    """Whether we have it from now on. Linux forgets such a name with its socket."""
    holding = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holding.bind(f"\0arvados-nats-port-{port}")
    except OSError:
        holding.close()
        return False
    _held.append(holding)
    return True


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
