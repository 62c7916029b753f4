# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a session wants done by whoever holds the socket, in order. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from wsproxy.wamp.messages import Call
from wsproxy.wamp.topics import Topic


@dataclass(frozen=True, slots=True)
class Say:
    """Send a message that is for this connection alone."""

    message: list[Any]


@dataclass(frozen=True, slots=True)
class Admit:
    """Ask who holds a token; then `admitted` or `not_admitted`."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin to tell of a topic; `failed` if it cannot be."""

    request: int
    topic: Topic


@dataclass(frozen=True, slots=True)
class Stop:
    """Send nothing more of a subscription."""

    id: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Answer a call."""

    call: Call


@dataclass(frozen=True, slots=True)
class Drop:
    """The answer to a call is not wanted any more."""

    request: int


@dataclass(frozen=True, slots=True)
class Close:
    """End every subscription and the connection; `cause` is for the metrics."""

    code: int
    reason: str
    cause: str


Step = Say | Admit | Begin | Stop | Ask | Drop | Close
