# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the server of protocol v1 says, subprotocol `arvados.events.v1.json`.

Pure; spoken by `wsproxy`, understood by `client`. One JSON object per frame, with one key that
names its type; what is not known is ignored, since a server may be newer than its client. Bytes and
states (`log`, `object`) carry no subscription id, and none has a number of the connection, so that
one encoded frame serves all; events are encoded once for each id that subscriptions have. What a
client says is in `requests`. docs/asyncapi.yaml describes the same types; a test holds the two
equal.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from arvados_nats.errors import MALFORMED, BadInput

NOT_READABLE = "there is no such object, or it may not be read"
"""Forbidden and missing look alike."""

SUBPROTOCOL = "arvados.events.v1.json"


class Limits(Struct, frozen=True):
    """What a session may ask for."""

    subscriptions: int
    frame_bytes: int
    tail_lines: int = 10_000


class Hello(Struct, frozen=True):
    """The token is accepted. `ping_seconds`: how often at least something is sent."""

    user_uuid: str
    token_uuid: str
    ping_seconds: float
    limits: Limits


class Subscribed(Struct, frozen=True):
    """The subscription is active: all that happens from now on is sent or told."""

    id: str


class Unsubscribed(Struct, frozen=True):
    """The answer to `unsubscribe`: nothing more of the subscription follows, and its id is free."""

    id: str


class Error(Struct, frozen=True):
    """A message was refused (`id`: of a subscription). `temporary`: trying again may help."""

    code: str
    message: str
    temporary: bool
    id: str | UnsetType = UNSET


class Log(Struct, frozen=True):
    """Bytes `offset` up to before `next` of a log file: as text, or base64 if not all is UTF-8."""

    container: str
    file: str
    epoch: int
    offset: int
    next: int
    text: str | UnsetType = UNSET
    base64: str | UnsetType = UNSET

    @classmethod
    def of(cls, container: str, file: str, epoch: int, offset: int, data: bytes) -> Log:
        """A run of bytes."""
        stop = offset + len(data)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            coded = base64.b64encode(data).decode()
            return cls(container, file, epoch, offset, stop, base64=coded)
        return cls(container, file, epoch, offset, stop, text=text)

    @property
    def data(self) -> bytes:
        """The bytes; ValueError if they are none."""
        if self.text is not UNSET:
            return self.text.encode()
        return base64.b64decode(self.base64 or "", validate=True)


class Place(Struct, frozen=True):
    """A byte of a log file."""

    epoch: int
    offset: int


class Places(Struct, frozen=True):
    """Where the last lines of each file begin, as `tail` asked; files not named begin at 0.

    It comes before the bytes: what came until then was told to others.
    """

    id: str
    container: str
    files: dict[str, Place]


class Object(Struct, frozen=True):
    """The state of an object as of `cursor`."""

    uuid: str
    etag: str
    record: dict[str, Any]
    cursor: str


class Event(Struct, frozen=True):
    """One change of one object; `cursor` resumes after it, `id` is that of the row.

    `subscription`: the id of the one that it is told to. `verified`: true: Arvados' own word;
    false: posted by a user, contradicts the database; null: not known.
    """

    id: int
    uuid: str
    event_type: str | None
    event_at: str | None
    created_at: str
    object_uuid: str | None
    object_kind: str
    object_owner_uuid: str | None
    verified: bool | None
    properties: dict[str, Any]
    cursor: str
    subscription: str | UnsetType = UNSET


class Gone(Struct, frozen=True):
    """An object that may not be read any more since this change. `cursor` resumes after it.

    It was moved out of reach, unshared or deleted. Of a share that was withdrawn it is the link.
    """

    uuid: str
    object_kind: str
    cursor: str
    subscription: str | UnsetType = UNSET


class Narrowed(Struct, frozen=True):
    """The user may read less than before: look again at what you show.

    A role that is lost, or a trash time that comes, takes along what no `gone` names.
    """

    id: str


class CaughtUp(Struct, frozen=True):
    """All that was there has been sent; what follows is live."""

    id: str
    cursor: str | UnsetType = UNSET


class Queued(Struct, frozen=True):
    """Many read the past now: this subscription goes on when its turn comes.

    `ahead`: parts of it that are read before. What is live comes after what is old, as always.
    """

    id: str
    ahead: int


