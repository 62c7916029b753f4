# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a WAMP connection answers and does next: HELLO and a ticket first, then topics and calls.

Pure, as `v1.session` is: frames, decisions and times come in, steps come out, and whoever holds
the socket takes them in order. A refusal is an ERROR with one of WAMP's URIs; what ends the session
is ABORT or GOODBYE, and a close code whose band says whether to come back (`close_codes`).
"""

from __future__ import annotations

from dataclasses import dataclass

from arvados_nats.errors import ArvadosNatsError, BadInput, Refused
from arvados_nats.protocol_v1.messages import NOT_READABLE
from wsproxy.transport.close_codes import CloseCode
from wsproxy.transport.limits import Kept
from wsproxy.wamp import messages
from wsproxy.wamp.messages import Code
from wsproxy.wamp.steps import Admit, Ask, Begin, Close, Drop, Say, Step, Stop
from wsproxy.wamp.topics import BadTopic, Topic, topic_of

AUTH_SECONDS = 10.0
_ROLES = {
    "broker": {
        "features": {
            "pattern_based_subscription": True,
            "subscription_revocation": True,
            "event_history": True,
            "event_retention": True,
        }
    },
    "dealer": {"features": {"call_canceling": True}},
}
_NO_SUCH = "there is no subscription with this id"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one connection may have; `max_age` in seconds, 0 for no end."""

    subscriptions: int
    subscription_bytes: int
    max_age: float = 0.0


@dataclass(slots=True)
class _Held:
    """A topic of this session; `over`: it has ended, and the client does not know it."""

    topic: Topic
    weight: int
    over: bool = False


