# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Every message of protocol v1, subprotocol `arvados.events.v1.json`.

Pure. One JSON object per frame, with one key that names its type; unknown keys are ignored on both
sides. Messages that are the same for every reader (`log`, `object`, `event`, `end` of a file or
container) carry no subscription id and no number of the connection, so that one encoded frame
serves all. docs/asyncapi.yaml describes the same types; a test holds the two equal.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from arvados_nats.errors import BadInput

SUBPROTOCOL = "arvados.events.v1.json"

Id = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(max_length=255)]
Words = Annotated[list[Text], Meta(max_length=1000)]
Offset = Annotated[int, Meta(ge=0, le=2**53)]


# What a client sends.


class Auth(Struct, frozen=True):
    """First message of a session, and again at any time to renew."""

    token: Annotated[str, Meta(max_length=8192)]

    def __repr__(self) -> str:
        return "Auth(***)"


class From(Struct, frozen=True):
    """A place in one log file; without `epoch`, in the file as it is now."""

    offset: Offset
    epoch: Offset | None = None


class LogTarget(Struct, frozen=True):
    """Log files of a container, or of a container request and all its attempts.

    `files`: names, all if absent. Where to begin: `from` holds a place per file, and files it does
    not name begin at 0; `tail` is a number of last lines of each file; with neither, all is sent.
    `container` says which attempt of a request the places in `from` belong to, and `former` holds
    the places of earlier attempts, by container, whose `end` has not come.
    """

    uuid: Text
    files: Annotated[list[Text], Meta(max_length=100)] | None = None
    from_: Annotated[dict[Text, From], Meta(max_length=100)] | None = field(
        default=None, name="from"
    )
    tail: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    container: Text | None = None
    former: Annotated[dict[Text, dict[Text, From]], Meta(max_length=10)] | None = None


class ObjectTarget(Struct, frozen=True):
    """The state of one object; nothing is sent while it still has this `etag`."""

    uuid: Text
    etag: Text | None = None


class EventsTarget(Struct, frozen=True):
    """Changes of objects. Lists are alternatives; different lists must all match.

    `owners` matches the owner of the object, or of a container's requests; `objects` the object, or
    a container's requests. `cursor` continues after a cursor of this stream; without one, `begin`
    says whether to begin with the oldest change still kept or with the next.
    """

    owners: Words | None = None
    objects: Words | None = None
    kinds: Words | None = None
    event_types: Words | None = None
    cursor: Annotated[str, Meta(max_length=256)] | None = None
    begin: Literal["now", "oldest"] = "now"


class Subscribe(Struct, frozen=True):
    """Begin a subscription; `id` is the client's choice. Exactly one target."""

    id: Id
    log: LogTarget | None = None
    object: ObjectTarget | None = None
    events: EventsTarget | None = None

    @property
    def target(self) -> LogTarget | ObjectTarget | EventsTarget:
        """The one target; BadInput if there is none or more than one."""
        named = [target for target in (self.log, self.object, self.events) if target is not None]
        if len(named) != 1:
            raise BadInput("subscribe needs exactly one of log, object and events")
        return named[0]


class Unsubscribe(Struct, frozen=True):
    """End a subscription."""

    id: Id


class Pong(Struct, frozen=True):
    """Answer to `ping`."""


class _ClientMessage(Struct, frozen=True):
    auth: Auth | None = None
    subscribe: Subscribe | None = None
    unsubscribe: Unsubscribe | None = None
    pong: Pong | None = None


ClientMessage = Auth | Subscribe | Unsubscribe | Pong

_client_decoder = msgspec.json.Decoder(_ClientMessage)


def decode(frame: str | bytes) -> ClientMessage:
    """The one message in a client's frame; BadInput, without any of its content, if it is none."""
    try:
        found = _client_decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(_safe(error)) from error
    named = (found.auth, found.subscribe, found.unsubscribe, found.pong)
    messages = [message for message in named if message is not None]
    if len(messages) != 1:
        raise BadInput("a message has exactly one of auth, subscribe, unsubscribe and pong")
    return messages[0]


def _safe(error: Exception) -> str:
    """What is wrong with a frame; msgspec names types and paths, never values."""
    return str(error) if isinstance(error, msgspec.ValidationError) else "the frame is no JSON"


# What the server sends.


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


class Object(Struct, frozen=True):
    """The state of an object as of `cursor`."""

    uuid: str
    etag: str
    record: dict[str, Any]
    cursor: str


class Event(Struct, frozen=True):
    """One change of one object; `cursor` resumes after it."""

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
    cursor: str | UnsetType = UNSET


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


class End(Struct, frozen=True):
    """No more bytes will come: of a file; of a container, after all its files; of a request.

    `confirmed`: the saved log has exactly these bytes.
    """

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

CLIENT_KEYS: dict[str, type[Struct]] = {
    "auth": Auth,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "pong": Pong,
}
SERVER_KEYS: dict[str, type[Struct]] = {
    "hello": Hello,
    "subscribed": Subscribed,
    "error": Error,
    "log": Log,
    "object": Object,
    "event": Event,
    "caught_up": CaughtUp,
    "gap": Gap,
    "attempt": Attempt,
    "end": End,
    "revoked": Revoked,
    "ping": Ping,
    "goodbye": Goodbye,
}
_KEY_OF = {kind: key for key, kind in SERVER_KEYS.items()}
_encoder = msgspec.json.Encoder()


def key(message: ServerMessage) -> str:
    """The key that names the type of a message."""
    return _KEY_OF[type(message)]


def encode(message: ServerMessage) -> bytes:
    """The payload of a frame."""
    return _encoder.encode({_KEY_OF[type(message)]: message})


def body(message: ServerMessage) -> bytes:
    """The message without the key around it, as server-sent events carry it."""
    return _encoder.encode(message)