class Gap(Struct, frozen=True):
    """Something between what was sent and what follows is not to be had.

    Of a log: bytes `from` up to before `to` of `file`, None where not known. Of events: `cursor`
    is where what follows begins.
    """

    id: str
    reason: str
    container: str | UnsetType = UNSET
    file: str | UnsetType = UNSET
    epoch: int | UnsetType = UNSET
    from_: int | UnsetType | None = field(default=UNSET, name="from")
    to: int | UnsetType | None = UNSET
    cursor: str | UnsetType = UNSET


class Attempt(Struct, frozen=True):
    """From now on the logs are those of the `n`-th container of a request, counted from 1."""

    id: str
    request: str
    container: str
    n: int


class Attempts(Struct, frozen=True):
    """The containers that a request is known to have had, and which attempt each was.

    Told after `subscribed` where there was more than one; any of them may be subscribed to, as
    `container` of the request.
    """

    id: str
    request: str
    containers: dict[str, int]


class End(Struct, frozen=True):
    """No more bytes will come: of a file; of a container, after all its files; of a request.

    `id`: of the subscription that has had them all. `confirmed`: the saved log has exactly these
    bytes.
    """

    id: str | UnsetType = UNSET
    container: str | UnsetType = UNSET
    request: str | UnsetType = UNSET
    file: str | UnsetType = UNSET
    epoch: int | UnsetType = UNSET
    size: int | UnsetType = UNSET
    state: str | UnsetType = UNSET
    exit_code: int | UnsetType | None = UNSET
    confirmed: bool | UnsetType = UNSET


class Revoked(Struct, frozen=True):
    """The subscription `id`, or without it the session, has lost its permission."""

    reason: str
    id: str | UnsetType = UNSET


class Ping(Struct, frozen=True):
    """Answer with `pong`."""


class Goodbye(Struct, frozen=True):
    """The server will close; connect again after a random time within this range."""

    reason: str
    reconnect_after_ms: tuple[int, int]


ServerMessage = (
    Hello
    | Subscribed
    | Unsubscribed
    | Error
    | Log
    | Places
    | Object
    | Event
    | Gone
    | Narrowed
    | CaughtUp
    | Queued
    | Gap
    | Attempt
    | Attempts
    | End
    | Revoked
    | Ping
    | Goodbye
)

SERVER_KEYS: dict[str, type[Struct]] = {
    "hello": Hello,
    "subscribed": Subscribed,
    "unsubscribed": Unsubscribed,
    "error": Error,
    "log": Log,
    "places": Places,
    "object": Object,
    "event": Event,
    "gone": Gone,
    "narrowed": Narrowed,
    "caught_up": CaughtUp,
    "queued": Queued,
    "gap": Gap,
    "attempt": Attempt,
    "attempts": Attempts,
    "end": End,
    "revoked": Revoked,
    "ping": Ping,
    "goodbye": Goodbye,
}
_KEY_OF = {kind: key for key, kind in SERVER_KEYS.items()}
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(
    msgspec.defstruct("_Frame", [(key, kind | None, None) for key, kind in SERVER_KEYS.items()])
)


def key(message: ServerMessage) -> str:
    """The key that names the type of a message."""
    return _KEY_OF[type(message)]


def encode(message: ServerMessage) -> bytes:
    """The payload of a frame."""
    return _encoder.encode({_KEY_OF[type(message)]: message})


def told_to(id: str, text: bytes) -> bytes:
    """The payload of an `event` or `gone` with the id of the subscription that it is told to."""
    return b'%b,"subscription":%b}}' % (text[:-2], _encoder.encode(id))


def body(message: ServerMessage) -> bytes:
    """The message without the key around it, as server-sent events carry it."""
    return _encoder.encode(message)


def decode(frame: str | bytes) -> ServerMessage | None:
    """The message in a frame, None for one of a later version; BadInput if it cannot be read."""
    try:
        found = _decoder.decode(frame)
        bodies: Iterator[ServerMessage | None] = (getattr(found, name) for name in SERVER_KEYS)
        message = next((body for body in bodies if body is not None), None)
        if isinstance(message, Log) and len(message.data) != message.next - message.offset:
            raise BadInput("the server sent a log message that is not as long as it says")
    except (*MALFORMED, binascii.Error) as error:
        raise BadInput(f"the server sent what is not protocol v1: {error}") from error
    return message
