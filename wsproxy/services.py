# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What every connection of the process shares, opened once in `main` and handed down."""

from __future__ import annotations

from dataclasses import dataclass, field

from arvados_nats.arvados.client import Arvados
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client.grants_cache import GrantsCache
from wsproxy.cursors import Codec
from wsproxy.events.event_source import EventSource
from wsproxy.events.router import Router
from wsproxy.events.row_positions import RowPositions
from wsproxy.logins.logins import Logins
from wsproxy.logins.readable import Readable
from wsproxy.logins.whereabouts import Whereabouts
from wsproxy.logs.hubs import LogHubs
from wsproxy.native_api.answers import Answers
from wsproxy.objects.hub import ObjectHubs
from wsproxy.transport.connections import Connections
from wsproxy.transport.fair import Fair
from wsproxy.transport.limits import Limits, Tally
from wsproxy.transport.send_buffers import SendBuffers

STARTS, STARTS_OF_USER = 256, 32
"""Subscriptions to logs and states that begin at a time: each may ask Arvados."""


@dataclass(frozen=True, slots=True)
class Events:
    """Changes of objects, from the stream to those who may see them."""

    source: EventSource
    router: Router
    places: RowPositions


@dataclass(frozen=True, slots=True)
class Transport:
    """Sockets, and what each may have."""

    send_buffers: SendBuffers
    connections: Connections
    limits: Limits
    tally: Tally
    send_timeout: float = 60.0
    """Arvados' API.SendTimeout: seconds of silence after which a keep-alive is sent."""
    silent_seconds: float = 7200.0
    """How long a peer whose machine answers may leave pings unanswered, over v0 and WAMP."""
    max_age: float = 0.0
    """Seconds after which a v1 connection is to come back, give or take a fifth; 0: never."""
    allowed_origins: set[str] = field(default_factory=lambda: {"*"})


@dataclass(frozen=True, slots=True)
class Services:
    """What a door needs to serve a connection; each part has its own room."""

    nats: Nats
    arvados: Arvados
    events: Events
    logs: LogHubs
    objects: ObjectHubs
    grants: GrantsCache
    logins: Logins
    whereabouts: Whereabouts
    readable: Readable
    cursors: Codec
    answers: Answers
    transport: Transport
    starts: Fair = field(default_factory=lambda: Fair(STARTS, STARTS_OF_USER))
    """The turns of subscriptions that begin."""
