# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Settings of wsproxy; read from `ARVADOS_NATS_<NAME>`. Only `main` sees them."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated

from pydantic import (
    AfterValidator,
    Field,
    FilePath,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from arvados_nats.service.settings import (
    ArvadosSettings,
    CommaSeparated,
    Listening,
    NatsSettings,
    OpsSettings,
)
from wsproxy.transport.limits import Limits

_ORIGIN = re.compile(r"\*|null|[a-zA-Z][\w+.-]*://[^/\s]+")


def _origins(texts: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(text.removesuffix("/") for text in texts)
    for text in found:
        if not _ORIGIN.fullmatch(text):
            raise ValueError(f"{text} is no origin, such as https://workbench.example")
    return found


def _networks(texts: str) -> str:
    """Whoever believes in them would pass over what is none."""
    for text in texts.split(","):
        if text.strip() not in ("", "*"):
            ip_network(text.strip())
    return texts


class Settings(NatsSettings, ArvadosSettings, OpsSettings):
    """What wsproxy can be told."""

    listen: Listening = "0.0.0.0:8000"
    """Address of WebSockets and pages; port 0 takes a free one."""

    tls_certificate: FilePath | None = None
    """PEM file with the server's certificate chain, to serve wss:// without a proxy in front."""

    tls_key: FilePath | None = None
    """PEM file with its private key."""

    send_timeout: PositiveFloat = Field(60.0, le=3600)
    """Seconds of silence after which a keep-alive is sent; Arvados' API.SendTimeout. Keep it below
    the idle time-out of every proxy on the way (nginx: 60 s)."""

    silent_seconds: PositiveFloat = 7200.0
    """Seconds for which a client of `/websocket` or `/wamp` whose machine answers may leave pings
    unanswered: browsers freeze pages that nobody looks at, and Workbench does not come back by
    itself once it is cut."""

    allowed_origins: Annotated[CommaSeparated, AfterValidator(_origins)] = ()
    """Origins of pages that may connect (`https://workbench.example`), or `*`; by default those of
    Workbench, as Arvados tells them, or all where it tells none. arvados-ws has no such check;
    tokens are never in cookies, so `*` lets a foreign page do nothing it could not."""

    max_connections: NonNegativeInt = 20_000
    """Sockets of this process with a token that Arvados accepts; 0 for no limit."""

    max_unknown_connections: PositiveInt = 1_000
    """Sockets whose token was not sent, is being asked about, or was refused; the one that came
    first makes room for the next."""

    max_connections_per_user: NonNegativeInt = 5_000
    """Sockets of one user on this process; 0 for no limit."""

    max_connections_per_address: NonNegativeInt = 0
    """Sockets from one address; 0 for no limit. Behind a proxy set trusted_proxies first."""

    max_subscriptions: PositiveInt = 100
    """Subscriptions of one connection."""

    max_kept_per_user: PositiveInt = 64 * 1024 * 1024
    """Bytes of all subscriptions of one user on this process: 2 KiB and its text each."""

    commands_per_second: PositiveFloat = 50.0
    """Messages a client may send; faster ones wait."""

    trusted_proxies: Annotated[str, AfterValidator(_networks)] = "127.0.0.1"
    """Addresses, separated by commas, whose X-Forwarded-For is believed; `*` for all."""

    queue_budget: PositiveInt = 256 * 1024 * 1024
    """Bytes that may wait for all clients together; over it the most idle ones are cut."""

    leisure_seconds: NonNegativeFloat = 0.0
    """Time after SIGTERM in which open sockets go on as if nothing were, before the drain; a
    second SIGTERM ends it. New ones are for the next process: with any leisure the address is
    shared (SO_REUSEPORT) with processes of the same user that have some, too."""

    drain_seconds: PositiveFloat = 10.0
    """Time over which connections are closed after SIGTERM; stay below the grace period."""

    max_age: NonNegativeFloat = 6 * 3600.0
    """Seconds after which a v1 connection is asked to come back, give or take a fifth, so that load
    spreads over replicas; 0 for never."""

    max_calls: PositiveInt = 2
    """Calls to Arvados' API at once, for tokens and permissions each; see
    ARVADOS_NATS_LOG_CALLS."""

    @property
    def limits(self) -> Limits:
        return Limits(
            connections=self.max_connections,
            unknown=self.max_unknown_connections,
            connections_per_user=self.max_connections_per_user,
            connections_per_address=self.max_connections_per_address,
            subscriptions=self.max_subscriptions,
            kept_per_user=self.max_kept_per_user,
            commands_per_second=self.commands_per_second,
        )
