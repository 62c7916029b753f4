# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a v1 connection answers and does next: authentication first, then subscriptions by name.

Pure: frames, decisions and times come in, steps come out, and whoever holds the socket takes them
in order. A refusal is an `error` that says whether trying again may help; what ends the connection
has a close code whose band says whether to come back (`close_codes`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from arvados_nats.errors import ArvadosNatsError, BadInput, Refused
from arvados_nats.protocol_v1 import messages, requests
from arvados_nats.protocol_v1.messages import NOT_READABLE
from arvados_nats.protocol_v1.requests import Auth, Pong, Subscribe, Target, Unsubscribe
from wsproxy.transport.close_codes import CloseCode
from wsproxy.transport.limits import Kept

MAX_MESSAGE = 64 * 1024
AUTH_SECONDS = 10.0
PING_SECONDS = 25.0
SILENT_SECONDS = 2.5 * PING_SECONDS
MAX_REFUSALS = 10
"""Tokens that Arvados does not accept, sent on one connection."""
TOKENS_AT_FIRST = 5
TOKENS_PER_SECOND = 1.0
"""Of one connection; what it sends more often waits."""
RECONNECT_MS = (0, 5000)
"""Range of random waiting that clients are told when the server's business ends a connection."""


@dataclass(frozen=True, slots=True)
class Say:
    """Send a message that is for this connection alone."""

    message: messages.ServerMessage


@dataclass(frozen=True, slots=True)
class Admit:
    """Ask who holds a token; then `admitted` or `not_admitted`."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin a subscription; `failed` if it cannot."""

    id: str
    target: Target


@dataclass(frozen=True, slots=True)
class Stop:
    """Send nothing more of a subscription."""

    id: str


@dataclass(frozen=True, slots=True)
class Close:
    """End every subscription and the connection; `cause` is for the metrics."""

    code: CloseCode
    reason: str
    cause: str


Step = Say | Admit | Begin | Stop | Close


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one connection may have; `max_age` in seconds, 0 for no end."""

    subscriptions: int
    subscription_bytes: int
    max_age: float = 0.0


class SessionV1:
    """One connection's state, from `now` (seconds of one clock) on."""

    def __init__(self, bounds: Bounds, now: float) -> None:
        self.user: str | None = None
        """Whose connection it is, once a token was accepted."""
        self._kept: Kept | None = None
        self._bounds = bounds
        self._asking = self._unanswered = False
        self._refusals = 0
        self._weights: dict[str, int] = {}
        self._opened_at = self._pinged_at = now

    def received(self, frame: str | bytes) -> list[Step]:
        """What a frame of the client leads to."""
        try:
            if isinstance(frame, bytes):
                raise BadInput("messages are text frames")
            message = requests.decode(frame)
        except BadInput as error:
            return [_error("bad_message", str(error), requests.id_in(frame))]
        match message:
            case Auth(token=token):
                self._asking = True
                return [Admit(token)]
            case Pong():
                return []
            case _ if self.user is None:
                return [_error("not_authenticated", "send auth first")]
            case Subscribe():
                return [self._subscribe(message, len(frame))]
            case Unsubscribe(id=id):
                if not self.forget(id):
                    return [_error("no_such_id", _NO_SUCH_ID, id)]
                return [Stop(id), Say(messages.Unsubscribed(id))]

    def _subscribe(self, message: Subscribe, weight: int) -> Step:
        kept = weight + sum(self._weights.values())
        if message.id in self._weights:
            return _error("id_in_use", "there is a subscription with this id", message.id)
        bounds = self._bounds
        if len(self._weights) >= bounds.subscriptions or kept > bounds.subscription_bytes:
            return _error("too_many", "too many subscriptions on this connection", message.id)
        try:
            begin = Begin(message.id, message.target)
        except BadInput as error:
            return _error("bad_message", str(error), message.id)
        if self._kept and not self._kept.take([weight]):
            return _error("too_many", "too many subscriptions of this user", message.id)
        self._weights[message.id] = weight
        return begin

    def forget(self, id: str) -> bool:
        """A subscription is over; whether there was one."""
        weight = self._weights.pop(id, None)
        if weight is not None and self._kept:
            self._kept.give([weight])
        return weight is not None

    def end(self) -> None:
        """The connection is over."""
        for id in tuple(self._weights):
            self.forget(id)

    def failed(self, id: str, error: ArvadosNatsError) -> list[Step]:
        """A subscription could not begin."""
        if not self.forget(id):
            return []
        match error:
            case Refused():
                return [_error("not_found", NOT_READABLE, id)]
            case BadInput():
                return [_error("bad_message", str(error), id)]
        return [_error("unavailable", str(error), id, temporary=True)]

    def revoked(self, id: str, reason: str) -> list[Step]:
        """A subscription may not be read any more: it is stopped first, then told."""
        return [Stop(id), Say(messages.Revoked(reason, id))] if self.forget(id) else []

    # Who it is.

    def stays_with(self, user_uuid: str) -> bool:
        """Whether a token of this user may go on with the connection."""
        return self.user in (None, user_uuid)

    def admitted(self, user_uuid: str, token_uuid: str, kept: Kept) -> list[Step]:
        """A token was accepted, of a user whose connections have so much together."""
        self._asking = False
        if not self.stays_with(user_uuid):
            return [_error("other_user", "a connection stays with the user it began with")]
        self.user, self._kept = user_uuid, kept
        limits = messages.Limits(self._bounds.subscriptions, MAX_MESSAGE)
        return [Say(messages.Hello(user_uuid, token_uuid, PING_SECONDS, limits))]

    def not_admitted(self, error: ArvadosNatsError) -> list[Step]:
        """Nobody could say whose token it is, or Arvados refused it."""
        self._asking = False
        if not isinstance(error, Refused):
            self._unanswered = True
            return [_error("unavailable", str(error), temporary=True)]
        refused: list[Step] = [_error("token_invalid", "Arvados does not accept this token")]
        self._refusals += 1
        if self.user is None or self._refusals >= MAX_REFUSALS:
            refused.append(Close(CloseCode.TOKEN_INVALID, "token invalid", "token"))
        return refused

    def too_many(self, reason: str) -> list[Step]:
        """The user has as many connections as they may."""
        self._asking = False
        return [Close(CloseCode.LIMIT, reason, "user")]

    def token_ended(self, reason: str) -> list[Step]:
        """The token that was accepted is none any more."""
        said = Say(messages.Revoked(f"token {reason}"))
        return [said, Close(CloseCode.TOKEN_INVALID, f"token {reason}", "token")]

    # Time.

    def tick(self, now: float, heard_at: float, *, pending: bool) -> list[Step]:
        """What is due; `pending`: bytes of ours wait, behind which an answer may stand."""
        if self.user is None and not self._asking and now - self._opened_at > AUTH_SECONDS:
            if self._unanswered:
                return [Close(CloseCode.RESYNC, "Arvados did not answer, try again", "unanswered")]
            late = _error("auth_timeout", "no token was sent in time")
            return [late, Close(CloseCode.AUTH_TIMEOUT, "auth first", "auth")]
        if now - heard_at > SILENT_SECONDS and not pending:
            return [Close(CloseCode.NO_PONG, "no pong", "silent")]
        if 0 < self._bounds.max_age < now - self._opened_at:
            return _goodbye(CloseCode.MAX_AGE, "this connection is old", "age")
        if now - self._pinged_at >= PING_SECONDS:
            self._pinged_at = now
            return [Say(messages.Ping())]
        return []

    def drain(self) -> list[Step]:
        """The process ends; the client is to come back, elsewhere."""
        return _goodbye(CloseCode.DRAIN, "the server is going away", "drain")


_NO_SUCH_ID = "there is no subscription with this id"


def _goodbye(code: CloseCode, reason: str, cause: str) -> list[Step]:
    return [Say(messages.Goodbye(reason, RECONNECT_MS)), Close(code, reason, cause)]


def _error(code: str, text: str, id: str | None = None, *, temporary: bool = False) -> Say:
    if id is None:
        return Say(messages.Error(code, text, temporary))
    return Say(messages.Error(code, text, temporary, id))
