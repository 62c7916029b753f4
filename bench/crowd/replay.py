# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One viewer that reads a log from its first byte to its end, as fast as it comes.

A program of its own: `python -m bench.crowd.replay <url of v1> <request> <file>`, with the token on
standard input. It says, as JSON, how many bytes of the file came, their SHA-256, and the seconds
that it took; a byte that is missing or comes twice is an error.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
import time

import msgspec
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

_PROTOCOL = Subprotocol("arvados.events.v1.json")


class _Log(msgspec.Struct):
    file: str
    offset: int
    next: int
    text: str = ""
    base64: str = ""


class _End(msgspec.Struct):
    request: str = ""


class _Frame(msgspec.Struct):
    log: _Log | None = None
    end: _End | None = None
    ping: dict[str, int] | None = None


async def read(url: str, token: str, request: str, file: str) -> dict[str, float | str]:
    """What came of the file, and how fast."""
    decoder, whole, place = msgspec.json.Decoder(_Frame), hashlib.sha256(), 0
    async with connect(
        url, subprotocols=[_PROTOCOL], compression=None, max_size=None, max_queue=64
    ) as line:
        await line.send(json.dumps({"auth": {"token": token}}))
        target = {"uuid": request, "files": [file]}
        await line.send(json.dumps({"subscribe": {"id": "r", "log": target}}))
        began = time.monotonic()
        while True:
            frame = decoder.decode(await line.recv(decode=False))
            if frame.log is not None:
                data = frame.log.text.encode() or base64.b64decode(frame.log.base64)
                if frame.log.offset != place or place + len(data) != frame.log.next:
                    raise ValueError(f"byte {place} was expected, not {frame.log.offset}")
                whole.update(data)
                place = frame.log.next
            elif frame.ping is not None:
                await line.send('{"pong":{}}')
            elif frame.end is not None and frame.end.request:
                seconds = time.monotonic() - began
                break
    return {"bytes": place, "sha256": whole.hexdigest(), "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(read(sys.argv[1], sys.stdin.readline().strip(), *sys.argv[2:]))))
