# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The Python client: logs, object states and events of a cluster, live, over one WebSocket.

    from arvados_nats import client

    async with client.connect("wss://ws.example.com/v1/stream", lambda: token) as stream:
        async for message in await stream.log("zzzzz-xvhdp-0123456789abcde", files=["stderr.txt"]):
            if isinstance(message, client.Log):
                sys.stdout.buffer.write(message.data)

It needs msgspec and websockets. What is named here is public; the modules below it are not.
"""

from arvados_nats.client.errors import TokenRefused
from arvados_nats.client.stream import Connected, State, Stream, Waiting, connect
from arvados_nats.client.subscription_handle import SubscriptionHandle
from arvados_nats.errors import ArvadosNatsError, BadInput, ConfigError, Refused, Unavailable
from arvados_nats.protocol_v1.messages import (
    Attempt,
    Attempts,
    CaughtUp,
    End,
    Error,
    Event,
    Gap,
    Gone,
    Log,
    Narrowed,
    Object,
    Queued,
    ServerMessage,
    Subscribed,
)

__all__ = (
    "ArvadosNatsError",
    "Attempt",
    "Attempts",
    "BadInput",
    "CaughtUp",
    "ConfigError",
    "Connected",
    "End",
    "Error",
    "Event",
    "Gap",
    "Gone",
    "Log",
    "Narrowed",
    "Object",
    "Queued",
    "Refused",
    "ServerMessage",
    "State",
    "Stream",
    "Subscribed",
    "SubscriptionHandle",
    "TokenRefused",
    "Unavailable",
    "Waiting",
    "connect",
)