class SessionWamp:
    """One connection's state, from `now` (seconds of one clock) on.

    `revocable`: the client can be told that a subscription has ended.
    """

    def __init__(self, bounds: Bounds, id: int, now: float, *, revocable: bool = True) -> None:
        self.user: str | None = None
        """Whose connection it is, once its token was accepted."""
        self._bounds = bounds
        self._id = id
        self._revocable = revocable
        self._challenged = self._asking = self._over = False
        self._held: dict[int, _Held] = {}
        self._kept: Kept | None = None
        self._opened_at = now

    def received(self, frame: str | bytes) -> list[Step]:
        """What a frame of the client leads to."""
        if self._over:
            return []
        try:
            if isinstance(frame, bytes):
                raise BadInput("messages are text frames")
            message = messages.decode(frame)
        except BadInput as error:
            return self._violation(str(error))
        match message:
            case messages.Hello() if not self._challenged:
                return self._hello(message)
            case messages.Authenticate() if self._expects_a_token:
                self._asking = True
                return [Admit(message.signature)]
            case messages.Abort():
                return self._end([], 1000, "the client gave up", "client")
            case messages.Goodbye():
                said = Say([Code.GOODBYE, {}, messages.CLOSE_GOODBYE])
                return self._end([said], 1000, "goodbye", "client")
            case _ if self.user is None:
                return self._violation("not before the session is joined")
            case _:
                return self._request(message, len(frame))

    @property
    def _expects_a_token(self) -> bool:
        """Once: a session stays with its login, which `logins` counts."""
        return self._challenged and not self._asking and self.user is None

    def _request(self, message: messages.ClientMessage, weight: int) -> list[Step]:
        match message:
            case messages.Subscribe():
                return [self._subscribe(message, weight)]
            case messages.Unsubscribe(request=request, subscription=id):
                if not self._forget(id):
                    return [_no(Code.UNSUBSCRIBE, request, messages.NO_SUCH_SUBSCRIPTION, _NO_SUCH)]
                return [Stop(id), Say([Code.UNSUBSCRIBED, request])]
            case messages.Call():
                return [Ask(message)]
            case messages.Cancel(request=request):
                return [Drop(request)]
            case messages.Publish(request=request, options=options):
                refused = _no(Code.PUBLISH, request, messages.NOT_AUTHORIZED, "nobody publishes")
                return [refused] if options.acknowledge else []
            case messages.Register(request=request):
                return [_no(Code.REGISTER, request, messages.NOT_AUTHORIZED, "nobody registers")]
            case messages.Unregister(request=request):
                return [
                    _no(Code.UNREGISTER, request, messages.NO_SUCH_REGISTRATION, "there is none")
                ]
        return self._violation("the session is joined already")

    # Subscriptions.

    def _subscribe(self, message: messages.Subscribe, weight: int) -> Step:
        request = message.request
        try:
            topic = topic_of(message)
        except BadTopic as error:
            return _no(Code.SUBSCRIBE, request, messages.INVALID_URI, str(error))
        except BadInput as error:
            return _no(Code.SUBSCRIBE, request, messages.INVALID_ARGUMENT, str(error))
        held = self._held.get(topic.id)
        if held is not None and not held.over:
            return self._again(request, topic, held.topic)
        kept, bounds = weight + sum(one.weight for one in self._held.values()), self._bounds
        if len(self._held) >= bounds.subscriptions or kept > bounds.subscription_bytes:
            text = "too many subscriptions in this session: unsubscribe from some"
            return _no(Code.SUBSCRIBE, request, messages.TOO_MANY, text)
        if self._kept and not self._kept.take([weight]):
            return _no(Code.SUBSCRIBE, request, messages.TOO_MANY, "too many subscriptions of you")
        self._forget(topic.id)
        self._held[topic.id] = _Held(topic, weight)
        return Begin(request, topic)

    def _forget(self, id: int) -> bool:
        held = self._held.pop(id, None)
        if held is not None and self._kept:
            self._kept.give([held.weight])
        return held is not None

    def end(self) -> None:
        """The connection is over."""
        for id in tuple(self._held):
            self._forget(id)

    def _again(self, request: int, topic: Topic, former: Topic) -> Step:
        """A session has one subscription to a topic, whatever its number of handlers."""
        if topic == former:
            return Say([Code.SUBSCRIBED, request, topic.id])
        text = "this session has the topic with other options: unsubscribe from it first"
        return _no(Code.SUBSCRIBE, request, messages.ID_IN_USE, text)

    def topic(self, id: int) -> Topic | None:
        """The topic of a subscription of this session."""
        held = self._held.get(id)
        return held.topic if held else None

    def failed(self, request: int, topic: Topic, error: ArvadosNatsError) -> list[Step]:
        """A subscription could not begin."""
        if not self._forget(topic.id):
            return []
        uri, text = refusal(error)
        return [Stop(topic.id), _no(Code.SUBSCRIBE, request, uri, text)]

    def over(self, id: int, reason: str) -> list[Step]:
        """Nothing more will come of a topic: its permission is lost, or it has told all."""
        held = self._held.get(id)
        if held is None or held.over:
            return []
        if not self._revocable:
            held.over = True
            return [Stop(id)]
        self._forget(id)
        return [Stop(id), Say([Code.UNSUBSCRIBED, 0, {"subscription": id, "reason": reason}])]

    # Who it is.

    def _hello(self, message: messages.Hello) -> list[Step]:
        if message.realm != messages.REALM:
            text = f"the realm is {messages.REALM}"
            return self._abort(messages.NO_SUCH_REALM, text, CloseCode.BAD_REQUEST)
        if messages.TICKET not in message.details.authmethods:
            text = "offer the authmethod ticket: it is the Arvados token"
            return self._abort(messages.NO_MATCHING_AUTH_METHOD, text, CloseCode.BAD_REQUEST)
        self._challenged = True
        return [Say([Code.CHALLENGE, messages.TICKET, {}])]

    def admitted(self, user_uuid: str, token_uuid: str, kept: Kept) -> list[Step]:
        """The token was accepted, of a user whose connections have so much together."""
        self.user, self._kept, self._asking = user_uuid, kept, False
        details = {
            "realm": messages.REALM,
            "authid": user_uuid,
            "authrole": "user",
            "authmethod": messages.TICKET,
            "authprovider": "arvados",
            "authextra": {
                "token_uuid": token_uuid,
                "limits": {"subscriptions": self._bounds.subscriptions},
            },
            "roles": _ROLES,
        }
        return [Say([Code.WELCOME, self._id, details])]

    def not_admitted(self, error: ArvadosNatsError) -> list[Step]:
        """Arvados refused the token, or nobody could say whose it is."""
        if isinstance(error, Refused):
            text = "Arvados does not accept this token"
            return self._abort(messages.NOT_AUTHENTICATED, text, CloseCode.TOKEN_INVALID)
        return self._abort(messages.UNAVAILABLE, str(error), CloseCode.RESYNC)

    def too_many(self, reason: str) -> list[Step]:
        """The user has as many connections as they may."""
        return self._abort(messages.UNAVAILABLE, reason, CloseCode.LIMIT)

    def token_ended(self, reason: str) -> list[Step]:
        """The token that was accepted is none any more."""
        return self._goodbye(messages.CLOSE_KILLED, f"token {reason}", CloseCode.TOKEN_INVALID)

    # Time, and the end.

    def tick(self, now: float) -> list[Step]:
        """What is due."""
        if self._over:
            return []
        if self.user is None and not self._asking and now - self._opened_at > AUTH_SECONDS:
            return self._abort(messages.TIMEOUT, "no token in time", CloseCode.AUTH_TIMEOUT)
        if 0 < self._bounds.max_age < now - self._opened_at:
            return self._goodbye(
                messages.CLOSE_SHUTDOWN, "this connection is old", CloseCode.MAX_AGE
            )
        return []

    def drain(self) -> list[Step]:
        """The process ends; the client is to come back, elsewhere."""
        text = "the server is going away: connect again"
        return self._goodbye(messages.CLOSE_SHUTDOWN, text, CloseCode.DRAIN)

    def _violation(self, text: str) -> list[Step]:
        return self._abort(messages.PROTOCOL_VIOLATION, text, CloseCode.BAD_REQUEST)

    def _abort(self, uri: str, text: str, code: CloseCode) -> list[Step]:
        return self._end([Say([Code.ABORT, {"message": text}, uri])], code, text, _CAUSES[code])

    def _goodbye(self, uri: str, text: str, code: CloseCode) -> list[Step]:
        if self.user is None:
            return self._abort(uri, text, code)
        return self._end([Say([Code.GOODBYE, {"message": text}, uri])], code, text, _CAUSES[code])

    def _end(self, said: list[Step], code: int, text: str, cause: str) -> list[Step]:
        if self._over:
            return []
        self._over = True
        return [*said, Close(code, text, cause)]


_CAUSES = {
    CloseCode.AUTH_TIMEOUT: "auth",
    CloseCode.BAD_REQUEST: "bad",
    CloseCode.DRAIN: "drain",
    CloseCode.LIMIT: "user",
    CloseCode.MAX_AGE: "age",
    CloseCode.RESYNC: "unanswered",
    CloseCode.TOKEN_INVALID: "token",
}


def refusal(error: ArvadosNatsError) -> tuple[str, str]:
    """The URI and the text of an error; what is forbidden looks as if it were not there."""
    match error:
        case Refused():
            return messages.NOT_AUTHORIZED, NOT_READABLE
        case BadInput():
            return messages.INVALID_ARGUMENT, str(error)
    return messages.UNAVAILABLE, str(error)


def _no(of: Code, request: int, uri: str, text: str) -> Say:
    return Say(messages.error(of, request, uri, text))
