# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a WAMP client says, and is told: JSON arrays with a number first, `wamp.2.json`.

Pure. The numbers and URIs are those of the WAMP specification, basic and advanced profile. What
only a router's other clients would see (publishing, registering) is read so that it can be refused.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from arvados_nats.errors import MALFORMED, BadInput

SUBPROTOCOL = "wamp.2.json"
REALM = "arvados"
TICKET = "ticket"

Id = Annotated[int, Meta(ge=1, le=2**53)]
Word = Annotated[str, Meta(max_length=255)]
Uri = Annotated[str, Meta(min_length=1, max_length=16_384)]


class Code(IntEnum):
    """Types of messages."""

    HELLO = 1
    WELCOME = 2
    ABORT = 3
    CHALLENGE = 4
    AUTHENTICATE = 5
    GOODBYE = 6
    ERROR = 8
    PUBLISH = 16
    SUBSCRIBE = 32
    SUBSCRIBED = 33
    UNSUBSCRIBE = 34
    UNSUBSCRIBED = 35
    EVENT = 36
    CALL = 48
    CANCEL = 49
    RESULT = 50
    REGISTER = 64
    UNREGISTER = 66


CANCELED = "wamp.error.canceled"
INVALID_ARGUMENT = "wamp.error.invalid_argument"
INVALID_URI = "wamp.error.invalid_uri"
NO_MATCHING_AUTH_METHOD = "wamp.error.no_matching_auth_method"
NO_SUCH_PROCEDURE = "wamp.error.no_such_procedure"
NO_SUCH_REALM = "wamp.error.no_such_realm"
NO_SUCH_REGISTRATION = "wamp.error.no_such_registration"
NO_SUCH_SUBSCRIPTION = "wamp.error.no_such_subscription"
NOT_AUTHENTICATED = "wamp.error.authentication_failed"
NOT_AUTHORIZED = "wamp.error.not_authorized"
PROTOCOL_VIOLATION = "wamp.error.protocol_violation"
TIMEOUT = "wamp.error.timeout"
UNAVAILABLE = "wamp.error.unavailable"
CLOSE_GOODBYE = "wamp.close.goodbye_and_out"
CLOSE_KILLED = "wamp.close.killed"
CLOSE_SHUTDOWN = "wamp.close.system_shutdown"
FINISHED = "arvados.close.finished"
"""Reason of an UNSUBSCRIBED that the client did not ask for: nothing more will come."""
TOO_MANY = "arvados.error.too_many"
ID_IN_USE = "arvados.error.topic_in_use"
NOT_KEPT = "arvados.error.not_kept"

# What a client says.


class HelloDetails(Struct, frozen=True):
    """Of HELLO; what is not listed is ignored."""

    authmethods: Annotated[list[Word], Meta(max_length=20)] = []


class Hello(Struct, frozen=True, array_like=True, tag=int(Code.HELLO)):
    """Ask to join a realm."""

    realm: Word
    details: HelloDetails


class Authenticate(Struct, frozen=True, array_like=True, tag=int(Code.AUTHENTICATE)):
    """The Arvados token."""

    signature: Annotated[str, Meta(max_length=8192)]

    def __repr__(self) -> str:
        return "Authenticate(***)"


class Abort(Struct, frozen=True, array_like=True, tag=int(Code.ABORT)):
    """The client gives up."""


class Goodbye(Struct, frozen=True, array_like=True, tag=int(Code.GOODBYE)):
    """The client leaves, or answers that we do."""


class SubscribeOptions(Struct, frozen=True):
    """`x_arvados` says where to begin; the same may stand as JSON behind `?` in the topic."""

    match: Literal["exact", "prefix", "wildcard"] = "exact"
    get_retained: bool = False
    x_arvados: dict[str, Any] | None = None


class Subscribe(Struct, frozen=True, array_like=True, tag=int(Code.SUBSCRIBE)):
    """Hear of a topic."""

    request: Id
    options: SubscribeOptions
    topic: Uri


class Unsubscribe(Struct, frozen=True, array_like=True, tag=int(Code.UNSUBSCRIBE)):
    """Hear of it no more."""

    request: Id
    subscription: Id


class Call(Struct, frozen=True, array_like=True, tag=int(Code.CALL)):
    """Ask for something. nexus' client sends null for arguments that are not there."""

    request: Id
    options: dict[str, Any]
    procedure: Uri
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None


class Cancel(Struct, frozen=True, array_like=True, tag=int(Code.CANCEL)):
    """The answer to a call is not wanted any more."""

    request: Id


class PublishOptions(Struct, frozen=True):
    """Without `acknowledge` nobody is told that it was refused."""

    acknowledge: bool = False


class Publish(Struct, frozen=True, array_like=True, tag=int(Code.PUBLISH)):
    """Nobody may."""

    request: Id
    options: PublishOptions


class Register(Struct, frozen=True, array_like=True, tag=int(Code.REGISTER)):
    """Nobody may."""

    request: Id


class Unregister(Struct, frozen=True, array_like=True, tag=int(Code.UNREGISTER)):
    """Nobody has registered anything."""

    request: Id


ClientMessage = (
    Hello
    | Authenticate
    | Abort
    | Goodbye
    | Subscribe
    | Unsubscribe
    | Call
    | Cancel
    | Publish
    | Register
    | Unregister
)
_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_encoder = msgspec.json.Encoder()


def decode(frame: str | bytes) -> ClientMessage:
    """The message in a client's frame; BadInput, without any of its content, if it is none."""
    try:
        return _decoder.decode(frame)
    except msgspec.ValidationError as error:
        raise BadInput(str(error)) from error
    except MALFORMED as error:
        raise BadInput("the frame is no JSON") from error


# What it is told.


def encode(message: list[Any]) -> bytes:
    """The payload of a frame."""
    return _encoder.encode(message)


def error(of: Code, request: int, uri: str, text: str, **kwargs: Any) -> list[Any]:
    """The refusal of a request."""
    return [Code.ERROR, of, request, {}, uri, [text], kwargs]


def event(subscription: int, publication: int, details: bytes, text: bytes) -> bytes:
    """The payload of an EVENT; `text`, a message of protocol v1, is its keyword arguments."""
    return b"[36,%d,%d,%b,[],%b]" % (subscription, publication, details, text)


_OWN_IDS = 2**52


def publication_of(text: bytes) -> int:
    """The publication id of what is no event of the stream: equal for equal messages, and no
    sequence. A log message names its bytes' place, so two places never have the same."""
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return _OWN_IDS + int.from_bytes(digest) % _OWN_IDS
