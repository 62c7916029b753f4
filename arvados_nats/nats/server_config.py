# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the NATS servers of a cluster must be told: six accounts, and who may do what in them.

Pure. `accounts` and `authorization` are the one description of who is who: a bare server's
nats.conf, the sandbox and the chart's values all come from them or are tested equal to them.
Reasons: docs/facts/nats-callout.md 1.7 and 9, docs/facts/helm.md 2.

AUTH     the callout service alone: whoever can publish here can refuse logins
SYS      the system account, for the one identity that cuts connections
ARVADOS  streams and our services, one trust zone
SENDERS  who adds to one stream: containers with their own token, machines with their system log
USERS    everybody who comes with an Arvados token: hears the live tree, publishes nothing at all
REQUESTS the same people asking: services alone, so that no answer is heard as an event
No configured user in the last two, and JetStream in ARVADOS alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from arvados_nats.contract import streams, subjects
from arvados_nats.contract.accounts import ARVADOS, AUTH, REQUESTS, SENDERS, SYS, USERS

STATIC_USERS = ("callout", "callout-service", "publisher", "wsproxy", "system-logs", "sys")
"""Identities that log in by nkey, without the callout: they work while it is down."""

ROUTES = "routes"
"""The name by which the servers of a cluster know each other; its seed is the password."""

KIB, MIB, GIB = 1024, 1024**2, 1024**3


class Size(int):
    """A number of bytes, printed with the largest unit that divides it."""

    def __str__(self) -> str:
        for unit, suffix in ((GIB, "GB"), (MIB, "MB"), (KIB, "KB")):
            if self and self % unit == 0:
                return f"{self // unit}{suffix}"
        return int.__repr__(self)


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """How much the accounts may use. Account limits must fit the server's own, or it dies."""

    store: int = 20 * GIB
    """Bytes of one server's file store; ARVADOS may use nine tenths of it."""
    copies: int = 1
    """How many servers keep each stream. Every copy counts against the account's store."""
    max_streams: int = 16
    max_consumers: int = 1000
    user_connections: int = 20_000
    """Connections of USERS, and of REQUESTS, on one server, all users together."""
    user_subscriptions: int = 20_000
    """Subscriptions of one connection in USERS."""
    asking_subscriptions: int = 1000
    """Subscriptions of one connection in REQUESTS: answers that it waits for."""
    user_payload: int = 64 * KIB
    """The largest request that a user may send."""
    sender_payload: int = streams.MAX_SYSTEM_RECORD
    """The largest message of SENDERS, which a machine's record is; a container's token allows it
    much less (`authcallout.admissions`)."""
    payload: int = 8 * MIB
    """The largest message at all: a callout answer with 20,000 subjects takes 3 MiB."""
    control_line: int = 16 * KIB
    """The CONNECT line holds the token, and an OIDC access token can be 3 KiB."""


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


@dataclass(frozen=True, slots=True)
class WebSocket:
    """A listener for native NATS clients over WebSocket; without a certificate it is plain."""

    listen: str
    allowed_origins: tuple[str, ...] = ()
    tls: Tls | None = None


DOMAIN = "arvados"
"""What the servers that keep the streams are called, so that a leaf node asks them."""

MONITOR = "127.0.0.1:8222"


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


_SENT = (
    f"{subjects.LOGS}.>",
    f"$JS.API.DIRECT.GET.{streams.LOGS}.{subjects.LOGS}.>",
    f"{subjects.SYSTEM_LOGS}.>",
    f"$JS.API.DIRECT.GET.{streams.SYSTEM_LOGS}.{subjects.SYSTEM_LOGS}.>",
)
"""What SENDERS may be permitted to publish, as services of ARVADOS.

Not as clients in ARVADOS: no permission covers the reply subject of a message, and JetStream
answers there with what a sender has stored, as itself. So who may publish anything in ARVADOS can
forge events. The answer to a service stays in the account that asked, and who asks hears nothing
there but answers: that is why users who listen are in another account than users who ask.
"""


_CLOSED = {"publish": {"deny": [">"]}, "subscribe": {"deny": [">"]}}
"""Meant to close what a user JWT leaves open. nats-server 2.15.1 forgets it for accounts without
configured users, so the callout writes both sides itself."""


