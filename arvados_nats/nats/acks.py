# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""JetStream's acknowledgements of published messages, and its refusals.

Pure. nats-py's own window waits for ever for a lost acknowledgement and keeps its place
(docs/facts/nats-callout.md 3, row 31); here each is a future of the caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from arvados_nats.errors import ArvadosNatsError, BadInput, Unavailable

_TOO_LARGE = 10054

Ack = dict[str, Any]
"""`{"stream", "seq", "duplicate"?}`"""


class JetStreamError(ArvadosNatsError):
    """JetStream refused a request; `code` is its err_code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def error_of(error: Mapping[str, Any]) -> ArvadosNatsError:
    """What an `error` in an answer of JetStream means: 503 is Unavailable, a message over the
    stream's max_msg_size is BadInput."""
    text = f"JetStream: {error.get('description', error)}"
    if error.get("code") == 503:
        return Unavailable(text)
    if error.get("err_code") == _TOO_LARGE:
        return BadInput(text)
    return JetStreamError(text, int(error.get("err_code", 0)))


class Acks:
    """Acknowledgements that are awaited, by the reply subject they will come to."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = 0
        self._awaited: dict[str, asyncio.Future[Ack]] = {}

    @property
    def pattern(self) -> str:
        return f"{self._prefix}.*"

    def expect(self) -> tuple[str, asyncio.Future[Ack]]:
        """A new reply subject and its future; cancelling the future forgets it."""
        self._count += 1
        reply = f"{self._prefix}.{self._count}"
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self._awaited[reply] = future
        future.add_done_callback(lambda _: self._awaited.pop(reply, None))
        return reply, future

    def arrived(self, reply: str, headers: Mapping[str, str], data: bytes) -> None:
        """Settle the future of `reply`, if it is still awaited."""
        future = self._awaited.get(reply)
        if future is None or future.done():
            return
        if headers.get("Status") == "503":
            future.set_exception(Unavailable("no stream listens on the subject"))
            return
        answer = msgspec.json.decode(data)
        if error := answer.get("error"):
            future.set_exception(error_of(error))
        else:
            future.set_result(answer)
