# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One topic of one connection: what its subscription tells, in the bytes of WAMP.

To the subscription it is the client (`subscriptions.subscription`). Every message of protocol v1
becomes the keyword arguments of an EVENT, as it is; the bytes are shared by all readers of a topic.
"""

from __future__ import annotations

from typing import Any, Protocol

from arvados_nats.protocol_v1.messages import Revoked, ServerMessage, Subscribed, encode
from wsproxy.events.stored_event import StoredEvent
from wsproxy.logins.logins import Login
from wsproxy.transport.failures import Tasks
from wsproxy.transport.frames import Message, text_frame
from wsproxy.transport.send_buffer import SendBuffer
from wsproxy.wamp import messages
from wsproxy.wamp.messages import Code
from wsproxy.wamp.topics import Topic

_RETAINED = b'{"retained":true}'


class Connection(Protocol):
    """The connection, to its topics."""

    send_buffer: SendBuffer
    tasks: Tasks

    @property
    def login(self) -> Login:
        """Who reads."""

    def say(self, message: list[Any]) -> None:
        """Write a message for this connection alone."""

    def over(self, topic: Topic, reason: str) -> None:
        """Nothing more will come of a topic."""


class Subscriber:
    """A topic's subscription writes here; `request` is the SUBSCRIBE that it answers."""

    def __init__(self, connection: Connection, topic: Topic, request: int) -> None:
        self.send_buffer = connection.send_buffer
        self.tasks = connection.tasks
        self._connection = connection
        self._topic = topic
        self._request = request
        self._retained = topic.retained

    @property
    def login(self) -> Login:
        return self._connection.login

    def form(self, id: str) -> int:
        return self._topic.id

    def encode(self, stored: StoredEvent, message: Message, id: str) -> bytes:
        details = self._topic.details(stored.event)
        event = messages.event(self._topic.id, stored.sequence, details, message.text)
        return text_frame(event)

    def send(self, message: Message) -> None:
        if self._retained:
            self._retained = False
            self.send_buffer.put(self._frame(message.text, _RETAINED))
            return
        self.send_buffer.put(message.form(self._topic.id, self._frame))

    def _frame(self, text: bytes, details: bytes = b"{}") -> bytes:
        publication = messages.publication_of(text)
        return text_frame(messages.event(self._topic.id, publication, details, text))

    def tell(self, message: ServerMessage) -> None:
        if isinstance(message, Subscribed):
            self._connection.say([Code.SUBSCRIBED, self._request, self._topic.id])
        else:
            self.send_buffer.put(self._frame(encode(message)))

    def revoke(self, id: str, reason: str) -> None:
        self.tell(Revoked(reason, id))
        self._connection.over(self._topic, messages.NOT_AUTHORIZED)

    def finished(self, id: str) -> None:
        self._connection.over(self._topic, messages.FINISHED)
