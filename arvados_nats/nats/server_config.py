# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What one NATS server is told: where it listens, what it keeps, and who may do what. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from arvados_nats.contract.accounts import ARVADOS, SYS
from arvados_nats.nats.accounts_config import AccountLimits, accounts, authorization
from arvados_nats.nats.conf_text import Size, printed

ROUTES = "routes"
"""The name by which the servers of a cluster know each other; its seed is the password."""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files on the server. With an authority, who connects must show a certificate of it."""

    certificate: str
    key: str
    authority: str | None = None


@dataclass(frozen=True, slots=True)
class Routes:
    """This server's place among the others: where it listens for routes and where they do.

    Whoever may open a route is a member with all rights: `password`, the seed `routes`, keeps
    others out, and `tls` with an authority keeps it off the wire.
    """

    name: str
    listen: str
    routes: tuple[str, ...]
    tls: Tls | None = None
    password: str | None = field(default=None, repr=False)
    advertise: str | None = None
    """Where the others, told of it by one of them, look for it instead."""


@dataclass(frozen=True, slots=True)
class WebSocket:
    """A listener for native NATS clients over WebSocket; without a certificate it is plain."""

    listen: str
    allowed_origins: tuple[str, ...] = ()
    tls: Tls | None = None


DOMAIN = "arvados"
"""What the servers that keep the streams are called, so that a leaf node asks them."""

MONITOR = "127.0.0.1:8222"
PINGS = {"ping_interval": "20s", "ping_max": 2}
"""Whose machine is gone counts for a minute, and not for six: a callout service would be handed
logins for so long."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server. Addresses are `host:port`; port -1 lets the system choose one."""

    name: str
    listen: str = "127.0.0.1:4222"
    store_dir: str = "/var/lib/nats"
    """The server keeps its streams in `jetstream/` below it."""
    monitor: str | None = MONITOR
    tls: Tls | None = None
    cluster: Routes | None = None
    websocket: WebSocket | None = None
    leafs: str | None = None
    """Where it takes leaf nodes (`leaf_config`); they speak TLS if clients do."""
    log_file: str | None = None
    ports_file_dir: str | None = None
    sync_always: bool = True
    """Every message is on the disk before it is acknowledged. One server alone needs it: by
    default the disk is told every two minutes (docs/facts/nats-callout.md 3, row 29)."""


def settings(server: Server, public: Mapping[str, str], limits: AccountLimits) -> dict[str, Any]:
    """The whole configuration of one server as plain values."""
    optional = {
        "http": server.monitor,
        "log_file": server.log_file,
        "ports_file_dir": server.ports_file_dir,
        "tls": _tls(server.tls),
        "cluster": _cluster(server.cluster),
        "websocket": _websocket(server.websocket),
        "leafnodes": _leafs(server.leafs, public, _tls(server.tls)),
    }
    return {
        "server_name": server.name,
        "listen": server.listen,
        "max_payload": Size(limits.payload),
        "max_control_line": Size(limits.control_line),
        **PINGS,
        "system_account": SYS,
        "jetstream": {
            "store_dir": server.store_dir,
            **({"domain": DOMAIN} if server.leafs else {}),
            "max_memory_store": 0,
            "max_file_store": Size(limits.store),
            **({"sync_interval": "always"} if server.sync_always else {}),
        },
        **{key: value for key, value in optional.items() if value is not None},
        "authorization": authorization(public),
        "accounts": accounts(public, limits),
    }


def _tls(tls: Tls | None) -> dict[str, Any] | None:
    if tls is None:
        return None
    verify = {"ca_file": tls.authority, "verify": True} if tls.authority else {}
    return {"cert_file": tls.certificate, "key_file": tls.key, **verify}


def _cluster(cluster: Routes | None) -> dict[str, Any] | None:
    if cluster is None:
        return None
    tls = _tls(cluster.tls)
    login = {"user": ROUTES, "password": cluster.password}
    named = f"{ROUTES}:{cluster.password}@" if cluster.password else ""
    return {
        "name": cluster.name,
        "listen": cluster.listen,
        "no_advertise": True,
        **({"advertise": cluster.advertise} if cluster.advertise else {}),
        **({"authorization": login} if cluster.password else {}),
        "routes": [f"nats-route://{named}{route}" for route in cluster.routes],
        **({"tls": tls} if tls else {}),
    }


def _leafs(
    address: str | None, public: Mapping[str, str], tls: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Where a server takes leaf nodes, which see what a wsproxy does."""
    if address is None:
        return None
    return {
        "listen": address,
        "no_advertise": True,
        "authorization": {"nkey": public["wsproxy"], "account": ARVADOS},
        **({"tls": tls} if tls else {}),
    }


def _websocket(websocket: WebSocket | None) -> dict[str, Any] | None:
    if websocket is None:
        return None
    tls = _tls(websocket.tls)
    return {
        "listen": websocket.listen,
        **({"tls": tls} if tls else {"no_tls": True}),
        **(
            {"allowed_origins": list(websocket.allowed_origins)}
            if websocket.allowed_origins
            else {"same_origin": True}
        ),
    }


def text(server: Server, public: Mapping[str, str], limits: AccountLimits | None = None) -> str:
    """nats.conf of one server. It holds no secret but the password of a cluster's routes."""
    return printed(settings(server, public, limits or AccountLimits()))
