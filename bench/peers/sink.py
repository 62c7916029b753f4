# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A target that does nothing, for all attackers: `python -m bench.peers.sink <token>` says a port.

Whoever begins as WebSockets do is agreed with, any other is spoken to as NATS would: who brings the
token is let in, others are refused. What comes then is read and thrown away. So what a machine
loses while this is attacked is lost to the attackers and to the kernel.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import sys
from functools import partial

from bench.peers.bare import GUID

_PIECE = 65536
_INFO = b'INFO {"server_id":"sink","version":"2.14.0","max_payload":8388608}\r\n'
_REFUSED = b"-ERR 'Authorization Violation'\r\n"


async def _serve(token: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readline()
        if head.startswith(b"GET "):
            head += await reader.readuntil(b"\r\n\r\n")
            key = re.search(rb"(?i)sec-websocket-key: *([^\r]+)", head)
            accept = base64.b64encode(hashlib.sha1((key[1] if key else b"") + GUID).digest())
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"
                b"\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
        else:
            writer.write(_INFO + (b"PONG\r\n" if token in head else _REFUSED))
        while token in head or head.startswith(b"GET "):
            if not await reader.read(_PIECE):
                break
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
        pass
    finally:
        writer.close()


async def main(token: str) -> None:
    """Serve until the input ends."""
    server = await asyncio.start_server(partial(_serve, token.encode()), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
