# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a client of protocol v1 says, subprotocol `arvados.events.v1.json`.

Pure; spoken by `client`, understood by `wsproxy`. One JSON object per frame, with one key that
names its type. A field that is not known is refused by its name: a misspelled one would otherwise
be a request for something else. What the server says is in `messages`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from arvados_nats.errors import MALFORMED, BadInput

Id = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(max_length=255)]
Words = Annotated[list[Text], Meta(max_length=1000)]
Offset = Annotated[int, Meta(ge=0, le=2**53)]


class Auth(Struct, frozen=True, forbid_unknown_fields=True):
    """First message of a session, and again at any time to renew."""

    token: Annotated[str, Meta(max_length=8192)]

    def __repr__(self) -> str:
        return "Auth(***)"


class From(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A place in one log file; without `epoch`, in the file as it is now."""

    offset: Offset
    epoch: Offset | None = None


class LogTarget(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
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


class ObjectTarget(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The state of one object; nothing is sent while it still has this `etag`."""

    uuid: Text
    etag: Text | None = None


class EventsTarget(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Changes of objects. Lists are alternatives; different lists must all match.

    `owners` matches the owner of the object, or of a container's requests, and with `below` also
    the projects at any depth below it, as they are now; `objects` the object, or a container's
    requests. `cursor` continues after a cursor of this stream; without one, `begin`
    says whether to begin with the oldest change still kept or with the next.
    """

    owners: Words | None = None
    below: bool = False
    objects: Words | None = None
    kinds: Words | None = None
    event_types: Words | None = None
    cursor: Annotated[str, Meta(max_length=256)] | None = None
    begin: Literal["now", "oldest"] = "now"


class Subscribe(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Begin a subscription; `id` is the client's choice. Exactly one target."""

    id: Id
    log: LogTarget | None = None
    object: ObjectTarget | None = None
    events: EventsTarget | None = None

    @classmethod
    def to(cls, id: str, target: Target) -> Subscribe:
        """The message that begins a subscription to `target`."""
        match target:
            case LogTarget():
                return cls(id, log=target)
            case ObjectTarget():
                return cls(id, object=target)
            case EventsTarget():
                return cls(id, events=target)

    @property
    def target(self) -> Target:
        """The one target; BadInput if there is none or more than one."""
        named = [target for target in (self.log, self.object, self.events) if target is not None]
        if len(named) != 1:
            raise BadInput("subscribe needs exactly one of log, object and events")
        return named[0]


class Unsubscribe(Struct, frozen=True, forbid_unknown_fields=True):
    """End a subscription."""

    id: Id


class Pong(Struct, frozen=True, forbid_unknown_fields=True):
    """Answer to `ping`."""


class _ClientMessage(Struct, frozen=True, forbid_unknown_fields=True):
    auth: Auth | None = None
    subscribe: Subscribe | None = None
    unsubscribe: Unsubscribe | None = None
    pong: Pong | None = None


ClientMessage = Auth | Subscribe | Unsubscribe | Pong
Target = LogTarget | ObjectTarget | EventsTarget

CLIENT_KEYS: dict[str, type[Struct]] = {
    "auth": Auth,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "pong": Pong,
}
_KEY_OF = {kind: key for key, kind in CLIENT_KEYS.items()}
_decoder = msgspec.json.Decoder(_ClientMessage)
_encoder = msgspec.json.Encoder()


def encode(message: ClientMessage) -> str:
    """The text of a frame; what is not said is left out."""
    return _encoder.encode({_KEY_OF[type(message)]: message}).decode()


def decode(frame: str | bytes) -> ClientMessage:
    """The one message in a client's frame; BadInput, without any of its content, if it is none."""
    try:
        found = _decoder.decode(frame)
    except MALFORMED as error:
        raise BadInput(_safe(error)) from error
    named = (found.auth, found.subscribe, found.unsubscribe, found.pong)
    messages = [message for message in named if message is not None]
    if len(messages) != 1:
        raise BadInput("a message has exactly one of auth, subscribe, unsubscribe and pong")
    return messages[0]


class _Named(Struct, frozen=True):
    id: Id


class _Naming(Struct, frozen=True):
    subscribe: _Named


def id_in(frame: str | bytes) -> str | None:
    """Which subscription a frame is about that is no message."""
    try:
        return msgspec.json.decode(frame, type=_Naming).subscribe.id
    except MALFORMED:
        return None


def _safe(error: Exception) -> str:
    """What is wrong with a frame; msgspec names types and paths, never values."""
    return str(error) if isinstance(error, msgspec.ValidationError) else "the frame is no JSON"
