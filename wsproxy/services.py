# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What every connection of the process shares, opened once in `main` and handed down."""

from __future__ import annotations

from dataclasses import dataclass, field

from arvados_nats.arvados.client import Arvados
from arvados_nats.nats.client import Nats
from arvados_nats.service.ops import Health
from wsproxy.cursors import Codec
from wsproxy.events.event_source import EventSource
from wsproxy.events.project_trees import ProjectTrees
from wsproxy.events.router import Router
from wsproxy.events.row_positions import LogPlaces
from wsproxy.logins.logins import Viewers
from wsproxy.logins.readable import Readable
from wsproxy.logs.hubs import LogFeeds
from wsproxy.native_api.requests import NativeApi
from wsproxy.objects.followed import ObjectFeeds
from wsproxy.transport.connections import Connections
from wsproxy.transport.limits import Limits, Tally
from wsproxy.transport.send_buffer import Outlets


@dataclass(frozen=True, slots=True)
class Services:
    """Shared parts; each has its own module."""

    nats: Nats
    arvados: Arvados
    health: Health
    router: Router
    source: EventSource
    viewers: Viewers
    places: LogPlaces
    logs: LogFeeds
    objects: ObjectFeeds
    trees: ProjectTrees
    native: NativeApi
    readable: Readable
    cursors: Codec
    outlets: Outlets
    connections: Connections
    limits: Limits
    tally: Tally
    send_timeout: float = 60.0
    """Arvados' API.SendTimeout: seconds of silence after which a keep-alive is sent."""
    max_age: float = 0.0
    """Seconds after which a v1 connection is to come back, give or take a fifth; 0: never."""
    allowed_origins: frozenset[str] = field(default=frozenset({"*"}))
