# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Publish what no library would send, over a connection of a library."""

from __future__ import annotations

from nats.aio.client import Client


async def publish(
    client: Client, subject: bytes, reply: bytes, headers: bytes, data: bytes
) -> None:
    """Send one message as it is given, and wait until the server has taken or refused it."""
    names = subject + (b" " + reply if reply else b"")
    if headers:
        sizes = b"HPUB %s %d %d" % (names, len(headers), len(headers) + len(data))
    else:
        sizes = b"PUB %s %d" % (names, len(data))
    await client._send_command(sizes + b"\r\n" + headers + data + b"\r\n")
    await client.flush()