def accounts(public: Mapping[str, str], limits: AccountLimits) -> dict[str, Any]:
    """The six accounts; `public` gives the public key of each identity, and next ones
    (`service.keys.AHEAD`)."""
    return {
        SYS: {"users": _users(public, "sys")},
        AUTH: {"users": _users(public, "callout", permissions=_callout_permissions())},
        ARVADOS: {
            "jetstream": {
                "max_mem": 0,
                "max_file": Size(limits.store * limits.copies * 9 // 10 // MIB * MIB),
                "max_streams": limits.max_streams,
                "max_consumers": limits.max_consumers,
            },
            "users": [
                user
                for name in ("publisher", "wsproxy", "callout-service")
                for user in _users(public, name)
            ],
            "exports": [
                {"stream": f"{subjects.LIVE}.>", "accounts": [USERS]},
                {
                    "service": f"{subjects.API}.>",
                    "accounts": [REQUESTS],
                    "response": "stream",
                    "threshold": "30s",
                },
                *({"service": subject, "accounts": [SENDERS]} for subject in _SENT),
            ],
        },
        SENDERS: {
            "limits": {
                "max_connections": limits.user_connections,
                "max_subscriptions": limits.user_subscriptions,
                "max_payload": Size(limits.sender_payload),
            },
            "users": _users(public, "system-logs", permissions=_system_log_permissions()),
            "imports": [{"service": {"account": ARVADOS, "subject": subject}} for subject in _SENT],
        },
        USERS: {
            "limits": {
                "max_connections": limits.user_connections,
                "max_subscriptions": limits.user_subscriptions,
                "max_payload": Size(limits.user_payload),
            },
            "default_permissions": _CLOSED,
            "imports": [{"stream": {"account": ARVADOS, "subject": f"{subjects.LIVE}.>"}}],
        },
        REQUESTS: {
            "limits": {
                "max_connections": limits.user_connections,
                "max_subscriptions": limits.asking_subscriptions,
                "max_payload": Size(limits.user_payload),
            },
            "default_permissions": _CLOSED,
            "imports": [
                {"service": {"account": ARVADOS, "subject": f"{subjects.API}.>"}, "share": True}
            ],
        },
    }


def known_keys(public: Mapping[str, str], role: str) -> list[str]:
    """The key of a role and, where one was made beforehand, the one that it has next."""
    return [public[name] for name in (role, f"{role}.next") if name in public]


def _users(public: Mapping[str, str], role: str, **more: Any) -> list[dict[str, Any]]:
    return [{"nkey": key, **more} for key in known_keys(public, role)]


def _callout_permissions() -> dict[str, Any]:
    return {
        "subscribe": ["$SYS.REQ.USER.AUTH"],
        "publish": {"deny": [">"]},
        "allow_responses": {"max": 1, "expires": "5s"},
    }


def _system_log_permissions() -> dict[str, Any]:
    """It may append to this one stream and read the last records. Each machine should have a key
    of its own instead, made from it, which the callout lets in (`service.machine_keys`)."""
    return {
        "publish": [
            f"{subjects.SYSTEM_LOGS}.>",
            f"$JS.API.DIRECT.GET.{streams.SYSTEM_LOGS}.{subjects.SYSTEM_LOGS}.>",
        ],
        "subscribe": [f"{subjects.inbox_prefix('system-logs')}.>"],
    }


def authorization(public: Mapping[str, str]) -> dict[str, Any]:
    """Who decides about a login. A longer timeout helps nobody: clients give up after 2 s."""
    return {
        "timeout": 2,
        "auth_callout": {
            "issuer": public["issuer"],
            "account": AUTH,
            "auth_users": [key for name in STATIC_USERS for key in known_keys(public, name)],
            "xkey": public["xkey"],
            "allowed_accounts": [USERS, REQUESTS],
        },
    }


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


def printed(settings: Mapping[str, Any]) -> str:
    """Plain values in the language of nats.conf."""
    return "".join(f"{key}: {_value(value, 0)}\n" for key, value in settings.items())


def _value(value: Any, depth: int) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case list():
            return _list(value, depth)
        case dict():
            pad = "  " * (depth + 1)
            lines = (f"{pad}{key}: {_value(item, depth + 1)}\n" for key, item in value.items())
            return "{\n" + "".join(lines) + "  " * depth + "}"
        case _:
            raise TypeError(f"nats.conf cannot hold a {type(value).__name__}")


def _list(values: list[Any], depth: int) -> str:
    if len(values) == 1 and not isinstance(values[0], dict):
        return f"[{_value(values[0], depth)}]"
    pad = "  " * (depth + 1)
    lines = (f"{pad}{_value(value, depth + 1)}\n" for value in values)
    return "[\n" + "".join(lines) + "  " * depth + "]"
