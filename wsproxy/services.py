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
from wsproxy.events.row_positions import RowPositions
from wsproxy.logins.logins import Logins
from wsproxy.logins.readable import Readable
from wsproxy.logs.hubs import LogHubs
from wsproxy.native_api.requests import NativeApi
from wsproxy.objects.hub import ObjectHubs
from wsproxy.transport.connections import Connections
from wsproxy.transport.limits import Limits, Tally
from wsproxy.transport.send_buffer import SendBuffers


@dataclass(frozen=True, slots=True)
class Services:
    """Shared parts; each has its own module."""

    nats: Nats
    arvados: Arvados
    health: Health
    router: Router
    source: EventSource
    logins: Logins
    places: RowPositions
    logs: LogHubs
    objects: ObjectHubs
    trees: ProjectTrees
    native: NativeApi
    readable: Readable
    cursors: Codec
    send_buffers: SendBuffers
    connections: Connections
    limits: Limits
    tally: Tally
    send_timeout: float = 60.0
    """Arvados' API.SendTimeout: seconds of silence after which a keep-alive is sent."""
    max_age: float = 0.0
    """Seconds after which a v1 connection is to come back, give or take a fifth; 0: never."""
    allowed_origins: frozenset[str] = field(default=frozenset({"*"}))
