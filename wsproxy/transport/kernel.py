# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the kernel is told of a peer's TCP connection, and what it tells."""

from __future__ import annotations

import socket
import sys

VANISHED_SECONDS = 900.0
"""The kernel ends a connection whose peer takes nothing for so long, also one whose kernel answers
for it: so the limit is that of a stuck one. One that is gone is cut by the send buffers."""

UNSENT_BYTES = 128 * 1024
"""What the kernel takes for one peer beyond what is on its way. Its own limit is some megabytes,
which a thousand peers that do not read would fill."""

_OPTIONS: dict[int, int] = {
    getattr(socket, name): value
    for name, value in (
        ("TCP_USER_TIMEOUT", int(VANISHED_SECONDS * 1000)),
        ("TCP_NOTSENT_LOWAT", UNSENT_BYTES),
    )
    if hasattr(socket, name)
}
_LAST_ACK = slice(56, 60)
"""Where `tcpi_last_ack_recv` stands in Linux' struct tcp_info, in milliseconds."""


def bound(sock: socket.socket) -> None:
    """Bound the time and the memory that a peer takes which does not read."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        for option, value in _OPTIONS.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def silent_for(sock: socket.socket) -> float:
    """Seconds since the peer's kernel last acknowledged anything, if only a probe."""
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK.stop)
    except (OSError, AttributeError):
        return float("inf")
    return int.from_bytes(told[_LAST_ACK], sys.byteorder) / 1000
