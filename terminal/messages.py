# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The messages of protocol v1 as a client reads and writes them.

Pure. The server's side of the same messages is `wsproxy.messages_v1`; a test holds the two
together. What is not known here is ignored: a server may be newer than its client.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
from msgspec import Struct, field

from arvados_nats.errors import BadInput

SUBPROTOCOL = "arvados.events.v1.json"


class Hello(Struct, frozen=True):
    """The token is accepted. Something is sent at least every `ping_seconds`."""

    user_uuid: str
    token_uuid: str
    ping_seconds: float = 30.0


class Subscribed(Struct, frozen=True):
    """The subscription is active."""

    id: str


class Error(Struct, frozen=True):
    """Something was refused, or has to wait (`temporary`)."""

    code: str
    message: str
    temporary: bool = False
    id: str | None = None


class Log(Struct, frozen=True):
    """Bytes of a log file of a container, the first of them at `offset`."""

    container: str
    file: str
    epoch: int
    offset: int
    data: bytes

    @property
    def next(self) -> int:
        """The offset after the last byte."""
        return self.offset + len(self.data)


class Object(Struct, frozen=True):
    """The state of an object."""

    uuid: str
    etag: str
    record: dict[str, Any]
    cursor: str = ""


class Event(Struct, frozen=True):
    """One change of one object. Only a `verified` one is known to be true."""

    id: int
    uuid: str
    event_type: str | None
    event_at: str | None
    created_at: str
    object_uuid: str | None
    object_kind: str
    object_owner_uuid: str | None
    verified: bool
    properties: dict[str, Any]
    cursor: str


class CaughtUp(Struct, frozen=True):
    """All that was there has been sent; what follows is live."""

    id: str
    cursor: str | None = None


class Gap(Struct, frozen=True):
    """Bytes `from_` up to before `to` of a log file, or events before `cursor`, are lost."""

    id: str
    reason: str
    container: str | None = None
    file: str | None = None
    epoch: int = 0
    from_: int | None = field(default=None, name="from")
    to: int | None = None
    cursor: str | None = None


class Attempt(Struct, frozen=True):
    """What follows is of the `n`-th container of a request, counted from 1."""

    id: str
    request: str
    container: str
    n: int


class End(Struct, frozen=True):
    """No more bytes will come: of `file`, or else of the container, or of the request."""

    container: str | None = None
    request: str | None = None
    file: str | None = None
    epoch: int = 0
    size: int | None = None
    state: str | None = None
    exit_code: int | None = None
    confirmed: bool | None = None


class Revoked(Struct, frozen=True):
    """The permission is gone: of the subscription `id`, or of the whole session."""

    reason: str
    id: str | None = None


class Ping(Struct, frozen=True):
    """Answer with `pong`."""


class Goodbye(Struct, frozen=True):
    """The server will close; come back after a random time in this range."""

    reason: str
    reconnect_after_ms: tuple[float, float] = (0, 0)


Message = (
    Hello
    | Subscribed
    | Error
    | Log
    | Object
    | Event
    | CaughtUp
    | Gap
    | Attempt
    | End
    | Revoked
    | Ping
    | Goodbye
)


class _Log(Struct, frozen=True):
    container: str
    file: str
    offset: int
    epoch: int = 0
    text: str | None = None
    base64: str | None = None

    def message(self) -> Log:
        return Log(self.container, self.file, self.epoch, self.offset, self._data())

    def _data(self) -> bytes:
        if self.text is not None:
            return self.text.encode()
        return base64.b64decode(self.base64 or "", validate=True)


class _Frame(Struct, frozen=True):
    hello: Hello | None = None
    subscribed: Subscribed | None = None
    error: Error | None = None
    log: _Log | None = None
    object: Object | None = None
    event: Event | None = None
    caught_up: CaughtUp | None = None
    gap: Gap | None = None
    attempt: Attempt | None = None
    end: End | None = None
    revoked: Revoked | None = None
    ping: Ping | None = None
    goodbye: Goodbye | None = None


_decoder = msgspec.json.Decoder(_Frame)
_encoder = msgspec.json.Encoder()


def decode(frame: str | bytes) -> Message | None:
    """The message in a frame, None for one of a later version; BadInput if it can not be read."""
    try:
        found = _decoder.decode(frame)
        if found.log is not None:
            return found.log.message()
    except (msgspec.MsgspecError, UnicodeError, binascii.Error) as error:
        raise BadInput(f"the server sent what is not protocol v1: {error}") from error
    bodies = (getattr(found, name) for name in _Frame.__struct_fields__)
    return next((body for body in bodies if body is not None), None)


def encode(key: str, body: dict[str, Any]) -> str:
    """The frame of a client's message: `auth`, `subscribe`, `unsubscribe` or `pong`."""
    return _encoder.encode({key: body}).decode()
